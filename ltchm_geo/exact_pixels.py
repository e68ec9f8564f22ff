"""Pixels kept exactly, or within a bound: how values of any type become integers that `predictive` codes.

Three ways, of which a tile takes the one that suits it:

- ORDERED: the value itself; of floats their bits, in an order that is that of the numbers.
- GRID: the number q of a step, value = (q * step + origin) / divisor. Bounded errors are such a grid with steps as wide
  as the bound allows, and so are floats that hold whole numbers, decimals or fractions.
- RANKED: the place in a sorted list of the values that occur, for classes and stretched data.

Everything is IEEE double arithmetic, one operation at a time, or integers: decoding gives the same pixels everywhere.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._inflate import inflate
from .errors import CorruptTileError
from .georef import Number
from .masks import representable
from .predictive import decode_planes, encode_planes
from .radiometry import representable_range
from .types import Shape2d

__all__ = ["Coded", "decode_pixels", "encode_bounded", "encode_exact", "same_bits"]

Pixels = NDArray[Any]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]
#: A body, and the pixels it does not give back well enough: they have to be stored beside it.
Coded = tuple[bytes, Mask]

_GRID = np.dtype([("origin", "<f8"), ("step", "<f8"), ("divisor", "<f8")])
_EXACT_LIMIT = float(1 << 52)  # doubles hold every integer up to here, and a half beside it
_DIVISORS = (1.0, 100.0, 10_000.0, 1_000_000.0, *(2.0**k for k in (4, 8, 12, 16)))
_FEW_OUTLIERS = 1 / 256  # of a tile's pixels: more, and the grid is not what these floats are made on
_RANKED_SPAN, _RANKED_SHARE = 2, 8  # ranks pay where half the values between the extremes are missing, ...
_LENGTH = 4


class _Way(IntEnum):
    ORDERED = 0
    GRID = 1
    RANKED = 2


def encode_exact(pixels: Pixels, known: Mask) -> Coded:
    """Code pixels exactly.

    Parameters
    ----------
    pixels : (bands, h, w) array of unsigned or signed integers or floats, up to 64 bits
        Floats are coded by their bits: NaN payloads and negative zero survive.
    known : (bands, h, w) bool
        Pixels to keep.
    """
    ordered, extent = _ordered(pixels), unrepeated(pixels, known)
    nothing = np.zeros(known.shape, bool)
    candidates = []
    if pixels.dtype.kind == "f" and (on_grid := _fractions(pixels, known, extent)) is not None:
        candidates.append(on_grid)
    if (ranked := _ranks(ordered, known, extent)) is not None:
        candidates.append((ranked, nothing))
    if not candidates or pixels.dtype.kind != "f":
        candidates.append((bytes([_Way.ORDERED]) + encode_planes(ordered, known, extent), nothing))
    return min(candidates, key=lambda coded: len(coded[0]) + 8 * int(coded[1].sum()))


def encode_bounded(pixels: Pixels, known: Mask, bounds: Sequence[float], nodata: Sequence[Number | None]) -> Coded:
    """Code pixels with errors up to a bound.

    Parameters
    ----------
    pixels, known : as in `encode_exact`
    bounds : per band, the largest error, in data units; 0 for none
    nodata : per band, the value no known pixel may become
    """
    dtype = pixels.dtype
    if dtype.kind != "f":
        bounds = [math.floor(bound) for bound in bounds]
    if not any(bounds):
        return encode_exact(pixels, known)
    grid = np.zeros(len(pixels), _GRID)
    for band, (plane, kept) in enumerate(zip(pixels, known, strict=True)):
        cell = _cell(plane[kept], float(bounds[band]), nodata[band])
        if cell is None:
            return encode_exact(pixels, known)
        grid[band] = cell
    indices = _indices(pixels, grid, known)
    found = _from_grid(indices, grid, dtype)
    lost = known & ~within(pixels, found, bounds)
    for plane, away, value in zip(found, lost, nodata, strict=True):
        if value is not None and representable(value, dtype) and not math.isnan(value):
            away |= plane == dtype.type(value)
    extent = unrepeated(pixels, known)
    repeat(lost, extent)
    lost &= known
    # NaN and infinities lie on no grid, wherever its steps are.
    if (lost & np.isfinite(pixels)).sum() > _FEW_OUTLIERS * max(known.sum(), 4096):
        return encode_exact(pixels, known)
    return bytes([_Way.GRID]) + grid.tobytes() + encode_planes(indices, known & ~lost, extent), lost


def within(pixels: Pixels, found: Pixels, bounds: Sequence[float]) -> Mask:
    """Where two (bands, h, w) arrays agree to a bound per band; equal values, NaN and infinities among them, do."""
    limits = np.array(bounds, np.float64)[:, None, None]
    if pixels.dtype.kind == "f":
        with np.errstate(invalid="ignore", over="ignore"):
            near = np.abs(pixels.astype(np.float64) - found) <= limits
        return near | same_bits(pixels, found)
    larger, smaller = np.maximum(pixels, found), np.minimum(pixels, found)
    unsigned = np.dtype(f"u{pixels.dtype.itemsize}")
    near = (larger.view(unsigned) - smaller.view(unsigned)) <= limits  # modulo 2**n: the true distance
    return near


def same_bits(pixels: Pixels, other: Pixels) -> Mask:
    """Where two arrays of one type hold the same bits: NaN may equal NaN there, and -0.0 differs from 0.0."""
    unsigned = f"u{pixels.dtype.itemsize}"
    same: Mask = np.ascontiguousarray(pixels).view(unsigned) == np.ascontiguousarray(other).view(unsigned)
    return same


def decode_pixels(body: bytes, known: Mask, dtype: np.dtype[Any]) -> Pixels:
    """Inverse of `encode_exact` and `encode_bounded`: (bands, h, w) pixels; those not known may be anything.

    Raises
    ------
    CorruptTileError
    """
    if not body or body[0] not in _Way.__members__.values():
        raise CorruptTileError("a predicted tile says of no known way how its pixels are stored")
    way, at = _Way(body[0]), 1
    if way == _Way.ORDERED:
        planes, extent = decode_planes(body[at:], known)
        return repeat(_unordered(planes, dtype), extent)
    if way == _Way.RANKED:
        tables, at = _read_tables(body, at, known)
        planes, extent = decode_planes(body[at:], known)
        return repeat(_unordered(_look_up(planes, tables, known, extent), dtype), extent)
    end = at + len(known) * _GRID.itemsize
    if len(body) < end:
        raise CorruptTileError("the grid of a predicted tile is cut short")
    grid = np.frombuffer(body[at:end], _GRID)
    numbers = grid.view("<f8")
    if not np.isfinite(numbers).all() or (grid["divisor"] == 0).any():
        raise CorruptTileError("the grid of a predicted tile is not made of numbers")
    planes, extent = decode_planes(body[end:], known)
    return repeat(_from_grid(planes, grid, dtype), extent)


def unrepeated(pixels: Pixels, known: Mask) -> Shape2d:
    """Rows and columns that say everything: those after them repeat the last. So tiles cut by an edge cost no more."""
    sides = []
    for axis in (1, 2):
        last = np.take(pixels, [-1], axis), np.take(known, [-1], axis)
        other = tuple(number for number in range(3) if number != axis)
        new = (~same_bits(pixels, np.broadcast_to(last[0], pixels.shape)) | (known != last[1])).any(axis=other)
        sides.append(int(np.flatnonzero(new)[-1]) + 2 if new.any() else 1)
    return Shape2d(*sides)


def repeat(planes: NDArray[Any], extent: Shape2d) -> NDArray[Any]:
    """Put in place, and return, the rows and columns that `unrepeated` leaves out."""
    planes[:, :, extent.x :] = planes[:, :, extent.x - 1 : extent.x]
    planes[:, extent.y :] = planes[:, extent.y - 1 : extent.y]
    return planes


# --- ordered ---------------------------------------------------------------------------------------------------------


def _ordered(pixels: Pixels) -> Integers:
    """Integers in the order of the pixels, one for each pattern of bits."""
    dtype = pixels.dtype
    if dtype.kind == "u" and dtype.itemsize == 8:
        return (pixels ^ np.uint64(1 << 63)).view(np.int64)
    if dtype.kind != "f":
        return pixels.astype(np.int64)
    bits = np.ascontiguousarray(pixels).view(f"i{dtype.itemsize}")
    return np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits).astype(np.int64)


def _unordered(values: Integers, dtype: np.dtype[Any]) -> Pixels:
    """Inverse of `_ordered`; of values that it cannot have made, some bits."""
    if dtype.kind == "u" and dtype.itemsize == 8:
        return values.view(np.uint64) ^ np.uint64(1 << 63)
    if dtype.kind != "f":
        return values.astype(dtype)  # keeps the lowest bits
    bits = values.astype(f"i{dtype.itemsize}")
    return np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits).view(dtype)


# --- grid ------------------------------------------------------------------------------------------------------------


def _cell(values: Pixels, bound: float, nodata: Number | None) -> tuple[float, float, float] | None:
    """Origin, step and divisor of a band whose errors may reach `bound`; None where doubles are too coarse for it."""
    dtype = values.dtype
    finite = values[np.isfinite(values)] if dtype.kind == "f" else values
    largest = max((abs(float(end)) for end in (finite.min(), finite.max())), default=0.0) if finite.size else 0.0
    if dtype.kind != "f":
        if largest + 2 * bound > _EXACT_LIMIT:
            return None
        # With nodata at the upper end of its cell, no value around it is moved there.
        forbidden = nodata is not None and representable(nodata, dtype) and bound >= 1
        return float(nodata or 0) + bound + 1 if forbidden else 0.0, 2 * bound + 1, 1.0
    rounding = float(np.spacing(dtype.type(largest))) if largest < float(np.finfo(dtype).max) else math.inf
    if not bound > 4 * rounding or largest / bound > _EXACT_LIMIT / 4:
        return None
    return 0.0, 2 * (bound - rounding), 1.0


def _indices(pixels: Pixels, grid: NDArray[Any], known: Mask) -> Integers:
    """The nearest steps; 0 where a pixel is not known or no number."""
    values = np.where(known, pixels, 0).astype(np.float64)
    origin, step, divisor = (grid[name][:, None, None] for name in ("origin", "step", "divisor"))
    with np.errstate(invalid="ignore", over="ignore"):
        exact = (values * divisor - origin) / step
        exact = np.where(np.isfinite(exact) & known, exact, 0)
    return np.rint(np.clip(exact, -_EXACT_LIMIT, _EXACT_LIMIT)).astype(np.int64)


def _from_grid(indices: Integers, grid: NDArray[Any], dtype: np.dtype[Any]) -> Pixels:
    origin, step, divisor = (grid[name][:, None, None] for name in ("origin", "step", "divisor"))
    with np.errstate(over="ignore", invalid="ignore"):
        values = indices.astype(np.float64) * step
        values += origin
        values /= divisor
        if dtype.kind == "f":
            return values.astype(dtype)
        return np.clip(np.nan_to_num(np.rint(values)), *representable_range(dtype)).astype(dtype)


def _fractions(pixels: Pixels, known: Mask, extent: Shape2d) -> Coded | None:
    """Floats on a grid of decimals or powers of two, if nearly all of them are."""
    for divisor in _DIVISORS:
        grid = np.array([(0.0, 1.0, divisor)] * len(pixels), _GRID)
        # Most floats are not: a few rows tell.
        if not _fits(pixels[:, ::16], known[:, ::16], grid)[0]:
            continue
        fits, indices, lost = _fits(pixels, known, grid)
        if fits:
            return bytes([_Way.GRID]) + grid.tobytes() + encode_planes(
                indices, known & ~repeat(lost, extent), extent
            ), lost
    return None


def _fits(pixels: Pixels, known: Mask, grid: NDArray[Any]) -> tuple[bool, Integers, Mask]:
    indices = _indices(pixels, grid, known)
    lost = known & ~same_bits(pixels, _from_grid(indices, grid, pixels.dtype))
    return bool(lost.sum() <= _FEW_OUTLIERS * known.sum()), indices, lost


# --- ranks -----------------------------------------------------------------------------------------------------------


def _ranks(ordered: Integers, known: Mask, extent: Shape2d) -> bytes | None:
    """Body with lists of the values that occur, if that has a chance to be smaller."""
    tables = [np.unique(plane[kept]) for plane, kept in zip(ordered, known, strict=True)]
    for table, kept in zip(tables, known, strict=True):
        if not len(table):
            continue
        span = int(table[-1]) - int(table[0])
        if span < _RANKED_SPAN * len(table) or len(table) * _RANKED_SHARE > kept.sum():
            return None
    ranks = np.zeros(ordered.shape, np.int64)
    parts = []
    for plane, kept, out, table in zip(ordered, known, ranks, tables, strict=True):
        out[kept] = np.searchsorted(table, plane[kept])
        steps = np.diff(table, prepend=np.int64(0)).astype("<i8")  # modulo 2**64
        packed = zlib.compress(np.ascontiguousarray(steps.view(np.uint8).reshape(-1, 8).T).tobytes(), 9)
        parts.append(len(packed).to_bytes(_LENGTH, "little") + packed)
    return bytes([_Way.RANKED]) + b"".join(parts) + encode_planes(ranks, known, extent)


def _read_tables(body: bytes, at: int, known: Mask) -> tuple[list[Integers], int]:
    tables = []
    for plane in known:
        length = int.from_bytes(body[at : at + _LENGTH], "little")
        at += _LENGTH
        if at + length > len(body):
            raise CorruptTileError("the list of a tile's values is cut short")
        raw = inflate(body[at : at + length], 8 * plane.size)
        if len(raw) % 8:
            raise CorruptTileError("the list of a tile's values is not made of whole numbers")
        steps = np.ascontiguousarray(np.frombuffer(raw, np.uint8).reshape(8, -1).T).view("<i8")[:, 0]
        tables.append(np.cumsum(steps, dtype=np.int64))
        at += length
    return tables, at


def _look_up(ranks: Integers, tables: Sequence[Integers], known: Mask, extent: Shape2d) -> Integers:
    values = np.zeros(ranks.shape, np.int64)
    known = known.copy()
    known[:, extent.y :] = False
    known[:, :, extent.x :] = False
    for plane, out, table, kept in zip(ranks, values, tables, known, strict=True):
        chosen = plane[kept]
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < len(table)):
            raise CorruptTileError("a pixel's rank lies outside the list of the tile's values")
        out[kept] = table[chosen]
    return values
