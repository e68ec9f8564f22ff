"""From a trained float model to the integers of the exact parameter network.

Fraction bits follow from the largest values seen on calibration latents, with room for more, in the context and the
parameter network channel by channel; weights get sixteen bits with an own power of two per output channel. LayerNorm's
scale and shift, the attention's 1/sqrt(d) and its output projection fold into the convolutions next to them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ltchm_geo.entropy import arithmetic as ar
from ltchm_geo.entropy import rans, tables
from ltchm_geo.entropy.integer_layers import LEVELS_PER_ANCHOR
from ltchm_geo.entropy.integer_net import ExactCoder, describe
from ltchm_geo.errors import UsageError
from ltchm_geo.nn.attention import HybridStage
from ltchm_geo.nn.hyperprior import MaskedContext
from ltchm_geo.nn.layers import QualityAffine
from ltchm_geo.nn.likelihood import FactorisedPrior, mixture_likelihood
from ltchm_geo.nn.model import LTCHM
from ltchm_geo.training.ranges import MAX_BITS, Latents, Peaks, observe

__all__ = ["OUTPUT_BITS", "calibration_latents", "integerise", "leaves", "prior_tables", "rate_report"]

_Floats = NDArray[np.float64]

_WEIGHT_BITS = 24  # no weight needs finer steps: an activation of full range then moves its sum by 2**-9
#: Fraction bits of the output: logits 1/256, means 1/64, log2(sigma) 1/16.
OUTPUT_BITS = (8, 6, 4)


@torch.no_grad()
def calibration_latents(model: LTCHM, crops: Tensor, levels: Sequence[int]) -> list[Latents]:
    """Latents (y, z, level) of `crops` (B, 3, H, W) in [0, 1] at several quality levels."""
    found = []
    for level in levels:
        y, z = model.analyse(crops, torch.full((len(crops),), level / LEVELS_PER_ANCHOR))
        found.append((y, z, level))
    return found


def integerise(model: LTCHM, calibration: Iterable[Latents]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Integers and their description for `entropy.integer_net.ExactCoder.from_tensors`.

    Parameters
    ----------
    model : LTCHM
        Trained; not changed.
    calibration : (y, z, level) of typical tiles over the range of levels, from `calibration_latents`.

    Returns
    -------
    tensors
        int8, int16, int32 and int64 arrays by name, and `z_cdf` (N, 130) uint32.
    spec
        Plain JSON data.
    """
    exact = deepcopy(model).double().eval().cpu()
    peaks = observe(exact, calibration)
    writer = _Writer(peaks)
    spec = describe(exact.config.channels, exact.config.latent, _hyper(writer, exact))
    _parameters(writer, exact)
    writer.tensors["z_cdf"] = prior_tables(exact.prior)
    return writer.tensors, spec


# --- writing layers --------------------------------------------------------------------------------------------------


class _Writer:
    """Collects integer tensors."""

    def __init__(self, peaks: Peaks):
        self.peaks = peaks
        self.tensors: dict[str, NDArray[Any]] = {}

    def sums(self, name: str, weight: _Floats, bias: _Floats, bits_in: Any, bits_out: Any) -> NDArray[np.int64]:
        """One multiplication by `weight` (K, C); fraction bits of inputs (K,) and outputs (C,) may be scalars.

        Returns the shifts (C,).
        """
        bits_in = np.broadcast_to(np.asarray(bits_in, np.float64), weight.shape[:1])
        bits_out = np.broadcast_to(np.asarray(bits_out, np.float64), weight.shape[1:])
        relative = weight * 2.0 ** -bits_in[:, None]  # per unit of the integer inputs
        peak = np.maximum(np.abs(relative).max(axis=0), 2.0**-200)
        bits = np.floor(np.log2(ar.LIMIT / peak))
        # Finer steps than this would buy nothing and take the sums out of range.
        bits = np.minimum(bits, bits_out + _WEIGHT_BITS)
        bits = np.minimum(bits, np.floor(np.log2(2.0**47 / np.maximum(np.abs(bias), 1e-9))))
        shift = (bits - bits_out).astype(np.int64)
        self.tensors[f"{name}.weight"] = np.rint(relative * 2.0**bits).astype(np.int16)
        self.tensors[f"{name}.bias"] = np.rint(bias * 2.0**bits).astype(np.int64)
        self.tensors[f"{name}.shift"] = shift.astype(np.int8)
        return shift

    def conv(self, name: str, conv: nn.Conv2d, bits_in: Any, bits_out: Any) -> None:
        """A convolution; kernels become (ky, kx, input) rows."""
        weight = _array(conv.weight).transpose(2, 3, 1, 0)
        self.sums(name, weight.reshape(-1, weight.shape[-1]), _bias(conv), bits_in, bits_out)

    def affine(self, name: str, module: QualityAffine, bits_in: Any, bits_out: Any) -> None:
        """A quality affine: one shift per channel for all anchors."""
        scale, offset = _array(module.scale), _array(module.shift)
        peak = np.maximum(np.abs(scale).max(axis=0), np.abs(offset).max(axis=0) * 2.0 ** (bits_in - 30))
        bits = np.minimum(np.floor(np.log2(ar.LIMIT / np.maximum(peak, 1e-9))), bits_out - bits_in + _WEIGHT_BITS)
        self.tensors[f"{name}.scale"] = np.rint(scale * 2.0**bits).astype(np.int16)
        self.tensors[f"{name}.offset"] = np.rint(offset * 2.0 ** (bits + bits_in)).astype(np.int64)
        self.tensors[f"{name}.shift"] = (bits + bits_in - bits_out).astype(np.int8)


