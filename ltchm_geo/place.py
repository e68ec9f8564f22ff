"""Which pixels a user means: a window of them, or a place in the raster's CRS."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .errors import UsageError
from .georef import Georef
from .types import Bounds, Lines, PixelBox, Shape2d

__all__ = ["bounds_box", "check_place", "touched", "window_box"]


def check_place(window: Sequence[int] | None, bounds: Sequence[float] | None) -> None:
    """Raise `UsageError` unless at most one is given, and that one could be a place in some raster."""
    if window is not None and bounds is not None:
        raise UsageError("window and bounds exclude each other: give one of them")
    if window is not None and len(window) != 4:
        raise UsageError("a window is four numbers: row, column, height, width")
    if bounds is not None and not _are_bounds(bounds):
        raise UsageError(f"bounds are x_min, y_min, x_max, y_max in the raster's CRS, not {tuple(bounds)}")


def _are_bounds(bounds: Sequence[float]) -> bool:
    return len(bounds) == 4 and all(map(math.isfinite, bounds)) and bounds[0] < bounds[2] and bounds[1] < bounds[3]


def window_box(window: Sequence[int], shape: Shape2d) -> PixelBox:
    """The pixels of a window; `UsageError` unless it lies inside a raster of that shape."""
    box = PixelBox(*(int(number) for number in window))
    if box.height < 1 or box.width < 1 or box.intersection(PixelBox(0, 0, *shape)) != box:
        raise UsageError(f"window {tuple(box)} is not inside the raster of {shape.y} rows and {shape.x} columns")
    return box


def bounds_box(bounds: Bounds, georef: Georef, shape: Shape2d) -> PixelBox:
    """The pixels that a place in the CRS touches; `UsageError` if there are none."""
    lines = georef.pixels_of(bounds)
    if lines is None:
        raise UsageError("the raster has no place on the map that bounds could mean: give a window of pixels")
    box = touched(lines, shape)
    if box is None:
        raise UsageError(f"the raster does not touch {tuple(bounds)}: in its own CRS it covers {georef.bounds(shape)}")
    return box


def touched(lines: Lines, shape: Shape2d) -> PixelBox | None:
    """The pixels of a raster of that shape that lie between `lines`, be it in part; None if there are none."""
    (top, bottom), (left, right) = (
        (max(0, math.floor(low)), min(size, math.ceil(high))) for (low, high), size in zip(lines, shape, strict=True)
    )
    return PixelBox(top, left, bottom - top, right - left) if top < bottom and left < right else None
