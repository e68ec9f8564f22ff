"""Give the new channels of a widened network something to say: what the trained ones lose of the crops.

`widen` leaves new channels random and unread, and such channels take long to come to life. Here they begin as a linear
code, by way of the 2x2 skips, of the difference between crops and what the trained channels make of them: the new
channels at 1/8 hold the components of it that 8 x 8 pixels have, the new latents those of 16 x 16.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from ltchm_geo.nn.config import LEVELS_PER_ANCHOR, QUALITY_ANCHORS, ModelConfig, level_to_lambda
from ltchm_geo.nn.hyperprior import PARAMETERS
from ltchm_geo.nn.layers import ResidualBlock, UpBlock
from ltchm_geo.nn.model import LTCHM
from ltchm_geo.nn.transforms import Analysis, Synthesis
from ltchm_geo.training.klt import best_step, cells, principal_axes, regression, silence
from ltchm_geo.training.widen import grouped

__all__ = ["awaken"]

#: Everything is measured at the highest quality, where new channels matter most.
_QUALITY = QUALITY_ANCHORS - 1.0
#: The part of a correction that g_s is given: of other crops less is lost in just this way.
_TRUST = 0.4
#: Relative size of the random changes by which g_s is asked what it makes of a map, and how far the answer is believed.
_PROBE, _FLOOR = 0.05, 1e-3
_BATCH = 16


@torch.no_grad()
def awaken(network: LTCHM, trained: ModelConfig, crops: Tensor) -> None:
    """Set what g_a, g_s and the parameter network do with the channels that `widen` added.

    Parameters
    ----------
    network : LTCHM
        Just widened, and one that may be linear (`Trainer.start_from` sees to it).
    trained : ModelConfig
        Of the network that it was widened from, which has fewer channels at 1/8 of the resolution and in y.
    crops : (B, 3, H, W)
        Typical ones, in [0, 1]; H and W multiples of 16.
    """
    deep, latent = slice(trained.deep, None), slice(trained.latent, None)
    lost = crops - _run(network.g_s, _run(network.g_a, crops))
    bases = _encode(network, crops, lost, deep, latent)
    latents = _run(network.g_a, crops)
    _decode(network.g_s, _inverse(network.g_s, latents), bases, deep, latent)
    _expect(network, latents.std((0, 2, 3)), trained.latent)


def _run(transform: Analysis | Synthesis, maps: Tensor) -> Tensor:
    parts = maps.split(_BATCH)
    return torch.cat([transform(part, part.new_full((len(part),), _QUALITY)) for part in parts])


def _watch(layer: nn.Module, transform: Analysis | Synthesis, maps: Tensor) -> Tensor:
    """What comes out of a layer while its transform runs."""
    seen: list[Tensor] = []
    with layer.register_forward_hook(lambda _layer, _inputs, output: seen.append(output)):
        _run(transform, maps)
    return torch.cat(seen)


def _encode(network: LTCHM, crops: Tensor, lost: Tensor, deep: slice, latent: slice) -> tuple[Tensor, Tensor]:
    """Let new channels hold the components of `lost` that can be told from the maps; what they stand for, in pixels."""
    g_a, config = network.g_a, network.config
    quarter = _watch(g_a.scale2, g_a, crops)
    kernels, bias, deep_basis = _leading(cells(quarter, 2), cells(lost, 8), config.deep - deep.start)
    skip = cast(nn.Conv2d, g_a.down3.skip)
    skip.weight[deep], skip.bias[deep] = kernels.view_as(skip.weight[deep]), bias  # type: ignore[index]
    silence(g_a.down3.conv2, deep)
    silence(cast(ResidualBlock, g_a.stage3[-1]).conv2, deep)

    eighth = _watch(g_a.scale3, g_a, crops)
    kernels, bias, latent_basis = _leading(cells(eighth, 2), cells(lost, 16), config.latent - latent.start)
    silence(g_a.down4, latent)
    # A 3x3 kernel with stride 2 sees a cell of four pixels by its last two rows and columns.
    g_a.down4.weight[latent, :, 1:, 1:] = kernels.view(len(kernels), -1, 2, 2)
    g_a.down4.bias[latent] = bias  # type: ignore[index]
    steps = torch.tensor([math.log2(best_step(level_to_lambda(k * LEVELS_PER_ANCHOR))) for k in range(QUALITY_ANCHORS)])
    g_a.scale4.log2_scale[:, latent] = -steps[:, None].to(bias)
    network.g_s.scale4.log2_scale[:, latent] = steps[:, None].to(bias)
    return deep_basis, latent_basis


def _inverse(g_s: Synthesis, latents: Tensor) -> Tensor:
    """(N, 48): how to change g_s's map at 1/4 for a change of 4 x 4 pixels, from its answers to small changes."""
    quarter = _watch(g_s.up2, g_s, latents)
    generator = torch.Generator(quarter.device).manual_seed(0)
    noise = torch.randn(quarter.shape, generator=generator, device=quarter.device)
    probe = noise * quarter.std((0, 2, 3), keepdim=True) * _PROBE
    parts = iter(probe.split(_BATCH))
    with g_s.up2.register_forward_hook(lambda _layer, _inputs, output: output + next(parts)):
        changed = _run(g_s, latents)
    answer = changed - _run(g_s, latents)
    effect, _ = _regress(cells(probe, 1), cells(answer, 4))
    square = effect.T @ effect
    floor = _FLOOR * torch.linalg.matrix_norm(square, 2) * torch.eye(len(square)).to(square)
    return torch.linalg.solve(square + floor, effect.T)


def _decode(g_s: Synthesis, inverse: Tensor, bases: tuple[Tensor, Tensor], deep: slice, latent: slice) -> None:
    """Let g_s add to the pixels, by its skips, what the new latents stand for."""
    deep_basis, latent_basis = bases
    for block, channels in ((g_s.stage4[-1], latent), (g_s.up3, deep), (g_s.stage3[-1], deep)):
        silence(cast(ResidualBlock | UpBlock, block).conv2, channels)
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
        rows = grouped(parameter, PARAMETERS)
        rows[:, trained:] = rows[:, alike]


def _quadrants(basis: Tensor) -> Tensor:
    """Components (3 * 2s * 2s, K) of cells of 2s x 2s pixels as (K, 2, 2, 3 * s * s), by the cells of s x s in them."""
    size, count = math.isqrt(len(basis) // 12), basis.shape[1]
    parts = basis.T.reshape(count, 3, 2, size, 2, size).permute(0, 2, 4, 1, 3, 5)
    return parts.reshape(count, 2, 2, 3 * size**2)


def _regress(known: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The affine map, matrix (W, K) and offset (W,), from `known` (K, n) to `wanted` (W, n)."""
    mean_known, mean_wanted = known.mean(1, keepdim=True), wanted.mean(1, keepdim=True)
    matrix = regression(known - mean_known, wanted - mean_wanted)
    return matrix, (mean_wanted - matrix @ mean_known)[:, 0]


def _leading(known: Tensor, wanted: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best `count` numbers by which `known` tells `wanted`: kernels, offsets, and the basis (W, count) of both."""
    matrix, offset = _regress(known, wanted)
    basis = principal_axes(matrix @ known, count).T
    return (basis.T @ matrix).float(), (basis.T @ offset).float(), basis