def _array(parameter: Tensor) -> _Floats:
    return np.asarray(parameter.detach().numpy(), dtype=np.float64)


def _bias(layer: nn.Module) -> _Floats:
    return _array(cast(Tensor, layer.bias))


def _matrix(conv: nn.Module) -> _Floats:
    """A 1x1 convolution as (input, output)."""
    return _array(cast(Tensor, conv.weight))[:, :, 0, 0].T


# --- the network -----------------------------------------------------------------------------------------------------


def _hyper(writer: _Writer, model: LTCHM) -> list[dict[str, Any]]:
    """Layers of h_s. An activation joins the convolution before it."""
    modules = leaves(model.h_s.layers)
    bits = 0  # z and y are whole numbers
    described: list[dict[str, Any]] = []
    for i, module in enumerate(modules):
        if isinstance(module, nn.LeakyReLU):
            continue
        name = f"hyper.{len(described)}"
        leaky = i + 1 < len(modules) and isinstance(modules[i + 1], nn.LeakyReLU)
        # A LeakyReLU lets positive values pass whole, so its output is what needs the bits.
        after = writer.peaks.bits(modules[i + 1] if leaky else module, "out")
        if isinstance(module, HybridStage):
            described.append(_hybrid(writer, name, module, bits, after, model.config.window))
        elif isinstance(module, nn.ConvTranspose2d):
            weight = _array(module.weight).transpose(2, 3, 0, 1)
            writer.sums(name, weight.reshape(-1, weight.shape[-1]), _bias(module), bits, after)
            described.append({"op": "deconv", "leaky": int(leaky)})
        elif isinstance(module, nn.Conv2d):
            writer.conv(name, module, bits, after)
            described.append({"op": "conv", "leaky": int(leaky)})
        else:
            raise UsageError(f"no integer twin of {type(module).__name__}")
        bits = after
    writer.affine("hyper_affine", model.h_s.affine, bits, writer.peaks.bits(model.h_s.affine, "out"))
    return described


def leaves(module: nn.Module) -> list[nn.Module]:
    """The modules of nested sequences, in order."""
    if isinstance(module, nn.Sequential):
        return [leaf for child in module for leaf in leaves(child)]
    return [module]


