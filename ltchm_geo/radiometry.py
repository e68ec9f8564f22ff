"""Stage 3: pixel values to the model's range and back.

The network works on float32 in [0, 1]. Each band has one linear mapping between the raster's own values and that
range, chosen by a survey of the whole scene. Values a mapping does not cover (and NaN, and infinities) are outliers:
kept exactly beside the coded pixels, so nothing is ever clipped silently.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ._inflate import inflate
from .components import MAX_COMPONENTS
from .errors import CorruptContainerError, CorruptTileError
from .georef import Number, alpha_band
from .masks import representable

__all__ = [
    "BandMapping",
    "band_groups",
    "decode_outliers",
    "encode_outliers",
    "find_outliers",
    "from_model",
    "mixed_groups",
    "outlier_mask",
    "representable_range",
    "to_model",
    "to_pixels",
]

Mask = NDArray[np.bool_]

_COUNT_BYTES = _POSITION_BYTES = 4


@dataclass(frozen=True)
class BandMapping:
    """Linear map of one band: model value = (pixel - offset) * scale.

    Parameters
    ----------
    offset, scale : finite; scale is positive
    low, high : the pixel values covered, inclusive; others are outliers
    """

    offset: float
    scale: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, astuple(self))) or self.scale <= 0 or self.low > self.high:
            raise ValueError(f"{self} maps nothing: needs finite values, scale > 0 and low <= high")

    @classmethod
    def between(cls, low: float, high: float) -> BandMapping:
        """Map [low, high] to [0, 1]; a single value, or a width too small to invert, maps to 0."""
        width = high - low
        usable = math.isfinite(width) and width > 0 and math.isfinite(1 / width)
        return cls(low, 1 / width if usable else 1.0, low, high)

    def to_dict(self) -> dict[str, float]:
        """As JSON-able data."""
        return {"offset": self.offset, "scale": self.scale, "low": self.low, "high": self.high}

    @classmethod
    def from_dict(cls, data: object) -> BandMapping:
        """Check and take over what `to_dict` made. Raises `CorruptContainerError` for anything else."""
        if not isinstance(data, dict) or set(data) != {"offset", "scale", "low", "high"}:
            raise CorruptContainerError("a band mapping needs exactly offset, scale, low and high")
        if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in data.values()):
            raise CorruptContainerError("a band mapping holds something other than numbers")
        try:
            return cls(**{key: float(value) for key, value in data.items()})
        except (ValueError, OverflowError) as error:
            raise CorruptContainerError(f"band mapping is damaged: {error}") from error


UINT8_MAPPING = BandMapping(offset=0.0, scale=1 / 255, low=0.0, high=255.0)
"""Every 8-bit band's mapping: that of the imagery the network was trained on."""


def to_model(pixels: NDArray[Any], mappings: Sequence[BandMapping]) -> NDArray[np.float32]:
    """Map pixels to the model's range.

    Parameters
    ----------
    pixels : (bands, h, w) array in the raster's own type
    mappings : one per band

    Returns
    -------
    (bands, h, w) float32, finite, within [0, 1]: outliers become the nearest covered value (NaN the lowest), for they
    are either masked and filled afterwards or replaced by `decode_outliers`.
    """
    values = np.empty(pixels.shape, np.float32)
    for plane, out, mapping in zip(pixels, values, mappings, strict=True):
        # float64 throughout: 16-bit steps and large offsets would drown in float32 rounding.
        clipped = np.clip(plane.astype(np.float64), mapping.low, mapping.high)
        out[...] = (np.where(np.isnan(clipped), mapping.low, clipped) - mapping.offset) * mapping.scale
    return values


