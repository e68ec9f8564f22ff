"""Let the context tell the latents that neighbours tell best, the brightness of a cell above all, by least squares.

A parameter network hardly finds this by itself. The mean of such a latent has to follow its neighbours over a hundred
quantiser steps, where the others stay within a few; an error costs so many bits at first that its width grows until the
mean has nothing more to say (docs/decisions/0014-predicted-latents.md). So before the first step some features of the
context become the linear predictions, a pair of units in each hidden layer takes each of them past the LeakyReLUs, and
the means of all its latent's components become it.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltchm_geo.nn.config import MIXTURES, QUALITY_ANCHORS
from ltchm_geo.nn.hyperprior import PARAMETERS, MaskedContext
from ltchm_geo.nn.layers import LEAKY_SLOPE
from ltchm_geo.nn.model import LTCHM
from ltchm_geo.training.klt import regression
from ltchm_geo.training.whiten import InputMoments
from ltchm_geo.training.widen import grouped

__all__ = ["predict"]

#: Predictions read so many latents, the strongest; twice as many tell 3 % less of what remains.
_READ = 32
#: Features are this part of a prediction, in quantiser steps: then they are about as large as other features.
_FEATURE = 2.0**-4
#: Widths (log2) of a predicted latent's components, relative to what the prediction leaves.
_WIDTHS = (-1.3, 0.0, 1.3)
_BATCH = 16


class _Latents(NamedTuple):
    """Rounded y (B, M, h, w) and z of crops, their qualities (B,), and quantiser steps per unit of y, relative (B,)."""

    y: Tensor
    z: Tensor
    quality: Tensor
    steps: Tensor


@torch.no_grad()
def predict(network: LTCHM, crops: Tensor, count: int) -> None:
    """Set what the context and the parameter network say of the `count` latents that neighbours tell best.

    What they said of them is gone, and so are the features and hidden units that had the least to say.

    Parameters
    ----------
    network : LTCHM
        Freshly begun, or trained.
    crops : (B, 3, H, W)
        Typical tiles, in [0, 1]; for each 256 pixels there is one example of what neighbours tell.
    count : int
        The context has 2N features, the hidden layers must have two units for each.
    """
    latents = _latents(network, crops)
    kernels, left = _least_squares(latents)
    energy = _relative(latents).square().mean((0, 2, 3))
    told = (left / energy).argsort()[:count]
    strongest, width = _strongest(network, latents, told)
    inputs = InputMoments(network)
    inputs.observe(crops[:_BATCH], latents.quality[:_BATCH])

    layers = [cast(nn.Conv2d, layer) for layer in list(network.parameter_net.layers)[::2]]
    energies = [inputs.moments[f"parameter_net.layers.{2 * i}.weight"].diagonal() for i in range(len(layers))]
    hyper = layers[0].in_channels - network.context.conv.out_channels
    features = _least_heard(layers[0], energies[0], slice(hyper, None))[:count] + hyper
    _set_features(network.context, features - hyper, kernels[:, told])
    source = features[:, None]
    for layer, reader, energy in zip(layers, layers[1:], energies[1:], strict=False):
        pairs = _least_heard(reader, energy, slice(None))[: 2 * count].view(count, 2)
        _pass_on(layer, source, pairs)
        source = pairs
    _set_mixtures(layers[-1], told, source, strongest, left[told].log2() / 2 - width)


def _latents(network: LTCHM, crops: Tensor) -> _Latents:
    quality = torch.linspace(0, QUALITY_ANCHORS - 1, len(crops), device=crops.device)
    quality = quality[torch.randperm(len(crops), generator=torch.Generator().manual_seed(0))]
    pairs = [network.analyse(x, q) for x, q in zip(crops.split(_BATCH), quality.split(_BATCH), strict=True)]
    scales = network.g_a.scale4.vectors(quality).log2().mean(1)
    y, z = (torch.cat(parts).float() for parts in zip(*pairs, strict=True))
    return _Latents(y, z, quality, torch.exp2(scales - scales.mean()))


def _relative(latents: _Latents) -> Tensor:
    """Y as large at every quality, so that each has the same say."""
    return latents.y / latents.steps[:, None, None, None]


def _least_squares(latents: _Latents) -> tuple[Tensor, Tensor]:
    """Kernels (M, M, taps), inputs first, that predict latents from known neighbours, and the energy left (M,)."""
    y = _relative(latents)
    channels = y.shape[1]
    strong = y.square().mean((0, 2, 3)).topk(min(_READ, channels)).indices
    size = MaskedContext.SIZE
    windows = F.unfold(y[:, strong], size, padding=size // 2).unflatten(1, (len(strong), size**2))
    known = windows[:, :, : MaskedContext.KNOWN].flatten(1, 2).transpose(0, 1).flatten(1).double()
    wanted = y.transpose(0, 1).flatten(1).double()
    matrix = regression(known, wanted)
    kernels = y.new_zeros(channels, channels, MaskedContext.KNOWN)
    kernels[strong] = matrix.view(channels, len(strong), -1).transpose(0, 1).float()
    return kernels, (wanted - matrix @ known).square().mean(1).float()


def _strongest(network: LTCHM, latents: _Latents, told: Tensor) -> tuple[Tensor, Tensor]:
    """Of each told latent the component with the most weight, and its mean log2(sigma)."""
    weights = widths = torch.zeros(MIXTURES, len(told), device=told.device)
    for y, z, quality, _ in zip(*(values.split(_BATCH) for values in latents), strict=True):
        found = network.parameters_of(y, z, quality).unflatten(1, (3, MIXTURES, -1))[:, :, :, told]
        weights = weights + torch.softmax(found[:, 0], 1).mean((3, 4)).sum(0)
        widths = widths + found[:, 2].mean((3, 4)).sum(0)
    strongest = weights.argmax(0, keepdim=True)
    return strongest[0], widths.gather(0, strongest)[0] / len(latents.y)


def _least_heard(layer: nn.Conv2d, energy: Tensor, part: slice) -> Tensor:
    """Inputs of a layer, numbered within `part`: those that change its outputs least come first."""
    return (energy * layer.weight.square().sum((0, 2, 3)))[part].argsort()


def _set_features(context: MaskedContext, features: Tensor, kernels: Tensor) -> None:
    """Let some of the context's features be predictions by `kernels` (M, count, taps), at every quality."""
    conv = context.conv
    weight = kernels.new_zeros(len(features), conv.in_channels, MaskedContext.SIZE**2)
    weight[:, :, : MaskedContext.KNOWN] = _FEATURE * kernels.transpose(0, 1)
    conv.weight[features] = weight.view(-1, *conv.weight.shape[1:])
    cast(Tensor, conv.bias)[features] = 0.0
    context.affine.scale[:, features] = 1.0
    context.affine.shift[:, features] = 0.0