def _hybrid(writer: _Writer, name: str, stage: HybridStage, bits: int, after: int, window: int) -> dict[str, Any]:
    peaks, half = writer.peaks, stage.channel.merge.in_channels
    spec: dict[str, Any] = {"op": "hybrid", "window": window, "head_dim": stage.attention.head_dim}
    spec["shifted"] = int(stage.attention.shifted)
    middle = peaks.bits(stage.norm2, "in")
    for key, norm, entering, following, target in (
        ("1", stage.norm1, bits, stage.split, f"{name}.split"),
        ("2", stage.norm2, middle, stage.ffn.expand, f"{name}.expand"),
    ):
        # The norm itself goes to at most sqrt(C); beyond 16 it saturates.
        spec[f"bits{key}"] = 11
        spec[f"epsilon{key}"] = max(1, round(2 * half * 2 * half * norm.eps * 4.0**entering))
        matrix = _matrix(following)
        bits_out: Any = peaks.bits(following, "out")
        if following is stage.split:
            bits_out = np.repeat([peaks.bits(following, "out", p) for p in (slice(half), slice(half, None))], half)
        bias = _bias(following) + _array(norm.bias) @ matrix
        writer.sums(target, _array(norm.weight)[:, None] * matrix, bias, 11, bits_out)
    gate_bits = _channel_gate(writer, f"{name}.channel", stage, spec)
    mix_bits = _attention(writer, f"{name}.attention", stage, spec)
    join, project = _matrix(stage.join), _matrix(stage.attention.project)
    joined = np.concatenate([join[:half], project @ join[half:]])
    bias = _bias(stage.join) + _bias(stage.attention.project) @ join[half:]
    writer.sums(f"{name}.join", joined, bias, np.repeat([gate_bits, mix_bits], half), middle)
    spec["skip1"], spec["skip2"] = bits - middle, middle - after
    hidden = _depthwise(writer, f"{name}.depthwise", stage)
    writer.sums(f"{name}.reduce", _matrix(stage.ffn.reduce), _bias(stage.ffn.reduce), hidden, after)
    return spec


def _channel_gate(writer: _Writer, name: str, stage: HybridStage, spec: dict[str, Any]) -> int:
    """GCA; its four branches become one block-diagonal matrix with all values first, then all gates."""
    gca, peaks = stage.channel, writer.peaks
    half = gca.merge.in_channels
    part = half // gca.PARTS
    bits = peaks.bits(stage.split, "out", slice(half))
    spec["mean_bits"] = min(MAX_BITS, max(0, min(peaks.bits(branch, "in") for branch in gca.branches) - bits))
    pooled = bits + spec["mean_bits"]
    value = min(peaks.bits(branch, "out", slice(part)) for branch in gca.branches)
    weight, bias = np.zeros((half, 2 * half)), np.zeros(2 * half)
    for i, branch in enumerate(gca.branches):
        rows = slice(i * part, (i + 1) * part)
        for j in (0, 1):
            columns = slice(j * half + i * part, j * half + (i + 1) * part)
            weight[rows, columns] = _matrix(branch)[:, j * part : (j + 1) * part]
            bias[columns] = _bias(branch)[j * part : (j + 1) * part]
    writer.sums(f"{name}.branches", weight, bias, pooled, np.repeat([value, ar.LOGIT_BITS], half))
    factor, out = peaks.bits(gca.merge, "out"), peaks.bits(gca, "out")
    writer.sums(f"{name}.merge", _matrix(gca.merge), _bias(gca.merge), value, factor)
    spec["channel_shift"] = max(0, bits + factor - out)
    return bits + factor - spec["channel_shift"]


def _attention(writer: _Writer, name: str, stage: HybridStage, spec: dict[str, Any]) -> int:
    module, peaks = stage.attention, writer.peaks
    half = module.qkv.in_channels
    entering = peaks.bits(stage.split, "out", slice(half, None))
    root = module.head_dim**-0.5
    peak_q, peak_k, peak_v = (peaks.bits(module.qkv, "out", slice(i * half, (i + 1) * half)) for i in range(3))
    peak_q = min(MAX_BITS, peak_q + math.floor(math.log2(1 / root)))
    factor = np.repeat([root, 1.0, 1.0], half)
    bits_out = np.repeat([peak_q, peak_k, peak_v], half)
    writer.sums(f"{name}.qkv", _matrix(module.qkv) * factor, _bias(module.qkv) * factor, entering, bits_out)
    spec["score_shift"] = peak_q + peak_k - ar.LOGIT_BITS
    mixed = min(peaks.bits(module.project, "in"), ar.UNIT_BITS + peak_v)
    spec["mix_shift"] = ar.UNIT_BITS + peak_v - mixed
    bias = np.rint(_array(module.position_bias) * 2.0 ** (peak_q + peak_k))
    writer.tensors[f"{name}.position"] = np.clip(bias, -(2**31), 2**31 - 1).astype(np.int32)
    return mixed


