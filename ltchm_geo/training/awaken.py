"""Give the new channels of a widened network something to say: what the trained ones lose of the crops.

`widen` leaves new channels random and unread, and such channels take long to come to life. Here they begin as a linear
code, by way of the 2x2 skips, of the difference between crops and what the trained channels make of them: the new
channels at 1/8 hold the components of it that 8 x 8 pixels have, the new latents those of 16 x 16.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltchm_geo.nn.config import LEVELS_PER_ANCHOR, QUALITY_ANCHORS, ModelConfig, level_to_lambda
from ltchm_geo.nn.hyperprior import PARAMETERS
from ltchm_geo.nn.layers import ResidualBlock, UpBlock
from ltchm_geo.nn.model import LTCHM
from ltchm_geo.training.klt import best_step

__all__ = ["awaken"]

#: Everything is measured at the highest quality, where new channels matter most.
_QUALITY = QUALITY_ANCHORS - 1.0
#: The part of a correction that g_s is given: of other crops less is lost in just this way.
_TRUST = 0.4
#: Relative size of the random changes by which g_s is asked what it makes of a map, and how far the answer is believed.
_PROBE, _FLOOR = 0.05, 1e-3
#: Ridge of all regressions, relative to the mean energy of what they read.
_RIDGE = 1e-5
_BATCH = 16


@torch.no_grad()
def awaken(network: LTCHM, trained: ModelConfig, crops: Tensor) -> None:
    """Set what g_a, g_s and the parameter network do with the channels that `widen` added.

    Parameters
    ----------
    network : LTCHM
        Just widened, with 2x2 skips and the gain of dynamic attention (`Trainer.start_from` sees to it).
    trained : ModelConfig
        Of the network that it was widened from, which has fewer channels at 1/8 of the resolution and in y.
    crops : (B, 3, H, W)
        Typical ones, in [0, 1]; H and W multiples of 16.
    """
    deep, latent = slice(trained.deep, None), slice(trained.latent, None)
    maps = _Maps(network)
    lost = crops - maps.pixels(maps.latents(crops))
    bases = _encode(network, maps, crops, lost, deep, latent)
    latents = maps.latents(crops)
    _decode(network, _inverse(maps, latents), bases, deep, latent)
    _expect(network, latents.std((0, 2, 3)), trained.latent)


class _Maps:
    """What lies between the parts of a network, for many crops."""

    def __init__(self, network: LTCHM):
        self._g_a, self._g_s = network.g_a, network.g_s

    def quarter(self, crops: Tensor) -> Tensor:
        """What g_a has at 1/4 of the resolution."""
        a = self._g_a
        return _batched(lambda x, q: a.scale2(a.stage2(a.down2(a.scale1(a.stage1(a.down1(x - 0.5)), q))), q), crops)

    def eighth(self, quarter: Tensor) -> Tensor:
        """What g_a makes of it at 1/8."""
        a = self._g_a
        return _batched(lambda x, q: a.scale3(a.stage3(a.down3(x)), q), quarter)

    def latents(self, crops: Tensor) -> Tensor:
        """y, not rounded."""
        return _batched(self._g_a, crops)

    def decoded_quarter(self, latents: Tensor) -> Tensor:
        """What g_s has at 1/4."""
        s = self._g_s
        return _batched(
            lambda y, q: s.up2(s.scale2(s.stage3(s.up3(s.scale3(s.stage4(s.scale4(y, q)), q))), q)), latents
        )

    def from_quarter(self, maps: Tensor) -> Tensor:
        """What g_s makes of it: pixels."""
        s = self._g_s
        return _batched(lambda x, q: s.up0(s.stage1(s.up1(s.scale1(s.stage2(x), q)))) + 0.5, maps)

    def pixels(self, latents: Tensor) -> Tensor:
        """What g_s makes of latents."""
        return _batched(self._g_s, latents)


def _batched(function: Callable[[Tensor, Tensor], Tensor], maps: Tensor) -> Tensor:
    return torch.cat([function(part, part.new_full((len(part),), _QUALITY)) for part in maps.split(_BATCH)])


def _encode(
    network: LTCHM, maps: _Maps, crops: Tensor, lost: Tensor, deep: slice, latent: slice
) -> tuple[Tensor, Tensor]:
    """Let new channels hold the components of `lost` that can be told from the maps; what they stand for, in pixels."""
    g_a, config = network.g_a, network.config
    quarter = maps.quarter(crops)
    kernels, bias, deep_basis = _leading(_cells(quarter, 2), _cells(lost, 8), config.deep - deep.start)
    skip = cast(nn.Conv2d, g_a.down3.skip)
    skip.weight[deep], skip.bias[deep] = kernels.view_as(skip.weight[deep]), bias  # type: ignore[index]
    _silence(g_a.down3.conv2, deep)
    _silence(cast(ResidualBlock, g_a.stage3[-1]).conv2, deep)

    eighth = maps.eighth(quarter)
    kernels, bias, latent_basis = _leading(_cells(eighth, 2), _cells(lost, 16), config.latent - latent.start)
    _silence(g_a.down4, latent)
    # A 3x3 kernel with stride 2 sees a cell of four pixels by its last two rows and columns.
    g_a.down4.weight[latent, :, 1:, 1:] = kernels.view(len(kernels), -1, 2, 2)
    g_a.down4.bias[latent] = bias  # type: ignore[index]
    steps = torch.tensor([math.log2(best_step(level_to_lambda(k * LEVELS_PER_ANCHOR))) for k in range(QUALITY_ANCHORS)])
    g_a.scale4.log2_scale[:, latent] = -steps[:, None].to(bias)
    network.g_s.scale4.log2_scale[:, latent] = steps[:, None].to(bias)
    return deep_basis, latent_basis


def _inverse(maps: _Maps, latents: Tensor) -> Tensor:
    """(N, 48): how to change g_s's map at 1/4 for a change of 4 x 4 pixels, from its answers to small changes."""
    quarter = maps.decoded_quarter(latents)
    generator = torch.Generator(quarter.device).manual_seed(0)
    noise = torch.randn(quarter.shape, generator=generator, device=quarter.device)
    probe = noise * quarter.std((0, 2, 3), keepdim=True) * _PROBE
    answer = maps.from_quarter(quarter + probe) - maps.from_quarter(quarter)
    effect, _ = _regress(_cells(probe, 1), _cells(answer, 4))
    square = effect.T @ effect
    floor = _FLOOR * torch.linalg.matrix_norm(square, 2) * torch.eye(len(square)).to(square)
    return torch.linalg.solve(square + floor, effect.T)


