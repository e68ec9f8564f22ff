"""Radiometric and geometric variety: what other sensors, seasons and exposures would have recorded."""

from __future__ import annotations

import torch
from torch import Tensor


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Randomly turn, mirror and re-expose crops (B, 3, S, S) in [0, 1]; each image independently."""
    draw = Draw(len(x), x.device, generator)
    x = _turn(x, draw)
    x = torch.where(draw.chance(0.3), _permute_bands(x, draw), x)
    x = torch.where(draw.chance(0.08), x.mean(1, keepdim=True).expand_as(x), x)
    x = torch.where(draw.chance(0.5), _expose(x, draw), x)
    x = torch.where(draw.chance(0.12), _stretch(x, draw), x)
    noise = torch.randn(x.shape, generator=generator, device=x.device) * draw.between(0.0, 0.012)
    x = torch.where(draw.chance(0.25), x + noise, x)
    x = torch.where(draw.chance(0.04), _cut(x, draw), x)
    return x.clamp(0.0, 1.0)


class Draw:
    """Per-image random numbers (B, 1, 1, 1)."""

    def __init__(self, batch: int, device: torch.device, generator: torch.Generator):
        self.batch, self.device, self.generator = batch, device, generator

    def between(self, low: float, high: float) -> Tensor:
        """Uniform in [low, high)."""
        uniform = torch.rand(self.batch, 1, 1, 1, generator=self.generator, device=self.device)
        return low + (high - low) * uniform

    def chance(self, probability: float) -> Tensor:
        """True with this probability."""
        return self.between(0.0, 1.0) < probability

    def weights(self) -> Tensor:
        """(B, 3, 1, 1), positive, together 1."""
        uniform = torch.rand(self.batch, 3, 1, 1, generator=self.generator, device=self.device)
        return uniform / uniform.sum(1, keepdim=True).clamp(min=1e-6)


def _turn(x: Tensor, draw: Draw) -> Tensor:
    x = torch.where(draw.chance(0.5), x.flip(3), x)
    x = torch.where(draw.chance(0.5), x.flip(2), x)
    return torch.where(draw.chance(0.5), x.transpose(2, 3), x)


def _permute_bands(x: Tensor, draw: Draw) -> Tensor:
    order = torch.rand(len(x), 3, generator=draw.generator, device=x.device).argsort(1)
    return x.gather(1, order[:, :, None, None].expand_as(x))


def _expose(x: Tensor, draw: Draw) -> Tensor:
    """Gamma, gain, and haze (an offset that also lowers contrast)."""
    gamma, gain, haze = draw.between(0.6, 1.6), draw.between(0.5, 1.15), draw.between(-0.05, 0.25)
    return x.clamp(min=1e-4) ** gamma * gain * (1 - haze) + haze


def _stretch(x: Tensor, draw: Draw) -> Tensor:
    """As made for the screen: dark ends at 0, up to a fifth of the pixels is white, a gamma darkens the rest."""
    ordered = x[:, :, ::4, ::4].flatten(1).sort(1).values
    last = ordered.shape[1] - 1
    low, high = (
        ordered.gather(1, (draw.between(*part).flatten(1) * last).long())[:, :, None, None]
        for part in ((0.0, 0.02), (0.8, 1.0))
    )
    return ((x - low) / (high - low).clamp(min=1 / 64)).clamp(0.0, 1.0) ** draw.between(0.8, 2.5)


def _cut(x: Tensor, draw: Draw) -> Tensor:
    """One side of a random straight line becomes a flat value, like the edge of a rotated footprint."""
    size = x.shape[-1]
    axis = torch.linspace(-1, 1, size, device=x.device)
    angle = draw.between(0.0, 6.2832)
    side = axis[None, None, :, None] * angle.sin() + axis[None, None, None, :] * angle.cos() > draw.between(-0.5, 0.9)
    return torch.where(side, draw.between(0.0, 1.0), x)
