"""Integer arithmetic on float64 tensors: the exact building blocks of the parameter network.

Every number here is an integer, or an integer divided by a power of two, held in float64 and small enough that each
operation on it is exact. So results depend neither on the order of summation nor on device, threads, batch or library
version; docs/exact-network.md is the specification. int64 takes over where a division must be floored.

Activations are integers of magnitude at most `LIMIT`; where products are made of 8-bit ones (see `byte_products`) they
come as int16, and functions here give back what they are given. A *scaled accumulator* is a sum of products times
2**-shift; it is a multiple of 2**-shift below 2**(50 - shift), hence exact, and `requantise` makes an activation of it.
"""

from __future__ import annotations

import math
from typing import Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ltchm_geo.errors import InvalidWeightsError, UsageError

Mode = Literal["float64", "split32", "int8"]

LIMIT = 32767
#: Bound on every accumulator, biases included. Three bits below float64's 53 leave room for halves and residuals.
PEAK = 2.0**50
SHIFT_MIN, SHIFT_MAX = -15, 40
LEAKY_SLOPE = 2.0**-7
#: Fraction bits of what enters softmax and sigmoid: the step of the stored exponential table, 1/256.
LOGIT_BITS = 8
#: Fraction bits of softmax weights and sigmoids.
UNIT_BITS = 15
# Products of 8-bit halves are at most 2**14: 512 of them stay below 2**24, where float32 holds every integer.
_BLOCK = 512


def pick_mode(device: torch.device) -> Mode:
    """The fastest mode: "int8" on processors with VNNI, "split32" on graphics cards whose float64 units are few."""
    if device.type != "cuda":
        from ltchm_geo.entropy.byte_products import bytes_are_exact

        return "int8" if device.type == "cpu" and bytes_are_exact() else "float64"
    capability = torch.cuda.get_device_capability(device)
    return "float64" if capability in ((6, 0), (7, 0), (8, 0), (9, 0), (10, 0)) else "split32"


def check_mode(mode: str, device: torch.device) -> Mode:
    """`mode` as one of `Mode`; raises `UsageError` unless it is one that `device` has."""
    if mode not in get_args(Mode) or (mode == "int8" and device.type != "cpu"):
        raise UsageError(f"no arithmetic mode {mode!r} on {device.type}; use float64 or split32 (int8 on CPUs alone)")
    return cast(Mode, mode)


# --- products --------------------------------------------------------------------------------------------------------


def matmul(a: Tensor, b: Tensor, mode: Mode) -> Tensor:
    """Exact a @ b of integers of magnitude at most 2**15, float64 in and out.

    A sum of K products is below K * 2**30: below 2**53 for any K that memory holds here (K < 2**20).
    """
    return split_matmul(split(a), split(b)) if mode == "split32" else a @ b


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    """Halves (high, low) of integers in [-32768, 32768], float32: x = 256 * high + low, both in [-128, 128].

    They have at most eight significant bits, so TF32 and bfloat16 multipliers take them without rounding.
    """
    high = torch.floor((x + 128) * 2.0**-8)
    return high.float(), (x - 256 * high).float()