def _decode(network: LTCHM, inverse: Tensor, bases: tuple[Tensor, Tensor], deep: slice, latent: slice) -> None:
    """Let g_s add to the pixels, by its skips, what the new latents stand for."""
    g_s, (deep_basis, latent_basis) = network.g_s, bases
    for block, channels in ((g_s.stage4[-1], latent), (g_s.up3, deep), (g_s.stage3[-1], deep)):
        _silence(cast(ResidualBlock | UpBlock, block).conv2, channels)
    up3, up2 = cast(nn.ConvTranspose2d, g_s.up3.skip), cast(nn.ConvTranspose2d, g_s.up2.skip)
    up3.weight[:, deep] = 0.0  # trained latents say nothing to the new channels
    up3.bias[deep] = 0.0  # type: ignore[index]
    up3.weight[latent, deep] = torch.einsum("mijp,pd->mdij", _quadrants(latent_basis), deep_basis).float()
    up2.weight[deep] = _TRUST * torch.einsum("dijp,np->dnij", _quadrants(deep_basis), inverse).float()


def _expect(network: LTCHM, spread: Tensor, trained: int) -> None:
    """Expect of a new latent what is expected of the trained one whose spread (M,) is most alike."""
    log2_spread = spread.clamp(min=1e-6).log2()
    alike = (log2_spread[:trained] - log2_spread[trained:, None]).abs().argmin(1)
    for parameter in network.parameter_net.layers[-1].parameters():
        rows = parameter.view(PARAMETERS, len(spread), -1)
        rows[:, trained:] = rows[:, alike]


def _cells(maps: Tensor, size: int) -> Tensor:
    """(C * size**2, cells) of all cells of `size` x `size` pixels of (B, C, H, W)."""
    return F.unfold(maps, size, stride=size).transpose(0, 1).flatten(1).double()


def _quadrants(basis: Tensor) -> Tensor:
    """Components (3 * 2s * 2s, K) of cells of 2s x 2s pixels as (K, 2, 2, 3 * s * s), by the cells of s x s in them."""
    size, count = math.isqrt(len(basis) // 12), basis.shape[1]
    parts = basis.T.reshape(count, 3, 2, size, 2, size).permute(0, 2, 4, 1, 3, 5)
    return parts.reshape(count, 2, 2, 3 * size**2)


def _regress(known: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The affine map, matrix (W, K) and offset (W,), from `known` (K, n) to `wanted` (W, n)."""
    mean_known, mean_wanted = known.mean(1, keepdim=True), wanted.mean(1, keepdim=True)
    x, y = known - mean_known, wanted - mean_wanted
    gram = x @ x.T
    gram += _RIDGE * gram.trace() / len(gram) * torch.eye(len(gram)).to(gram)
    matrix = torch.linalg.solve(gram, x @ y.T).T
    return matrix, (mean_wanted - matrix @ mean_known)[:, 0]


def _leading(known: Tensor, wanted: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best `count` numbers by which `known` tells `wanted`: kernels, offsets, and the basis (W, count) of both."""
    matrix, offset = _regress(known, wanted)
    told = matrix @ known
    basis = torch.linalg.eigh(told @ told.T).eigenvectors.flip(1)[:, :count]
    return (basis.T @ matrix).float(), (basis.T @ offset).float(), basis


def _silence(layer: nn.Module, channels: slice) -> None:
    for parameter in layer.parameters():
        parameter[channels] = 0.0