def from_model(
    values: NDArray[np.float32],
    mappings: Sequence[BandMapping],
    dtype: DTypeLike,
    forbidden: Sequence[Number | None],
) -> NDArray[Any]:
    """Map the model's values back to pixels.

    Parameters
    ----------
    values : (bands, h, w) float32
    mappings : one per band
    dtype : the raster's own type
    forbidden : one per band
        Nodata, which no valid pixel may become: a pixel landing there moves to a representable neighbour within the
        band's covered range (if that holds nodata alone, within the type's).

    Returns
    -------
    (bands, h, w) array of `dtype`: integers are rounded (half to even), all are clipped to the covered range.
    """
    dtype = np.dtype(dtype)
    pixels = np.empty(values.shape, dtype)
    for value, out, mapping, nodata in zip(values, pixels, mappings, forbidden, strict=True):
        low, high = _pixel_range(mapping, dtype)
        # NaN cannot come out of a sound network; should it, a covered value is better than undefined behaviour.
        with np.errstate(over="ignore"):  # infinity is clipped like any other value
            exact = np.nan_to_num(value.astype(np.float64), nan=0.0) / mapping.scale + mapping.offset
        out[...] = to_pixels(exact, dtype, nodata, (low, high))
    return pixels


def to_pixels(
    exact: NDArray[np.float64], dtype: np.dtype[Any], nodata: Number | None, covered: tuple[float, float]
) -> NDArray[Any]:
    """Values as pixels of one band: integers rounded half to even, clipped to `covered`, moved off `nodata`."""
    pixels: NDArray[Any] = np.clip(np.rint(exact) if dtype.kind != "f" else exact, *covered).astype(dtype)
    if nodata is not None and not math.isnan(nodata) and representable(nodata, dtype):
        _avoid(pixels, exact, dtype.type(nodata), covered)
    return pixels


def representable_range(dtype: np.dtype[Any]) -> tuple[float, float]:
    """The least and greatest double that a pixel can take on; beyond, casting gives anything."""
    if dtype.kind == "f":
        return -math.inf, math.inf
    limits = np.iinfo(dtype)
    highest = float(limits.max)  # of 64 bits: one too many
    return float(limits.min), highest if int(highest) == limits.max else math.nextafter(highest, 0)


def find_outliers(pixels: NDArray[Any], valid: Mask, mappings: Sequence[BandMapping]) -> Mask:
    """Valid pixels their band's mapping does not cover: (bands, h, w) bool, False in holes."""
    outliers = np.empty(pixels.shape, bool)
    for plane, out, mapping in zip(pixels, outliers, mappings, strict=True):
        exact = plane.astype(np.float64)
        np.logical_not((exact >= mapping.low) & (exact <= mapping.high), out=out)  # so that NaN is one
    return outliers & valid


def encode_outliers(pixels: NDArray[Any], where: Mask) -> bytes:
    """Store chosen pixels exactly.

    One zlib stream of: their number (uint32), the first's flat position and each further one's distance from its
    predecessor (uint32), their values; all little-endian.

    Parameters
    ----------
    pixels, where : (bands, h, w) array in the raster's own type, and bool
    """
    positions = np.flatnonzero(where)
    steps = np.diff(positions, prepend=0).astype("<u4")
    values = pixels[where].astype(pixels.dtype.newbyteorder("<"), copy=False)
    return zlib.compress(np.uint32(len(positions)).astype("<u4").tobytes() + steps.tobytes() + values.tobytes(), 9)


def decode_outliers(data: bytes, pixels: NDArray[Any]) -> None:
    """Put what `encode_outliers` stored back into `pixels`, in place. Raises `CorruptTileError` for anything else."""
    positions, values = _read_outliers(data, pixels.size, pixels.dtype)
    pixels.flat[positions] = values


