"""Coordinates and shapes as types, so that rows and columns cannot be swapped by accident.

Pixel order is (bands, y, x) and grid order is (iy, ix) everywhere in this library; this is the one place that says so.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_SIDE = 2**31 - 1  # of a raster: GDAL's own limit; larger sizes are damaged headers
MAX_PIXELS = 2**45  # six million kilometres squared at 30 m: no scene, a damaged header

#: Data types of pixels that a network can code, by NumPy name.
PIXEL_DTYPES = ("uint8", "uint16", "int16", "float32", "float64")
#: Those that a scene with a guarantee can have.
EXACT_DTYPES = (*PIXEL_DTYPES, "int8", "uint32", "int32", "uint64", "int64")

#: A rectangle in a CRS: x_min, y_min, x_max, y_max.
Bounds = tuple[float, float, float, float]
#: First and last line of pixels, (rows, columns), in fractions of them: see `Georef.pixels_of`.
Lines = tuple[tuple[float, float], tuple[float, float]]


class Shape2d(NamedTuple):
    """Height and width, in pixels or tiles."""

    y: int
    x: int


class TileIndex(NamedTuple):
    """Row and column of a tile (or shard) in its grid."""

    iy: int
    ix: int


class PixelBox(NamedTuple):
    """A rectangle of pixels: upper left corner, height and width."""

    y0: int
    x0: int
    height: int
    width: int

    @property
    def y1(self) -> int:
        """Row just below the box."""
        return self.y0 + self.height

    @property
    def x1(self) -> int:
        """Column just right of the box."""
        return self.x0 + self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices for indexing an array of the scene."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def grown(self, by: int) -> PixelBox:
        """The rectangle with `by` more pixels on all four sides."""
        return PixelBox(self.y0 - by, self.x0 - by, self.height + 2 * by, self.width + 2 * by)

    def intersection(self, other: PixelBox) -> PixelBox | None:
        """The common rectangle, or None when the two do not meet."""
        y0, x0 = max(self.y0, other.y0), max(self.x0, other.x0)
        y1, x1 = min(self.y1, other.y1), min(self.x1, other.x1)
        return PixelBox(y0, x0, y1 - y0, x1 - x0) if y1 > y0 and x1 > x0 else None

    def relative_to(self, origin: PixelBox) -> PixelBox:
        """The same rectangle in coordinates counted from `origin`'s upper left corner."""
        return PixelBox(self.y0 - origin.y0, self.x0 - origin.x0, self.height, self.width)


class Sides(NamedTuple):
    """Something about each side of a tile: whether there is a neighbour (0 or 1), or how many pixels."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def times(self, count: int) -> Sides:
        """`count` on every side that has a neighbour."""
        return Sides(*(count * side for side in self))
