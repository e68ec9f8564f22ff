"""Layers of the exact network, twins of those in `nn.hyperprior` and `nn.attention`.

Maps are (B, H, W, C) tensors of integers in [-32767, 32767]: int16 in mode "int8", else float64. Every layer is built
from stored integers and checks on the way that none of them can break exactness.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltchm_geo.entropy import arithmetic as ar
from ltchm_geo.entropy import tables
from ltchm_geo.entropy.byte_products import MAX_ROWS, ByteLinear, byte_depthwise
from ltchm_geo.errors import InvalidWeightsError, UsageError

Linear = ar.Linear | ByteLinear

MAX_CHANNELS = 1024  # channel_norm's bound
_MAX_WINDOW, _MAX_BIASES = 64, 1 << 22  # all of the largest tile's maps; position biases of all pairs and heads, 32 MB
LEVELS_PER_ANCHOR, ANCHORS = 16, 8


class Store:
    """Stored integers, each taken once and checked for type and shape.

    Parameters
    ----------
    tensors : arrays by name, from anywhere; nothing about them is trusted.
    device, mode : where and how the layers compute.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]], device: torch.device, mode: ar.Mode):
        self._left = dict(tensors)
        long = any(a.ndim == 2 and a.shape[0] > MAX_ROWS for a in tensors.values())
        self.device, self.mode = device, ("float64" if mode == "int8" and long else mode)
        self.dtype = torch.int16 if self.mode == "int8" else torch.float64
        self.exp = torch.from_numpy(tables.load().exp.copy()).to(device)

    def take(self, name: str, dtype: type[np.generic], *shape: int | None) -> NDArray[Any]:
        """The array `name`; None in `shape` stands for any size from 1."""
        array = self._left.pop(name, None)
        if array is None:
            raise InvalidWeightsError(f"exact network: tensor {name} is missing")
        fits = array.ndim == len(shape) and all(
            n == want or want is None for n, want in zip(array.shape, shape, strict=False)
        )
        if array.dtype != np.dtype(dtype) or not fits or 0 in array.shape:
            raise InvalidWeightsError(f"exact network: {name} is {array.dtype} {array.shape}, not {dtype} {shape}")
        return array

    def sums(
        self, name: str, rows: int, columns: int | None = None
    ) -> tuple[NDArray[np.int16], NDArray[np.int64], NDArray[np.int8]]:
        """Weight (rows, columns) int16, bias int64 and shift int8 of one multiplication."""
        weight = self.take(f"{name}.weight", np.int16, rows, columns)
        columns = weight.shape[1]
        return weight, self.take(f"{name}.bias", np.int64, columns), self.take(f"{name}.shift", np.int8, columns)

    def linear(self, name: str, rows: int, columns: int | None = None) -> Linear:
        """The multiplication `name`."""
        return self.product(*self.sums(name, rows, columns))

    def product(self, weight: NDArray[np.int16], bias: NDArray[np.int64], shift: NDArray[np.int8]) -> Linear:
        """A multiplication, the way this device does it."""
        if self.mode == "int8":
            return ByteLinear(weight, bias, shift)
        return ar.Linear(weight, bias, shift, self.device, self.mode)

    def finish(self) -> None:
        """Raise if anything is left over."""
        if self._left:
            raise InvalidWeightsError(f"exact network: unknown tensors {sorted(self._left)}; update ltchm_geo")


def integer(spec: Mapping[str, Any], key: str, low: int, high: int) -> int:
    """The whole number `key` of a description, checked to be in [low, high]."""
    value = spec.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidWeightsError(f"exact network: {key} must be a whole number from {low} to {high}, not {value!r}")
    return value