def _depthwise(writer: _Writer, name: str, stage: HybridStage) -> NDArray[np.int64]:
    """MSB-FFN's depth-wise convolutions; returns the fraction bits of the channels that they leave to `reduce`."""
    ffn, peaks = stage.ffn, writer.peaks
    entering = peaks.bits(ffn.expand, "out")
    left, carried = [], np.zeros(0, np.int64)
    for i, conv in enumerate(ffn.depthwise):
        conv = cast(nn.Conv2d, conv)
        bits_in = np.concatenate([np.full(ffn.group, entering), carried])
        out = peaks.bits(conv, "out")
        weight = _array(conv.weight)[:, 0].reshape(len(bits_in), -1).T * 2.0 ** (MAX_BITS - bits_in)
        writer.sums(f"{name}.{i}", weight, _bias(conv), MAX_BITS, out)
        last = i + 1 == len(ffn.depthwise)
        keep = len(bits_in) if last else len(bits_in) - len(bits_in) // 2
        left.append(np.full(keep, out))
        carried = np.full(len(bits_in) - keep, out)
    return np.concatenate(left)


def _parameters(writer: _Writer, model: LTCHM) -> None:
    peaks, n, m = writer.peaks, model.config.channels, model.config.latent
    kernel = _array(model.context.conv.weight).transpose(2, 3, 1, 0).reshape(-1, m, 2 * n)[: MaskedContext.KNOWN]
    features = peaks.bits_each(model.context.affine, "in")
    writer.sums("context", kernel.reshape(-1, 2 * n), _bias(model.context.conv), 0, features)
    context, hyper = peaks.bits_each(model.context.affine, "out"), peaks.bits(model.h_s.affine, "out")
    writer.affine("context_affine", model.context.affine, features, context)
    layers = model.parameter_net.layers
    bits = np.concatenate([np.full(2 * n, hyper), context])
    for i in (0, 1):
        after = peaks.bits_each(layers[2 * i + 1], "out")
        writer.sums(f"mlp.{i}", _matrix(layers[2 * i]), _bias(layers[2 * i]), bits, after)
        bits = after
    writer.sums("mlp.2", _matrix(layers[4]), _bias(layers[4]), bits, np.repeat(OUTPUT_BITS, 3 * m))


# --- the factorised prior --------------------------------------------------------------------------------------------


@torch.no_grad()
def prior_tables(prior: FactorisedPrior) -> NDArray[np.uint32]:
    """Cumulative tables (N, 2 * Z_MAX + 2) of z: 24 bits, every bucket at least 1, end buckets take the tails."""
    exact = deepcopy(prior).double().cpu()
    channels, buckets = len(exact.matrices[0]), 2 * tables.Z_MAX + 1
    inner = torch.arange(-tables.Z_MAX, tables.Z_MAX, dtype=torch.float64) + 0.5
    cumulative = torch.sigmoid(exact.logits_cumulative(inner.expand(channels, 1, -1)))[:, 0].numpy()
    cumulative = np.maximum.accumulate(np.clip(cumulative, 0.0, 1.0), axis=1)
    out = np.zeros((channels, buckets + 1), dtype=np.uint32)
    out[:, 1:-1] = np.rint(cumulative * (tables.PROB_TOTAL - buckets)).astype(np.uint32) + np.arange(1, buckets)
    out[:, -1] = tables.PROB_TOTAL
    return out


# --- what exactness costs --------------------------------------------------------------------------------------------


@torch.no_grad()
def rate_report(model: LTCHM, coder: ExactCoder, crops: Tensor, levels: Sequence[int]) -> dict[int, dict[str, float]]:
    """Bits per pixel of `crops` (B, 3, H, W), per level.

    `float`: the float64 network with the training likelihood of the rounded latents; `ideal`: what the integer
    probabilities promise; `real`: the streams. `cost` is real / float - 1.
    """
    exact = deepcopy(model).double().eval().cpu()
    pixels = crops.shape[0] * crops.shape[2] * crops.shape[3]
    report = {}
    for y, z, level in calibration_latents(model, crops, levels):
        quality = torch.full((len(y),), level / LEVELS_PER_ANCHOR, dtype=torch.float64)
        mixtures = exact.parameters_of(y.double(), z.double(), quality)
        likelihoods = mixture_likelihood(y, mixtures), model.prior(z)
        floats = sum(float(-torch.log2(p.double()).sum()) for p in likelihoods)
        ideal = float(rans.ideal_bits(*coder.symbols(y, z, level), coder.z_cdf).sum())
        real = 8 * sum(len(stream) for stream in coder.encode(y, z, level))
        report[level] = {
            "float": floats / pixels,
            "ideal": ideal / pixels,
            "real": real / pixels,
            "cost": real / floats - 1,
        }
    return report
