"""Stage 3: holes. Which pixels are valid, storing that exactly, and filling the holes so that they cost few bits.

A mask is boolean, True = valid. The network sees no masks: it codes smoothly filled pixels, and decoding puts the
holes back.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._inflate import inflate
from .errors import CorruptTileError
from .georef import Number

__all__ = ["decode_mask", "encode_mask", "fill_masked", "representable", "valid_pixels"]

Mask = NDArray[np.bool_]
Planes = NDArray[np.float32]

_SHARED = 1  # flag: one plane stands for all bands
_MID = np.float32(0.5)  # middle of the model's range
_SWEEPS = 4  # relaxations per pyramid level; more make no visible difference


def valid_pixels(pixels: NDArray[Any], nodata: Sequence[Number | None], mask: Mask | None = None) -> Mask:
    """Which pixels hold data.

    Parameters
    ----------
    pixels : (bands, h, w) array in the raster's own type
    nodata : one value or None per band. In floating-point bands with NaN, or without a value and a `mask`, NaN marks
        the holes.
    mask : (h, w) bool or None
        What an alpha or mask band says about all bands.

    Returns
    -------
    (bands, h, w) bool
    """
    valid = np.ones(pixels.shape, bool) if mask is None else np.repeat(mask[None], len(pixels), axis=0)
    for plane, band_valid, value in zip(pixels, valid, nodata, strict=True):
        if value is None or math.isnan(value):
            # A NaN that a mask calls valid is a value: as a hole it would come back as whatever fills the mask's holes.
            if plane.dtype.kind == "f" and (value is not None or mask is None):
                band_valid &= ~np.isnan(plane)
        elif representable(value, plane.dtype):
            band_valid &= plane != plane.dtype.type(value)
    return valid


def representable(value: Number, dtype: np.dtype[Any]) -> bool:
    """Whether a pixel of this type can equal `value`, as it stands (integers) or rounded to the type (floats)."""
    if dtype.kind == "f":
        return not math.isfinite(value) or abs(value) <= float(np.finfo(dtype).max)
    limits = np.iinfo(dtype)
    return math.isfinite(value) and value == int(value) and bool(limits.min <= value <= limits.max)


def encode_mask(valid: Mask) -> bytes:
    """Store a mask exactly.

    One flag byte (bit 0: all bands share one plane; other bits zero), then a zlib stream of the planes, each row
    XORed with the row above and packed into bits, most significant first.

    Parameters
    ----------
    valid : (bands, h, w) bool
    """
    shared = bool((valid == valid[:1]).all())
    planes = valid[:1] if shared else valid
    edges = planes.copy()
    edges[:, 1:] ^= planes[:, :-1]
    return bytes([_SHARED if shared else 0]) + zlib.compress(np.packbits(edges, axis=-1).tobytes(), 9)


def decode_mask(data: bytes, shape: tuple[int, int, int]) -> Mask:
    """Inverse of `encode_mask`: (bands, h, w) bool. Raises `CorruptTileError` for anything it did not write."""
    if not data or data[0] & ~_SHARED:
        raise CorruptTileError("mask has unknown flags" if data else "mask is empty")
    bands, height, width = shape
    stored = 1 if data[0] & _SHARED else bands
    size = stored * height * -(-width // 8)
    raw = inflate(data[1:], size)
    if len(raw) != size:
        raise CorruptTileError(f"mask has {len(raw)} bytes instead of {size}")
    packed = np.frombuffer(raw, np.uint8).reshape(stored, height, -1)
    edges = np.unpackbits(packed, axis=-1, count=width)
    planes = np.bitwise_xor.accumulate(edges, axis=1).astype(bool)
    return np.repeat(planes, bands, axis=0) if stored < bands else planes


def fill_masked(pixels: Planes, valid: Mask) -> Planes:
    """Fill holes smoothly.

    Push-pull over a pyramid: averages of the valid pixels at coarser and coarser levels, then back, each level's holes
    interpolated from the coarser one and relaxed towards their neighbours' mean. So the filling continues the pixels
    at the rim of a hole (no halo) and is almost constant deep inside.

    Parameters
    ----------
    pixels : (bands, h, w) float32
        Anything, NaN included, may stand in the holes.
    valid : (bands, h, w) bool

    Returns
    -------
    (bands, h, w) float32, equal to `pixels` where valid and within the valid pixels' range elsewhere; planes without
    any valid pixel become 0.5, the middle of the model's range. `pixels` itself where there are no holes.
    """
    if valid.all():
        return pixels
    known: Planes = np.where(valid, pixels, np.float32(0))
    empty: Mask = np.logical_not(valid.any(axis=(1, 2)))
    known[empty] = _MID
    filled = _pull(known, valid | empty[:, None, None])
    return np.where(valid, pixels, filled)


def _pull(known: Planes, weight: NDArray[Any]) -> Planes:
    """Fill where `weight` is zero: ask the next coarser level, then relax."""
    holes: Mask = np.equal(weight, 0)
    if not holes.any():
        return known
    coarse = _enlarge(_pull(*_push(known, weight.astype(np.float32))), known.shape)
    filled = np.where(holes, coarse, known)
    for _ in range(_SWEEPS):
        filled = np.where(holes, _neighbour_mean(filled), filled)
    return filled


def _push(known: Planes, weight: NDArray[np.float32]) -> tuple[Planes, NDArray[np.float32]]:
    """Halve the resolution: weighted mean of each 2 x 2 block, and its mean weight."""
    bands, height, width = known.shape
    margin = ((0, 0), (0, height % 2), (0, width % 2))
    halves = (bands, -(-height // 2), 2, -(-width // 2), 2)
    weights = np.pad(weight, margin).reshape(halves).sum(axis=(2, 4))
    sums = np.pad(known * weight, margin).reshape(halves).sum(axis=(2, 4))
    return np.divide(sums, weights, out=np.zeros_like(sums), where=weights > 0), weights / 4


def _enlarge(coarse: Planes, shape: tuple[int, ...]) -> Planes:
    """Double the resolution bilinearly: 3/4 of the nearest pixel and 1/4 of the next, in each direction."""
    for axis in (1, 2):
        before = np.concatenate([coarse.take([0], axis), coarse], axis).take(range(coarse.shape[axis]), axis)
        after = np.concatenate([coarse, coarse.take([-1], axis)], axis).take(range(1, coarse.shape[axis] + 1), axis)
        pair = np.stack([0.75 * coarse + 0.25 * before, 0.75 * coarse + 0.25 * after], axis + 1)
        doubled = list(coarse.shape)
        doubled[axis] *= 2
        coarse = pair.reshape(doubled).astype(np.float32)
    return coarse[:, : shape[1], : shape[2]]


def _neighbour_mean(planes: Planes) -> Planes:
    padded = np.pad(planes, ((0, 0), (1, 1), (1, 1)), mode="edge")
    vertical = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1]
    horizontal = padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
    return np.float32(0.25) * (vertical + horizontal)