def _pass_on(layer: nn.Conv2d, sources: Tensor, pairs: Tensor) -> None:
    """Let each pair of a layer's units hold what its source says, and the opposite.

    Parameters
    ----------
    layer : 1x1 convolution
        A LeakyReLU follows.
    sources : (count, 1 or 2)
        Inputs of the layer: features, or pairs that a LeakyReLU has passed.
    pairs : (count, 2)
        Outputs of the layer.
    """
    weight, bias = layer.weight, cast(Tensor, layer.bias)
    weight[:, sources.flatten()] = 0.0  # nobody else reads what has a new meaning
    for source, pair in zip(sources, pairs, strict=True):
        weight[pair], bias[pair] = 0.0, 0.0
        for unit, sign in zip(pair, (1.0, -1.0), strict=True):
            weight[unit, source, 0, 0] = sign * _whole(source)


def _whole(source: Tensor) -> Tensor:
    """Weights by which inputs give what they stand for: LeakyReLUs of x and -x are (1 + slope) x apart."""
    weights = torch.ones(1) if len(source) == 1 else torch.tensor([1.0, -1.0]) / (1 + LEAKY_SLOPE)
    return weights.to(source.device)


def _set_mixtures(layer: nn.Conv2d, told: Tensor, pairs: Tensor, strongest: Tensor, wider: Tensor) -> None:
    """Give all components of told latents one mean, the prediction, and the strongest one's widths, made `wider`."""
    layer.weight[:, pairs.flatten()] = 0.0
    grids = (grouped(p, PARAMETERS).unflatten(0, (3, MIXTURES)) for p in (layer.weight, cast(Tensor, layer.bias)))
    weight, bias = grids
    for latent, pair, component, shift in zip(told, pairs, strongest, wider, strict=True):
        weight[2, :, latent], bias[2, :, latent] = (p[2, component, latent].clone() for p in (weight, bias))
        bias[2, :, latent] += shift + torch.tensor(_WIDTHS).to(shift)
        weight[:2, :, latent], bias[:2, :, latent] = 0.0, 0.0
        weight[1, :, latent, pair, 0, 0] = _whole(pair) / _FEATURE
