"""The tile grid: which pixels belong to which tile, and which tiles to which shard. Integers only.

A scene is cut into square tiles of `tile` pixels, counted from the upper left corner; `shard` x `shard` tiles make a
shard, the unit that is read, coded and stored at once. Tiles and shards at the right and lower edge may reach past the
scene: their boxes are clipped to it, and `pad_tile` fills a clipped tile up again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import UsageError
from .types import PixelBox, Shape2d, Sides, TileIndex

__all__ = [
    "DEFAULT_SHARD",
    "DEFAULT_TILE",
    "LATENT",
    "MARGIN",
    "CutTile",
    "TileGrid",
    "automatic_shard",
    "cut_tile",
    "latents_of",
    "pad_tile",
    "pad_to",
]

DEFAULT_TILE = 256
DEFAULT_SHARD = 8
_MOST_AT_ONCE = 2048  # pixels a side of what is read at once
TILE_MULTIPLE = 64  # the deepest latent of the network is 64 times smaller than the tile
LATENT = 16  # pixels a side that one latent stands for
MARGIN = LATENT  # pixels of its neighbours that a tile is coded with


@dataclass(frozen=True)
class TileGrid:
    """How a scene is divided into tiles and shards.

    Parameters
    ----------
    scene : Shape2d
        Rows and columns of the scene in pixels, both positive.
    tile : int
        Side of a tile in pixels, a positive multiple of 64.
    shard : int
        Side of a shard in tiles, positive.

    Raises
    ------
    UsageError
        If a size is not positive or `tile` is not a multiple of 64.
    """

    scene: Shape2d
    tile: int = DEFAULT_TILE
    shard: int = DEFAULT_SHARD

    def __post_init__(self) -> None:
        object.__setattr__(self, "scene", Shape2d(*self.scene))
        if min(self.scene) < 1:
            raise UsageError(f"a scene of {self.scene.y} x {self.scene.x} pixels has nothing to tile")
        if self.tile < 1 or self.tile % TILE_MULTIPLE:
            raise UsageError(f"tile side {self.tile} is not a positive multiple of {TILE_MULTIPLE}")
        if self.shard < 1:
            raise UsageError(f"shard side {self.shard} is not positive: give the number of tiles per side")

    @property
    def shape(self) -> Shape2d:
        """Number of tile rows and tile columns."""
        return Shape2d(_ceil_div(self.scene.y, self.tile), _ceil_div(self.scene.x, self.tile))

    @property
    def shards(self) -> Shape2d:
        """Number of shard rows and shard columns."""
        return Shape2d(_ceil_div(self.shape.y, self.shard), _ceil_div(self.shape.x, self.shard))

    @property
    def for_reading(self) -> TileGrid:
        """The same tiles in shards of at most 2048 pixels a side, or one tile, to be read at once.

        A scene's own shards may be of any size, and say nothing of the memory that there is.
        """
        return replace(self, shard=min(self.shard, max(1, _MOST_AT_ONCE // self.tile)))

    @property
    def shard_indices(self) -> list[TileIndex]:
        """Every shard, row by row."""
        return [TileIndex(iy, ix) for iy in range(self.shards.y) for ix in range(self.shards.x)]

    def tile_box(self, index: TileIndex) -> PixelBox:
        """Pixels of the tile, clipped to the scene. Raises `IndexError` for a tile outside the grid."""
        return self._box(index, self.tile, self.shape)

    def shard_box(self, index: TileIndex) -> PixelBox:
        """Pixels of the shard, clipped to the scene. Raises `IndexError` for a shard outside the grid."""
        return self._box(index, self.tile * self.shard, self.shards)

    def with_margin(self, box: PixelBox, margin: int) -> PixelBox:
        """A box of the scene's pixels with up to `margin` more on each side, as far as the scene goes."""
        grown = box.grown(margin).intersection(PixelBox(0, 0, *self.scene))
        return box if grown is None else grown

    def tiles_in_shard(self, index: TileIndex) -> list[TileIndex]:
        """The tiles of a shard that exist, row by row. A shard at the lower or right edge may have fewer."""
        _check_inside(index, self.shards)
        rows = range(index.iy * self.shard, min((index.iy + 1) * self.shard, self.shape.y))
        columns = range(index.ix * self.shard, min((index.ix + 1) * self.shard, self.shape.x))
        return [TileIndex(iy, ix) for iy in rows for ix in columns]

    def shard_of(self, index: TileIndex) -> TileIndex:
        """The shard that holds the tile."""
        _check_inside(index, self.shape)
        return TileIndex(index.iy // self.shard, index.ix // self.shard)

    def slot(self, index: TileIndex) -> int:
        """Position of the tile among the `shard * shard` slots of a full shard, row by row."""
        _check_inside(index, self.shape)
        return index.iy % self.shard * self.shard + index.ix % self.shard

    def sides(self, index: TileIndex) -> Sides:
        """On which sides the tile has a neighbour: 1 or 0."""
        _check_inside(index, self.shape)
        (iy, ix), (rows, columns) = index, self.shape
        return Sides(int(iy > 0), int(iy < rows - 1), int(ix > 0), int(ix < columns - 1))

    def around(self, index: TileIndex) -> list[TileIndex]:
        """The up to eight neighbours of the tile, row by row."""
        top, bottom, left, right = self.sides(index)
        rows, columns = range(index.iy - top, index.iy + bottom + 1), range(index.ix - left, index.ix + right + 1)
        return [TileIndex(iy, ix) for iy in rows for ix in columns if (iy, ix) != index]

    def covering(self, box: PixelBox) -> list[TileIndex]:
        """Every tile that shares a pixel with `box`, row by row; parts of `box` outside the scene count for nothing."""
        rows, columns = self._spans(box, self.tile)
        return [TileIndex(iy, ix) for iy in rows for ix in columns]

    def count(self, box: PixelBox) -> int:
        """How many tiles `covering` lists."""
        rows, columns = self._spans(box, self.tile)
        return len(rows) * len(columns)

    def pieces(self, box: PixelBox) -> Iterator[PixelBox]:
        """The part of `box` in each shard that has one, row by row; one after the other, for there may be millions."""
        rows, columns = self._spans(box, self.tile * self.shard)
        for index in (TileIndex(iy, ix) for iy in rows for ix in columns):
            if (piece := self.shard_box(index).intersection(box)) is not None:
                yield piece

    def _spans(self, box: PixelBox, side: int) -> tuple[range, range]:
        """Rows and columns of the squares of `side` pixels that share a pixel with `box` in the scene."""
        inside = box.intersection(PixelBox(0, 0, *self.scene)) or PixelBox(0, 0, 0, 0)
        rows = range(inside.y0 // side, _ceil_div(inside.y1, side))
        return rows, range(inside.x0 // side, _ceil_div(inside.x1, side))

    def _box(self, index: TileIndex, side: int, count: Shape2d) -> PixelBox:
        _check_inside(index, count)
        y0, x0 = index.iy * side, index.ix * side
        return PixelBox(y0, x0, min(side, self.scene.y - y0), min(side, self.scene.x - x0))


def automatic_shard(scene: Shape2d, tile: int) -> int:
    """Side in tiles of the shards a scene gets by default: 8, or less where all of it then still fits into one.

    Every slot of a shard costs 16 bytes, whether there is a tile for it or not. Raises `UsageError` as `TileGrid`.
    """
    return min(DEFAULT_SHARD, max(TileGrid(scene, tile).shape))


def latents_of(height: int, width: int) -> Shape2d:
    """Rows and columns of latents that stand for so many pixels."""
    return Shape2d(_ceil_div(height, LATENT), _ceil_div(width, LATENT))


class CutTile(NamedTuple):
    """A whole tile to be coded.

    Attributes
    ----------
    pixels, valid : (bands, h, w)
        In the scene's own type, and True where they hold data.
    scene : Shape2d or None
        Rows and columns of these that are the scene's; those beyond its edge repeat the last. All if None.
    """

    pixels: NDArray[Any]
    valid: NDArray[np.bool_]
    scene: Shape2d | None = None


def cut_tile(
    tile: TileIndex,
    grid: TileGrid,
    halo: int,
    outer: PixelBox,
    pixels: NDArray[Any],
    valid: NDArray[np.bool_],
) -> CutTile:
    """A tile of the pixels (and validity) of `outer`, whole, as `encode_tiles` takes it.

    With a halo, it has a margin on the sides where it has neighbours, which `outer` must have, too.
    """
    top, bottom, left, right = grid.sides(tile).times(MARGIN * halo)
    shape = Shape2d(grid.tile + top + bottom, grid.tile + left + right)
    box = grid.with_margin(grid.tile_box(tile), MARGIN * halo)
    rows, columns = box.relative_to(outer).slices
    own = Shape2d(box.height, box.width)
    return CutTile(pad_to(pixels[:, rows, columns], shape), pad_to(valid[:, rows, columns], shape), own)


def pad_tile(pixels: NDArray[Any], tile: int) -> NDArray[Any]:
    """Extend a clipped tile to the full side by repeating its last row and column.

    Parameters
    ----------
    pixels : (bands, h, w) array of any dtype, 1 <= h, w <= tile
    tile : int

    Returns
    -------
    (bands, tile, tile) array of the same dtype; `pixels` itself where nothing is missing.

    Raises
    ------
    ValueError
        If `pixels` is empty or larger than a tile.
    """
    return pad_to(pixels, Shape2d(tile, tile))


def pad_to(pixels: NDArray[Any], shape: Shape2d) -> NDArray[Any]:
    """`pad_tile` to any shape."""
    _, height, width = pixels.shape
    if not (1 <= height <= shape.y and 1 <= width <= shape.x):
        raise ValueError(f"cannot pad {height} x {width} pixels to a tile of {shape.y} x {shape.x}")
    if (height, width) == shape:
        return pixels
    return np.pad(pixels, ((0, 0), (0, shape.y - height), (0, shape.x - width)), mode="edge")


def _check_inside(index: TileIndex, count: Shape2d) -> None:
    if not (0 <= index.iy < count.y and 0 <= index.ix < count.x):
        raise IndexError(f"({index.iy}, {index.ix}) is outside a grid of {count.y} x {count.x}")


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)