def outlier_mask(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Mask:
    """Which pixels `encode_outliers` stored. Raises `CorruptTileError` as `decode_outliers` does."""
    mask = np.zeros(shape, bool)
    mask.flat[_read_outliers(data, mask.size, dtype)[0]] = True
    return mask


def _read_outliers(data: bytes, size: int, dtype: np.dtype[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Flat positions and values."""
    raw = inflate(data, _COUNT_BYTES + size * (_POSITION_BYTES + dtype.itemsize))
    count = int.from_bytes(raw[:_COUNT_BYTES], "little")
    if len(raw) != _COUNT_BYTES + count * (_POSITION_BYTES + dtype.itemsize):
        raise CorruptTileError(f"outliers: {len(raw)} bytes for {count} values")
    steps = np.frombuffer(raw, "<u4", count, _COUNT_BYTES).astype(np.int64)
    positions = np.cumsum(steps)  # at most `size` steps below 2**32: no overflow in 64 bits
    if count and ((steps[1:] == 0).any() or positions[-1] >= size):
        raise CorruptTileError("outliers: positions repeat or lie outside the tile")
    values = np.frombuffer(raw, dtype.newbyteorder("<"), count, _COUNT_BYTES + count * _POSITION_BYTES)
    return positions, values


def band_groups(colorinterp: Sequence[str]) -> list[tuple[int, ...]]:
    """Which bands are coded together: 0-based band numbers, at most three per group.

    Red, green and blue, where all are present, come first and in this order; the other bands follow in file order in
    threes. The alpha band is in no group: it is stored losslessly.
    """
    rest = [number for number in range(len(colorinterp)) if number != alpha_band(colorinterp)]
    groups: list[tuple[int, ...]] = []
    if all(name in colorinterp for name in ("red", "green", "blue")):
        groups.append(tuple(colorinterp.index(name) for name in ("red", "green", "blue")))
        rest = [number for number in rest if number not in groups[0]]
    return groups + [tuple(rest[start : start + 3]) for start in range(0, len(rest), 3)]


def mixed_groups(colorinterp: Sequence[str]) -> list[tuple[int, ...]]:
    """Which bands are coded as components of each other: all but alpha, in file order, in parts of at most 16.

    Nothing for a single band.
    """
    bands = [number for number in range(len(colorinterp)) if number != alpha_band(colorinterp)]
    parts = -(-len(bands) // MAX_COMPONENTS)
    return [tuple(part.tolist()) for part in np.array_split(bands, parts)] if len(bands) > 1 else []


def _pixel_range(mapping: BandMapping, dtype: np.dtype[Any]) -> tuple[float, float]:
    """The mapping's covered range, cut to values the type can hold: a mapping read from a file may lie anywhere."""
    if dtype.kind == "f":
        least, greatest = float(np.finfo(dtype).min), float(np.finfo(dtype).max)
        low, high = mapping.low, mapping.high
    else:
        least, greatest = float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
        low, high = float(math.ceil(mapping.low)), float(math.floor(mapping.high))
    low, high = (min(max(end, least), greatest) for end in (low, high))
    return low, max(low, high)


def _avoid(pixels: NDArray[Any], exact: NDArray[np.float64], nodata: Any, covered: tuple[float, float]) -> None:
    """Move pixels off `nodata`, in place: to the side their exact value lies on, unless that leaves the range."""
    hit = pixels == nodata
    if not hit.any():
        return
    below, above = _neighbours(nodata)
    inside = [side for side in (below, above) if side is not None and covered[0] <= side <= covered[1]]
    inside = inside or [side for side in (below, above) if side is not None]
    upwards = exact[hit] > float(nodata)
    pixels[hit] = np.where(upwards, inside[-1], inside[0])


def _neighbours(value: Any) -> tuple[Any | None, Any | None]:
    """The next representable value below and above, None where there is none."""
    if value.dtype.kind == "f":
        infinity = value.dtype.type(np.inf)
        sides = np.nextafter(value, -infinity), np.nextafter(value, infinity)
        return tuple(side if np.isfinite(side) else None for side in sides)  # type: ignore[return-value]
    limits = np.iinfo(value.dtype)
    below = None if value == limits.min else value.dtype.type(int(value) - 1)
    above = None if value == limits.max else value.dtype.type(int(value) + 1)
    return below, above
