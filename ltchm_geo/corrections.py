"""What the network's pixels lack of a guarantee: the rest of each pixel, in steps as wide as its bound allows.

The network computes in single precision, and two machines do not round alike. `SLACK` bounds how far its output on any
machine lies from that on the encoder's; steps are so much narrower that the bound holds wherever in that range a
decoder's base lies, and the encoder tries both ends for every pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import CorruptTileError
from .exact_pixels import repeat, unrepeated, within
from .georef import Number
from .predictive import decode_planes, encode_planes
from .radiometry import BandMapping, representable_range, to_pixels

__all__ = ["SLACK", "add_correction", "base_pixels", "encode_correction"]

Pixels = NDArray[Any]
Mask = NDArray[np.bool_]
Planes = NDArray[np.float64]

#: Of the network's output in the model's range, from one machine to the next; docs/guarantees.md says how it was found.
SLACK = 2.0**-14
_LARGEST_SLACK = 0.25  # of the bound: beyond, narrower steps cost more than the network saves
_INDEX_LIMIT = 1 << 30


def base_pixels(values: NDArray[np.float32], mappings: Sequence[BandMapping]) -> Planes:
    """The network's output (bands, h, w) in data units, before rounding; within what the mappings cover."""
    base = np.nan_to_num(values.astype(np.float64))
    for plane, mapping in zip(base, mappings, strict=True):
        plane /= mapping.scale
        plane += mapping.offset
        np.clip(plane, mapping.low, mapping.high, out=plane)
    return base


def encode_correction(
    pixels: Pixels,
    known: Mask,
    base: Planes,
    mappings: Sequence[BandMapping],
    bounds: Sequence[float],
    nodata: Sequence[Number | None],
) -> tuple[bytes, Mask] | None:
    """Code what brings a base within the bounds.

    Parameters
    ----------
    pixels, known : (bands, h, w) in the raster's own type, and which of them to keep
    base : as `base_pixels` gives it on this machine
    mappings, bounds, nodata : per band

    Returns
    -------
    The correction, and the pixels that it does not bring within their bound on every machine; None where the slack is
    too large a part of a bound.
    """
    slack = np.array([SLACK / mapping.scale for mapping in mappings])
    half = np.array([np.floor(bound) + 0.5 if pixels.dtype.kind != "f" else bound for bound in bounds])
    if (slack > _LARGEST_SLACK * half).any():
        return None
    steps = 2 * (half - slack) * (1 - 2.0**-20)
    with np.errstate(invalid="ignore", over="ignore"):
        exact = (pixels.astype(np.float64) - base) / steps[:, None, None]
        exact = np.where(known & np.isfinite(exact), exact, 0)
    indices = np.rint(np.clip(exact, -_INDEX_LIMIT, _INDEX_LIMIT)).astype(np.int64)
    extent = unrepeated(pixels, known)
    lost = np.zeros(known.shape, bool)
    for shift in (-1, 1):  # rounding and moving off nodata keep the order, so the ends are the worst
        moved = base + (shift * slack)[:, None, None]
        lost |= known & ~within(pixels, _corrected(moved, indices, steps, pixels.dtype, nodata), bounds)
    repeat(lost, extent)
    return steps.astype("<f8").tobytes() + encode_planes(indices, known & ~lost, extent), lost


def add_correction(
    data: bytes, base: Planes, known: Mask, dtype: np.dtype[Any], nodata: Sequence[Number | None]
) -> Pixels:
    """Pixels from a base and what `encode_correction` coded. Raises `CorruptTileError`."""
    size = 8 * len(base)
    steps = np.frombuffer(data[:size], "<f8") if len(data) >= size else np.empty(0)
    if len(steps) != len(base) or not (np.isfinite(steps) & (steps > 0)).all():
        raise CorruptTileError("a correction has no sound steps")
    indices, extent = decode_planes(data[size:], known)
    return repeat(_corrected(base, indices, steps, dtype, nodata), extent)


def _corrected(
    base: Planes, indices: NDArray[np.int64], steps: NDArray[Any], dtype: np.dtype[Any], nodata: Sequence[Number | None]
) -> Pixels:
    pixels = np.empty(base.shape, dtype)
    for out, plane, index, step, forbidden in zip(pixels, base, indices, steps, nodata, strict=True):
        with np.errstate(over="ignore"):
            exact = plane + index.astype(np.float64) * float(step)
        out[...] = to_pixels(exact, dtype, forbidden, representable_range(dtype))
    return pixels