def split_matmul(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> Tensor:
    """Exact product of two split matrices in float32 blocks whose sums stay below 2**24, recombined in float64."""
    rows, columns = a[0].shape[-2], b[0].shape[-1]
    left, right = torch.cat(a, dim=-2), torch.cat(b, dim=-1)
    total: Tensor | None = None
    for k in range(0, left.shape[-1], _BLOCK):
        part = (left[..., k : k + _BLOCK] @ right[..., k : k + _BLOCK, :]).double()
        total = part if total is None else total.add_(part)
    if total is None:
        raise UsageError("a product needs at least one column")
    high, low = total[..., :rows, :], total[..., rows:, :]
    mixed = high[..., columns:] + low[..., :columns]
    return high[..., :columns] * 2.0**16 + mixed * 2.0**8 + low[..., columns:]


class Linear:
    """x @ weight + bias, exact, rounded off to activations.

    Parameters
    ----------
    weight : (K, C) int16
        Column c belongs to output channel c.
    bias : (C,) int64
        In units of the accumulator.
    shift : (C,) int8
        In [-15, 40]; the accumulator of channel c is multiplied by 2**-shift[c].
    device, mode
        Where, and how, to multiply; the result does not depend on them.

    Raises
    ------
    InvalidWeightsError
        A sum could leave the range in which it is exact.
    """

    def __init__(
        self,
        weight: NDArray[np.int16],
        bias: NDArray[np.int64],
        shift: NDArray[np.int8],
        device: torch.device,
        mode: Mode,
    ):
        check_sums(weight, bias, shift)
        self.mode = mode
        self.weight, self.bias, self.scale = scaled(weight, bias, shift, device)
        if mode == "split32":
            self._halves = split(torch.from_numpy(weight.astype(np.float64)).to(device))

    @property
    def columns(self) -> int:
        """Output channels C."""
        return self.weight.shape[1]

    def __call__(self, x: Tensor, *, leaky: int = 0, residual: tuple[Tensor, float] | None = None) -> Tensor:
        """(..., K) -> (..., C).

        Before rounding, `residual`, activations of the result's shape and their power of two, is added, and negative
        values pass through a LeakyReLU if `leaky`.
        """
        rows = x.reshape(-1, x.shape[-1])
        if self.mode == "float64":
            # Scaling the weights beforehand by powers of two changes no digit of any product or sum.
            out = torch.addmm(self.bias, rows, self.weight)
        else:
            out = split_matmul(split(rows), self._halves).mul_(self.scale).add_(self.bias)
        out = out.reshape(*x.shape[:-1], -1)
        if residual is not None:
            out.add_(residual[0], alpha=residual[1])
        return requantise(leaky_relu(out) if leaky else out)


def check_sums(weight: NDArray[np.int16], bias: NDArray[np.int64], shift: NDArray[np.int8]) -> None:
    """Raise unless |bias| + 2**15 * sum |weight| of each column stays below `PEAK` and shifts are in range.

    With that, an accumulator times 2**-shift is a multiple of 2**-shift below 2**(50 - shift); a LeakyReLU makes it a
    multiple of 2**-(shift + 7) below 2**(43 - shift); either plus 1/2 needs at most 52 bits as long as shift <= 40.
    """
    if shift.size and not (int(shift.min()) >= SHIFT_MIN and int(shift.max()) <= SHIFT_MAX):
        raise InvalidWeightsError(f"exact network: shifts must be in [{SHIFT_MIN}, {SHIFT_MAX}]")
    # float64 rounds these sums upwards by less than one part in 2**40, which the spare bits above PEAK absorb.
    sums = np.abs(weight.astype(np.float64)).sum(axis=0) * 2.0**15 + np.abs(bias.astype(np.float64))
    if not (sums * 2.0 ** np.maximum(0, -shift.astype(np.float64)) < PEAK).all():
        raise InvalidWeightsError("exact network: weights too large for exact sums")


def check_residual(shift: NDArray[np.int8], residual: int) -> None:
    """Raise unless an accumulator times 2**-shift plus an activation times 2**-residual fits 53 bits.

    In units of 2**-max(shift, residual) the sum is below 2**50 + 2**(15 + shift - residual) if shift is the larger,
    else below 2**(50 + residual - shift) + 2**15.
    """
    gap = shift.astype(np.int64) - residual
    if not (-15 <= residual <= 30) or (gap.size and not (int(gap.min()) >= -2 and int(gap.max()) <= 36)):
        raise InvalidWeightsError("exact network: a residual's scale is out of range")


def scaled(
    weight: NDArray[np.int16], bias: NDArray[np.int64], shift: NDArray[np.int8], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Weight and bias times 2**-shift, and 2**-shift itself, as float64 tensors."""
    factor = 2.0 ** -shift.astype(np.float64)
    arrays = (weight * factor, bias * factor, factor)
    return tuple(torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in arrays)  # type: ignore[return-value]


# --- activations -----------------------------------------------------------------------------------------------------


def requantise(value: Tensor) -> Tensor:
    """clamp(floor(value + 1/2), -32767, 32767), in place."""
    return value.add_(0.5).floor_().clamp_(-LIMIT, LIMIT)


def leaky_relu(value: Tensor) -> Tensor:
    """Negative values times 2**-7, in place; not rounded: a `requantise` follows."""
    return F.leaky_relu_(value, LEAKY_SLOPE)


def affine(x: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """requantise(x * scale + offset) with scales and offsets already times their power of two."""
    return requantise(torch.addcmul(offset, x.double(), scale)).to(x.dtype)


def multiply(a: Tensor, b: Tensor, shift: int) -> Tensor:
    """requantise(a * b * 2**-shift); products of two activations are below 2**31."""
    return requantise((a.double() * b).mul_(2.0**-shift)).to(a.dtype)


# --- neighbourhoods --------------------------------------------------------------------------------------------------


def unfold3x3(x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, H, W, 9 C): neighbours in raster order, zero outside; channels ascend within each."""
    h, w = x.shape[1:3]
    padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    return torch.cat([padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)], dim=3)


#: Taps (k, input offset) that reach an even and an odd output pixel along one axis of a stride-2 transposed 3x3
#: convolution: out[o] sums w[k] * x[(o + 1 - k) / 2] where that is whole.
PHASES = (((1, 0),), ((0, 1), (2, 0)))


def unfold_phase(x: Tensor, py: int, px: int) -> Tensor:
    """Input neighbours (B, H, W, taps * C) of the output pixels of parity (py, px); taps in the order of `PHASES`."""
    h, w = x.shape[1:3]
    padded = F.pad(x, (0, 0, 0, 1, 0, 1))
    return torch.cat([padded[:, i : i + h, j : j + w] for _, i in PHASES[py] for _, j in PHASES[px]], dim=3)


def interleave(phases: list[Tensor]) -> Tensor:
    """Four maps (B, H, W, C), parities (0,0), (0,1), (1,0), (1,1), to one (B, 2H, 2W, C)."""
    b, h, w, c = phases[0].shape
    out = torch.stack(phases, dim=3).reshape(b, h, w, 2, 2, c).permute(0, 1, 3, 2, 4, 5)
    return out.reshape(b, 2 * h, 2 * w, c)


def depthwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Depth-wise k x k convolution of (B, H, W, C): scaled accumulator from a scaled weight (k * k, C)."""
    h, w = x.shape[1:3]
    size = math.isqrt(weight.shape[0])
    margin = size // 2
    padded = F.pad(x, (0, 0, margin, margin, margin, margin))
    out = bias.expand(x.shape).clone()
    for tap, row in enumerate(weight):
        i, j = divmod(tap, size)
        out.addcmul_(padded[:, i : i + h, j : j + w], row)
    return out


def causal_taps(w: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cells (positions, 12) of the 5x5 neighbourhood known before each position, in raster order.

    Cells count through a canvas of w + 4 columns: two rows above and two columns on either side are zero.
    """
    row, column = np.divmod(positions, w)
    dy, dx = np.divmod(np.arange(12), 5)
    return (row[:, None] + dy) * (w + 4) + column[:, None] + dx


# --- divisions -------------------------------------------------------------------------------------------------------


def divide(numerator: Tensor, denominator: Tensor | int) -> Tensor:
    """floor(numerator / denominator + 1/2) of int64, denominator positive; |numerator| and denominator < 2**61."""
    return torch.div(2 * numerator + denominator, 2 * denominator, rounding_mode="floor")


def isqrt(value: Tensor) -> Tensor:
    """floor(sqrt(value)) of int64 in [0, 2**53): the float64 root is at most one off, which is put right."""
    root = value.double().sqrt().floor().long()
    root -= (root * root > value).long()
    return root + ((root + 1) * (root + 1) <= value).long()


def channel_norm(x: Tensor, epsilon: int, bits: int) -> Tensor:
    """Normalise the last axis (C <= 1024) to mean 0 and variance 1, times 2**bits.

    With d = C x - sum(x), the standard deviation times C is sqrt(C sum(x**2) - sum(x)**2): the sums are below 2**40 and
    2**25, so the radicand is below 2**50, and `epsilon` (1 ... 2**50, the usual one in the same units) keeps it
    positive. |d| < 2**26, shifted by at most 14 bits: below 2**40.
    """
    channels, wide = x.shape[-1], x.double()
    total = wide.sum(dim=-1, keepdim=True)
    radicand = channels * (wide * wide).sum(dim=-1, keepdim=True) - total * total + epsilon
    deviation = (channels * wide - total).mul_(2.0**bits)
    return divide(deviation.long(), isqrt(radicand.long())).clamp_(-LIMIT, LIMIT).to(x.dtype)


def mean(x: Tensor, bits: int) -> Tensor:
    """Mean of (B, H, W, C) over the map, times 2**bits (0 ... 14): (B, C). The sum is below 2**15 * H * W."""
    total = x.double().sum(dim=(1, 2)).mul_(2.0**bits)
    return divide(total.long(), x.shape[1] * x.shape[2]).clamp_(-LIMIT, LIMIT).to(x.dtype)


def softmax(logits: Tensor, exp: Tensor, allowed: Tensor | None) -> Tensor:
    """Softmax over the last axis (at most 2**20 long), times 2**15.

    `logits` are activations with 8 fraction bits, `exp` is `tables.Tables.exp`. Places where `allowed` is False weigh
    exactly nothing. Exponentials are at most 2**24, their sum is below 2**44, a numerator at most 2**39.
    """
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -LIMIT - 1)
    below = (logits.amax(dim=-1, keepdim=True) - logits).clamp_(max=exp.numel() - 1)
    weights = exp[below.long()]
    if allowed is not None:
        weights = weights * allowed
    return divide(weights << UNIT_BITS, weights.sum(dim=-1, keepdim=True)).double()


def sigmoid(logits: Tensor, exp: Tensor) -> Tensor:
    """Sigmoid times 2**15 of activations with 8 fraction bits; sigmoid(-x) = 2**15 - sigmoid(x)."""
    small = exp[logits.long().abs().clamp_(max=exp.numel() - 1)]
    upper = divide(exp[0] << UNIT_BITS, exp[0] + small).double()
    return torch.where(logits < 0, 2.0**UNIT_BITS - upper, upper)