class Convolution:
    """3x3 convolution with padding 1, then a LeakyReLU if `leaky`."""

    def __init__(self, store: Store, name: str, spec: Mapping[str, Any], channels: int):
        self._linear = store.linear(name, 9 * channels)
        self._leaky = integer(spec, "leaky", 0, 1)
        self.channels = self._linear.columns

    def __call__(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, channels)."""
        return self._linear(ar.unfold3x3(x), leaky=self._leaky)


class Deconvolution:
    """3x3 transposed convolution that doubles height and width, then a LeakyReLU if `leaky`."""

    def __init__(self, store: Store, name: str, spec: Mapping[str, Any], channels: int):
        weight, bias, shift = store.sums(name, 9 * channels)
        ar.check_sums(weight, bias, shift)
        kernel = weight.reshape(3, 3, channels, -1)
        self._phases = []
        for py, px in ((0, 0), (0, 1), (1, 0), (1, 1)):
            taps = [kernel[ky, kx] for ky, _ in ar.PHASES[py] for kx, _ in ar.PHASES[px]]
            self._phases.append(store.product(np.concatenate(taps), bias, shift))
        self._leaky = integer(spec, "leaky", 0, 1)
        self.channels = int(weight.shape[1])

    def __call__(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, 2H, 2W, channels)."""
        return ar.interleave(
            [linear(ar.unfold_phase(x, i // 2, i % 2), leaky=self._leaky) for i, linear in enumerate(self._phases)]
        )


class Hybrid:
    """One stage of HPHAM: channel attention beside window attention, then MSB-FFN, each with a residual."""

    def __init__(self, store: Store, name: str, spec: Mapping[str, Any], channels: int):
        if channels % 8 or channels > MAX_CHANNELS:
            raise InvalidWeightsError(f"exact network: a hybrid stage cannot have {channels} channels")
        self.channels = channels
        self._norms = [(integer(spec, f"epsilon{i}", 1, 1 << 50), integer(spec, f"bits{i}", 0, 14)) for i in (1, 2)]
        self._split = store.linear(f"{name}.split", channels, channels)
        self._gate = ChannelGate(store, f"{name}.channel", spec, channels // 2)
        self._attention = WindowAttention(store, f"{name}.attention", spec, channels // 2)
        self._join, self._skip1 = _residual(store, f"{name}.join", spec, "skip1", channels, channels)
        self._expand = store.linear(f"{name}.expand", channels)
        self._branches = Branches(store, f"{name}.depthwise", self._expand.columns)
        self._reduce, self._skip2 = _residual(store, f"{name}.reduce", spec, "skip2", self._branches.columns, channels)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> same shape."""
        channel, window = self._split(ar.channel_norm(x, *self._norms[0])).chunk(2, dim=3)
        joined = torch.cat([self._gate(channel), self._attention(window)], dim=3)
        mid = self._join(joined, residual=(x, self._skip1))
        hidden = self._expand(ar.channel_norm(mid, *self._norms[1]), leaky=1)
        return self._reduce(self._branches(hidden), residual=(mid, self._skip2))


def _residual(
    store: Store, name: str, spec: Mapping[str, Any], key: str, rows: int, columns: int
) -> tuple[Linear, float]:
    """A multiplication and the power of two that brings the residual to its scale."""
    weight, bias, shift = store.sums(name, rows, columns)
    residual = integer(spec, key, -15, 30)
    ar.check_residual(shift, residual)
    return store.product(weight, bias, shift), 2.0**-residual


class ChannelGate:
    """GCA: each channel times a gated function of all channels' means."""

    def __init__(self, store: Store, name: str, spec: Mapping[str, Any], channels: int):
        self._bits = integer(spec, "mean_bits", 0, 14)
        self._shift = integer(spec, "channel_shift", 0, ar.SHIFT_MAX)
        self._branches = store.linear(f"{name}.branches", channels, 2 * channels)
        self._merge = store.linear(f"{name}.merge", channels, channels)
        self._exp = store.exp

    def __call__(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> same shape."""
        value, gate = self._branches(ar.mean(x, self._bits)).chunk(2, dim=1)
        gated = ar.multiply(value, ar.sigmoid(gate, self._exp), ar.UNIT_BITS)
        factor = self._merge(gated)
        return ar.multiply(x, factor[:, None, None], self._shift)


class WindowAttention:
    """Multi-head self-attention in windows, shifted by half a window if `shifted` and the map is larger than one."""

    def __init__(self, store: Store, name: str, spec: Mapping[str, Any], channels: int):
        self._window = integer(spec, "window", 1, _MAX_WINDOW)
        self._head = integer(spec, "head_dim", 1, channels)
        if channels % self._head:
            raise InvalidWeightsError("exact network: head_dim does not divide the channels")
        if channels // self._head * self._window**4 > _MAX_BIASES:
            raise InvalidWeightsError("exact network: an attention window this large would take too much memory")
        self._shifted = integer(spec, "shifted", 0, 1)
        self._score_scale = 2.0 ** -integer(spec, "score_shift", -8, ar.SHIFT_MAX)
        self._mix_scale = 2.0 ** -integer(spec, "mix_shift", 0, ar.SHIFT_MAX)
        self._qkv = store.linear(f"{name}.qkv", channels, 3 * channels)
        table = store.take(f"{name}.position", np.int32, channels // self._head, (2 * self._window - 1) ** 2)
        # A score is below 2**30 * head_dim + 2**31 < 2**41, times 2**8 at most; a mixed value is below
        # (2**15 + window**2) * 2**15 < 2**31.
        bias = table.astype(np.float64)[:, relative_positions(self._window)]
        self._position = torch.from_numpy(bias).to(store.device)
        self._exp, self._mode = store.exp, store.mode

    def __call__(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> same shape; H and W are multiples of the window."""
        b, h, w, c = x.shape
        size = self._window
        if h % size or w % size:
            raise UsageError(f"a {h} x {w} map does not divide into attention windows of {size}: use larger tiles")
        shift = size // 2 if self._shifted and min(h, w) > size else 0
        qkv = self._qkv(x).double()
        if shift:
            qkv = torch.roll(qkv, (-shift, -shift), dims=(1, 2))
        parts = qkv.reshape(b, h // size, size, w // size, size, 3, c // self._head, self._head)
        q, k, v = parts.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(3, -1, c // self._head, size * size, self._head)
        scores = ar.matmul(q, k.transpose(-1, -2), self._mode).add_(self._position).mul_(self._score_scale)
        allowed = shift_mask(h, w, size).to(x.device).repeat(b, 1, 1, 1) if shift else None
        mixed = ar.matmul(ar.softmax(ar.requantise(scores), self._exp, allowed), v, self._mode)
        mixed = ar.requantise(mixed.mul_(self._mix_scale))
        mixed = mixed.reshape(b, h // size, w // size, c // self._head, size, size, self._head)
        mixed = mixed.permute(0, 1, 4, 2, 5, 3, 6).reshape(b, h, w, c).to(x.dtype)
        return torch.roll(mixed, (shift, shift), dims=(1, 2)) if shift else mixed


@lru_cache(maxsize=8)
def relative_positions(window: int) -> NDArray[np.int64]:
    """Index (window**2, window**2) of (query, key) into (2 window - 1)**2 relative offsets."""
    y, x = np.divmod(np.arange(window * window), window)
    dy, dx = (axis[:, None] - axis[None] + window - 1 for axis in (y, x))
    return np.asarray(dy * (2 * window - 1) + dx)


@lru_cache(maxsize=8)
def shift_mask(height: int, width: int, window: int) -> Tensor:
    """True where query and key of a shifted window are neighbours in the map: (windows, 1, window**2, window**2)."""

    def band(size: int) -> NDArray[np.int64]:
        at = np.arange(size)
        return (at >= size - window).astype(np.int64) + (at >= size - window // 2)

    region = band(height)[:, None] * 3 + band(width)[None]
    region = region.reshape(height // window, window, width // window, window).transpose(0, 2, 1, 3)
    flat = region.reshape(-1, 1, window * window)
    return torch.from_numpy(flat[..., :, None] == flat[..., None, :])


class Branches:
    """The depth-wise part of MSB-FFN: kernels 1, 3, 5, 7; half of each result joins the next group, half the output."""

    KERNELS = (1, 3, 5, 7)

    def __init__(self, store: Store, name: str, columns: int):
        if columns % len(self.KERNELS):
            raise InvalidWeightsError(f"exact network: {columns} channels do not split into four groups")
        self._group = columns // len(self.KERNELS)
        self._layers: list[tuple[Tensor, Tensor, int]] = []
        self.columns = carried = 0
        for i, kernel in enumerate(self.KERNELS):
            width = self._group + carried
            weight, bias, shift = store.sums(f"{name}.{i}", kernel * kernel, width)
            ar.check_sums(weight, bias, shift)
            carried = width // 2 if kernel != self.KERNELS[-1] else 0
            self._layers.append((*ar.scaled(weight, bias, shift, store.device)[:2], width - carried))
            self.columns += width - carried

    def __call__(self, x: Tensor) -> Tensor:
        """(B, H, W, 4 groups) -> (B, H, W, columns)."""
        kept, carried = [], None
        for (weight, bias, keep), group in zip(self._layers, x.split(self._group, dim=3), strict=True):
            value = _depthwise(group if carried is None else torch.cat([group, carried], dim=3), weight, bias, keep)
            kept.append(value[..., :keep])
            carried = value[..., keep:]
        return torch.cat(kept, dim=3)


def _depthwise(x: Tensor, weight: Tensor, bias: Tensor, leaky: int) -> Tensor:
    """Depth-wise convolution, its first `leaky` channels through a LeakyReLU, rounded off."""
    if x.dtype == torch.int16:
        return byte_depthwise(x, weight, bias, leaky)
    value = ar.depthwise(x, weight, bias)
    ar.leaky_relu(value[..., :leaky])
    return ar.requantise(value)


class Affine:
    """Channel scale and shift at a quality level, linear between the stored anchors."""

    def __init__(self, store: Store, name: str, channels: int):
        self._scale = store.take(f"{name}.scale", np.int16, ANCHORS, channels)
        self._offset = store.take(f"{name}.offset", np.int64, ANCHORS, channels)
        self._shift = store.take(f"{name}.shift", np.int8, channels)
        # An anchor's sum is |scale| * 2**15 + |offset| in 1/16 accumulator units: an interpolated one weighs two
        # neighbours with 16 - j and j, so it is bounded by 16 times the larger of them.
        for scale, offset in zip(self._scale, self._offset, strict=True):
            ar.check_sums(np.repeat(scale[None], 16, axis=0), 16 * offset.clip(-(1 << 50), 1 << 50), self._shift)
        if int(self._shift.max()) > ar.SHIFT_MAX - 4:
            raise InvalidWeightsError("exact network: an affine shift is out of range")
        self._device = store.device

    def at(self, level: int) -> tuple[Tensor, Tensor]:
        """Scales and offsets (C,) for `arithmetic.affine`."""
        if not 0 <= level <= (ANCHORS - 1) * LEVELS_PER_ANCHOR:
            raise UsageError(f"quality level must be 0 to {(ANCHORS - 1) * LEVELS_PER_ANCHOR}, not {level}")
        lower = min(level // LEVELS_PER_ANCHOR, ANCHORS - 2)
        step = level - lower * LEVELS_PER_ANCHOR
        scale, offset = (
            a[lower].astype(np.int64) * (LEVELS_PER_ANCHOR - step) + a[lower + 1].astype(np.int64) * step
            for a in (self._scale, self._offset)
        )
        return ar.scaled(scale, offset, self._shift + np.int8(4), self._device)[:2]
