"""Hyper transforms h_a and h_s (Tab. 2), masked context and parameter network (Fig. 1).

Everything from z to the mixture parameters is built of layers that have an exact integer twin (`entropy.integer_net`):
convolutions, LeakyReLU with a power-of-two slope, channel LayerNorm, window attention, gated channel attention.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltchm_geo.nn.attention import HPHAM
from ltchm_geo.nn.config import MIXTURES, ModelConfig
from ltchm_geo.nn.layers import LEAKY_SLOPE, QualityAffine, QualityScale, conv1x1, conv3x3, deconv3x3

#: Per latent: a logit, a mean and a log2(sigma) for each component.
PARAMETERS = 3 * MIXTURES


def _act() -> nn.Module:
    return nn.LeakyReLU(LEAKY_SLOPE)


def _hpham(config: ModelConfig) -> HPHAM:
    return HPHAM(2 * config.channels, head_dim=config.head_dim, window=config.window)


class HyperAnalysis(nn.Module):
    """h_a: y (B, M, H, W) to z (B, N, H/4, W/4). Runs in floating point: nothing decoded depends on it."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        n, m = config.channels, config.latent
        self.scale = QualityScale(m, config.scales, exponent=-0.25)
        if config.hpham == "table2":
            entry: list[nn.Module] = [conv3x3(m, 2 * n), _hpham(config), conv3x3(2 * n, n), _act(), conv3x3(n, n)]
        else:
            entry = [conv3x3(m, n), _act(), conv3x3(n, n)]
        self.layers = nn.Sequential(
            *entry,
            _act(),
            conv3x3(n, 2 * n, stride=2),
            _hpham(config),
            conv3x3(2 * n, n),
            _act(),
            conv3x3(n, n, stride=2),
        )

    def forward(self, y: Tensor, quality: Tensor) -> Tensor:
        """Hyper latent before rounding."""
        return cast(Tensor, self.layers(self.scale(y, quality)))


class HyperSynthesis(nn.Module):
    """h_s: z (B, N, h, w) to features (B, 2N, 4h, 4w) for the parameter network."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        n = config.channels
        wide = n + n // 2
        exit_: list[nn.Module] = [_hpham(config)] if config.hpham == "table2" else []
        self.layers = nn.Sequential(
            deconv3x3(n, n),
            _act(),
            conv3x3(n, 2 * n),
            _hpham(config),
            conv3x3(2 * n, wide),
            _act(),
            deconv3x3(wide, wide),
            _act(),
            conv3x3(wide, 2 * n),
            *exit_,
        )
        self.affine = QualityAffine(2 * n)

    def forward(self, z: Tensor, quality: Tensor) -> Tensor:
        """Features at the resolution of y."""
        return cast(Tensor, self.affine(self.layers(z), quality))


class MaskedConv(nn.Conv2d):
    """Convolution over what precedes its centre in raster order (type A)."""

    mask: Tensor

    def __init__(self, c_in: int, c_out: int, size: int = 5):
        super().__init__(c_in, c_out, size, padding=size // 2)
        mask = (torch.arange(size**2) < size**2 // 2).float().reshape(1, 1, size, size)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H, W); outside the map, values count as zero."""
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class MaskedContext(nn.Module):
    """5x5 masked convolution (type A): features (B, 2N, H, W) of the latents above and to the left."""

    SIZE = 5
    #: Taps of the window that precede its centre in raster order.
    KNOWN = SIZE * SIZE // 2

    def __init__(self, config: ModelConfig):
        super().__init__()
        m, n = config.latent, config.channels
        self.conv = MaskedConv(m, 2 * n, self.SIZE)
        self.affine = QualityAffine(2 * n)

    def forward(self, y: Tensor, quality: Tensor) -> Tensor:
        """Features of the quantised latent `y` (B, M, H, W); outside the tile it counts as zero."""
        return cast(Tensor, self.affine(self.conv(y), quality))


class ParameterNetwork(nn.Module):
    """1x1 convolutions 4N -> 640 -> 640 -> 9M: mixture parameters from hyper and context features.

    The output's channels are ordered (parameter, component, latent channel) with the parameters logit, mean and
    log2(sigma), so it reshapes to (B, 3, K, M, H, W).
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        n, m, width = config.channels, config.latent, config.parameter_width
        self.layers = nn.Sequential(
            conv1x1(4 * n, width), _act(), conv1x1(width, width), _act(), conv1x1(width, PARAMETERS * m)
        )
        self._spread_components(m)

    @torch.no_grad()
    def _spread_components(self, channels: int) -> None:
        """Start the components at different widths; identical ones would receive identical gradients for long."""
        bias = cast(Tensor, cast(nn.Conv2d, self.layers[-1]).bias)
        bias.zero_()
        sigma = torch.tensor([-1.0, 0.5, 2.0])
        bias[2 * MIXTURES * channels :] = sigma.repeat_interleave(channels)

    def forward(self, hyper: Tensor, context: Tensor) -> Tensor:
        """(B, 2N, H, W) twice -> (B, 9M, H, W)."""
        return cast(Tensor, self.layers(torch.cat([hyper, context], dim=1)))
