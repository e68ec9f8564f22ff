"""From a weights file back to a float model that can be trained on: the inverse of `integerise` and `export`.

Integers hold no fraction bits of activations, only the shifts between them, and need none: LeakyReLU and what lies
between two multiplications commute with powers of two. So every free scale is set to `_BITS`, which puts activations
within about +-8, and what was folded together (LayerNorm's scale and shift, the attention's output projection) stays
folded: the restored network computes the same function with other numbers.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ltchm_geo.engine import load_transforms
from ltchm_geo.entropy import arithmetic as ar
from ltchm_geo.entropy import tables
from ltchm_geo.nn.attention import HybridStage
from ltchm_geo.nn.config import ModelConfig
from ltchm_geo.nn.hyperprior import MaskedContext
from ltchm_geo.nn.layers import QualityAffine
from ltchm_geo.nn.likelihood import FactorisedPrior
from ltchm_geo.nn.model import LTCHM
from ltchm_geo.training.integerise import OUTPUT_BITS, leaves
from ltchm_geo.training.ranges import MAX_BITS
from ltchm_geo.weights import LoadedWeights

__all__ = ["float_model"]

_BITS = 11
_PRIOR_STEPS, _PRIOR_RATE = 400, 0.03


def float_model(weights: LoadedWeights) -> LTCHM:
    """The float network of a weights file, in training mode.

    Raises
    ------
    InvalidWeightsError
        The transforms do not fit their own configuration.
    """
    model = LTCHM(ModelConfig.from_dict(weights.config))
    for name, transform in load_transforms(weights).items():
        getattr(model, name).load_state_dict(transform.state_dict())
    tensors = {k.removeprefix("entropy."): v for k, v in weights.tensors.items() if k.startswith("entropy.")}
    with torch.no_grad():
        reader = _Reader(tensors)
        hyper = _hyper(reader, model, weights.document("ltchm_entropy")["hyper"])
        _parameters(reader, model, hyper)
    fit_prior(model.prior, tensors["z_cdf"])
    return model


class _Reader:
    """Floats from stored integers."""

    def __init__(self, tensors: dict[str, NDArray[Any]]):
        self.tensors = tensors

    def sums(self, name: str, bits_in: Any, bits_out: Any) -> tuple[Tensor, Tensor]:
        """Weight (K, C) and bias (C,) of one multiplication; fraction bits may be scalars."""
        weight, bias, shift = (
            self.tensors[f"{name}.{part}"].astype(np.float64) for part in ("weight", "bias", "shift")
        )
        unit = 2.0 ** -(shift + bits_out)
        rows = np.broadcast_to(np.asarray(bits_in, np.float64), weight.shape[:1])
        return torch.from_numpy(weight * unit * 2.0 ** rows[:, None]), torch.from_numpy(bias * unit)

    def into(self, layer: nn.Module, name: str, bits_in: Any, bits_out: Any, order: str = "conv") -> None:
        """Give a convolution (or "deconv") its weight and bias."""
        weight, bias = self.sums(name, bits_in, bits_out)
        conv = cast(nn.Conv2d, layer)
        height, width = conv.kernel_size
        spread = weight.reshape(height, width, -1, weight.shape[1])
        conv.weight.copy_(spread.permute((3, 2, 0, 1) if order == "conv" else (2, 3, 0, 1)))
        cast(Tensor, conv.bias).copy_(bias)

    def affine(self, name: str, module: QualityAffine, bits_in: int) -> int:
        """Give a quality affine its numbers; returns the fraction bits of its output."""
        scale, offset, shift = (
            self.tensors[f"{name}.{part}"].astype(np.float64) for part in ("scale", "offset", "shift")
        )
        bits = shift - bits_in + _BITS
        module.scale.copy_(torch.from_numpy(scale * 2.0**-bits))
        module.shift.copy_(torch.from_numpy(offset * 2.0 ** -(bits + bits_in)))
        return _BITS


def _hyper(reader: _Reader, model: LTCHM, described: list[dict[str, Any]]) -> int:
    """Layers of h_s; returns the fraction bits of its features."""
    modules = [m for m in leaves(model.h_s.layers) if not isinstance(m, nn.LeakyReLU)]
    bits = 0  # z is whole numbers
    for i, (module, spec) in enumerate(zip(modules, described, strict=True)):
        name = f"hyper.{i}"
        if isinstance(module, HybridStage):
            bits = _hybrid(reader, name, module, spec, bits)
        else:
            reader.into(module, name, bits, _BITS, "deconv" if isinstance(module, nn.ConvTranspose2d) else "conv")
            bits = _BITS
    return reader.affine("hyper_affine", model.h_s.affine, bits)


def _hybrid(reader: _Reader, name: str, stage: HybridStage, spec: dict[str, Any], bits: int) -> int:
    half = stage.channel.merge.in_channels
    middle = bits - spec["skip1"]
    after = middle - spec["skip2"]
    reader.into(stage.split, f"{name}.split", spec["bits1"], _BITS)
    gate = _channel_gate(reader, f"{name}.channel", stage, spec)
    mixed = _attention(reader, f"{name}.attention", stage, spec)
    reader.into(stage.join, f"{name}.join", np.repeat([gate, mixed], half), middle)
    reader.into(stage.ffn.expand, f"{name}.expand", spec["bits2"], _BITS)
    for i, conv in enumerate(stage.ffn.depthwise):
        conv = cast(nn.Conv2d, conv)
        weight, bias = reader.sums(f"{name}.depthwise.{i}", MAX_BITS, _BITS)
        conv.weight.copy_((weight * 2.0 ** (_BITS - MAX_BITS)).T.reshape(conv.weight.shape))
        cast(Tensor, conv.bias).copy_(bias)
    reader.into(stage.ffn.reduce, f"{name}.reduce", _BITS, after)
    return int(after)


def _channel_gate(reader: _Reader, name: str, stage: HybridStage, spec: dict[str, Any]) -> int:
    gca = stage.channel
    half = gca.merge.in_channels
    part = half // gca.PARTS
    pooled = _BITS + spec["mean_bits"]
    weight, bias = reader.sums(f"{name}.branches", pooled, np.repeat([_BITS, ar.LOGIT_BITS], half))
    for i, branch in enumerate(gca.branches):
        branch = cast(nn.Conv2d, branch)
        own = slice(i * part, (i + 1) * part)
        gates = slice(half + i * part, half + (i + 1) * part)
        branch.weight.copy_(torch.cat([weight[own, own], weight[own, gates]], dim=1).T[:, :, None, None])
        cast(Tensor, branch.bias).copy_(torch.cat([bias[own], bias[gates]]))
    reader.into(gca.merge, f"{name}.merge", _BITS, _BITS)
    return int(2 * _BITS - spec["channel_shift"])


def _attention(reader: _Reader, name: str, stage: HybridStage, spec: dict[str, Any]) -> int:
    module = stage.attention
    half = module.qkv.in_channels
    score = spec["score_shift"] + ar.LOGIT_BITS  # fraction bits of query times key
    reader.into(module.qkv, f"{name}.qkv", _BITS, np.repeat([score - _BITS, _BITS, _BITS], half))
    root = module.head_dim**-0.5
    module.qkv.weight[:half] /= root
    cast(Tensor, module.qkv.bias)[:half] /= root
    position = reader.tensors[f"{name}.position"].astype(np.float64)
    module.position_bias.copy_(torch.from_numpy(position * 2.0**-score))
    module.project.weight.copy_(torch.eye(half)[:, :, None, None])
    cast(Tensor, module.project.bias).zero_()
    return int(ar.UNIT_BITS + _BITS - spec["mix_shift"])


def _parameters(reader: _Reader, model: LTCHM, hyper: int) -> None:
    conv, n = model.context.conv, model.config.channels
    weight, bias = reader.sums("context", 0, _BITS)
    taps = torch.zeros(MaskedContext.SIZE**2, conv.in_channels, conv.out_channels, dtype=weight.dtype)
    taps[: MaskedContext.KNOWN] = weight.reshape(MaskedContext.KNOWN, conv.in_channels, -1)
    conv.weight.copy_(taps.reshape(MaskedContext.SIZE, MaskedContext.SIZE, *taps.shape[1:]).permute(3, 2, 0, 1))
    cast(Tensor, conv.bias).copy_(bias)
    context = reader.affine("context_affine", model.context.affine, _BITS)
    layers = model.parameter_net.layers
    reader.into(layers[0], "mlp.0", np.repeat([hyper, context], 2 * n), _BITS)
    reader.into(layers[2], "mlp.1", _BITS, _BITS)
    reader.into(layers[4], "mlp.2", _BITS, np.repeat(OUTPUT_BITS, 3 * model.config.latent))


def fit_prior(prior: FactorisedPrior, z_cdf: NDArray[np.integer]) -> None:
    """Fit the density of z to its stored cumulative tables, by cross entropy."""
    masses = torch.from_numpy(np.diff(z_cdf.astype(np.int64), axis=1) / tables.PROB_TOTAL).float()
    values = torch.arange(-tables.Z_MAX, tables.Z_MAX + 1).float()
    grid = values.expand(len(masses), -1).T[:, :, None, None]  # one "image" per value
    optimizer = torch.optim.Adam(prior.parameters(), lr=_PRIOR_RATE)
    for step in range(_PRIOR_STEPS):
        optimizer.param_groups[0]["lr"] = _PRIOR_RATE * (1 - step / _PRIOR_STEPS)
        likelihood = prior(grid)[:, :, 0, 0].T
        loss = -(masses * torch.log(likelihood)).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
