"""Which pixels a user means: a window of them, or a place in the raster's CRS."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

from .errors import UsageError
from .georef import Georef
from .types import Bounds, Lines, PixelBox, Shape2d

__all__ = ["bounds_box", "check_place", "touched", "whole_numbers", "window_box"]

_WINDOW = "a window is four whole numbers: row, column, height, width"


def check_place(window: Sequence[int] | None, bounds: Sequence[float] | None) -> None:
    """Raise `UsageError` unless at most one is given, and that one could be a place in some raster."""
    if window is not None and bounds is not None:
        raise UsageError("window and bounds exclude each other: give one of them")
    if window is not None and len(whole_numbers(window, _WINDOW)) != 4:
        raise UsageError(f"{_WINDOW}, not {tuple(window)}")
    if bounds is not None and not _are_bounds(bounds):
        raise UsageError(f"bounds are x_min, y_min, x_max, y_max in the raster's CRS, not {bounds!r}")


def whole_numbers(values: Any, what: str) -> tuple[int, ...]:
    """The numbers; `UsageError`, which begins with `what` they should be, where they are none or not whole."""
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError as error:
        raise UsageError(f"{what}, not {values!r}") from error


def _are_bounds(bounds: Sequence[float]) -> bool:
    try:
        return len(bounds) == 4 and all(map(math.isfinite, bounds)) and bounds[0] < bounds[2] and bounds[1] < bounds[3]
    except TypeError:  # no sequence, or not of numbers
        return False


def window_box(window: Sequence[int], shape: Shape2d) -> PixelBox:
    """The pixels of a window; `UsageError` unless it lies inside a raster of that shape."""
    box = PixelBox(*whole_numbers(window, _WINDOW))
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
