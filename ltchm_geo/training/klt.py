"""Start a network as the linear transform that loses least: the Karhunen-Loeve transform of the crops.

The 2x2 skips of g_a, one behind the other, take 16 x 16 pixels to M numbers. Here each becomes the rotation to the
principal components of what it reads, those of g_s become its transposes, and what stands beside a skip adds nothing at
first. The network is a block transform codec before its first step, and training begins with what such a codec lacks.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltchm_geo.nn.config import MAX_LEVEL, MIXTURES, level_to_lambda
from ltchm_geo.nn.hyperprior import ParameterNetwork
from ltchm_geo.nn.layers import DownBlock, ResidualBlock, UpBlock
from ltchm_geo.nn.model import LTCHM

__all__ = [
    "best_step",
    "cells",
    "principal_axes",
    "principal_components",
    "regression",
    "silence",
    "start_as_klt",
]

#: First widths (log2) of a latent's mixture components, relative to the spread of its channel.
_WIDTHS = (-2.5, -1.0, 0.5)
#: Ridge of regressions, relative to the mean energy of what they read.
_RIDGE = 1e-5


@torch.no_grad()
def start_as_klt(network: LTCHM, crops: Tensor) -> None:
    """Set the weights of g_a and g_s, and the first widths of the latents' mixtures.

    Parameters
    ----------
    network : LTCHM
        One that may be linear (`Recipe` sees to it).
    crops : (B, 3, H, W)
        Typical ones, in [0, 1]; H and W multiples of 16.
    """
    g_a, g_s = network.g_a, network.g_s
    for module in (*g_a.modules(), *g_s.modules()):
        if isinstance(module, DownBlock | UpBlock | ResidualBlock):
            silence(module.conv2)
    maps = crops - 0.5
    downs = (g_a.down1.skip, g_a.down2.skip, g_a.down3.skip, g_a.down4)
    ups = (g_s.up0, g_s.up1.skip, g_s.up2.skip, g_s.up3.skip)
    for down, up in zip(downs, ups, strict=True):
        basis = principal_components(maps, len(down.weight))
        for layer in (down, up):
            silence(layer)
            # A 3x3 kernel with stride 2 sees a cell of four pixels by its last two rows and columns.
            layer.weight[: basis.shape[0], : basis.shape[1], -2:, -2:] = basis
        maps = F.conv2d(maps, basis, stride=2)
    log2_step = math.log2(best_step(level_to_lambda(MAX_LEVEL / 2)))
    g_a.scale4.log2_scale.sub_(log2_step)
    g_s.scale4.log2_scale.add_(log2_step)
    _set_widths(network.parameter_net, maps.square().mean((0, 2, 3)).clamp(min=1e-6).log2() / 2 - log2_step)


def principal_components(maps: Tensor, count: int) -> Tensor:
    """Orthonormal 2x2 kernels (K, C, 2, 2) that keep the most energy of `maps` (B, C, H, W), K = min(`count`, 4C)."""
    return principal_axes(cells(maps, 2), count).reshape(-1, maps.shape[1], 2, 2).to(maps)


def principal_axes(vectors: Tensor, count: int) -> Tensor:
    """The `count` orthonormal rows (count, K) that keep the most energy of `vectors` (K, n), the largest first."""
    return torch.linalg.eigh(vectors @ vectors.T).eigenvectors.T.flip(0)[:count]


def regression(known: Tensor, wanted: Tensor) -> Tensor:
    """The matrix (W, K) that takes `known` (K, n) nearest to `wanted` (W, n)."""
    gram = known @ known.T
    gram += _RIDGE * gram.trace() / len(gram) * torch.eye(len(gram)).to(gram)
    return torch.linalg.solve(gram, known @ wanted.T).T


def cells(maps: Tensor, size: int) -> Tensor:
    """All cells of `size` x `size` of `maps` (B, C, H, W), in double precision: (C * size**2, cells)."""
    return F.unfold(maps, size, stride=size).transpose(0, 1).flatten(1).double()


def best_step(lagrangian: float) -> float:
    """The quantiser step of an orthonormal transform at which a bit is worth what it costs.

    A latent's bits count 1/256 in bits per pixel, its distortion step**2 / 12 counts 1/768 in the mean square error of
    16 x 16 pixels of three bands, and a bit more halves the step: step**2 = 18 / (ln 2 * lambda).
    """
    return math.sqrt(18 / (math.log(2) * lagrangian))


def _set_widths(parameters: ParameterNetwork, log2_spread: Tensor) -> None:
    bias = cast(Tensor, cast(nn.Conv2d, parameters.layers[-1]).bias)
    bias[2 * MIXTURES * len(log2_spread) :] = torch.cat([log2_spread + width for width in _WIDTHS])


def silence(layer: nn.Module, channels: slice = slice(None)) -> None:
    """Let a layer, or some of a convolution's output channels, give zeros."""
    for parameter in layer.parameters():
        parameter[channels] = 0.0
