"""A few tiles that stand for a whole scene."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .masks import valid_pixels
from .scene_meta import BandGroup, SceneMeta
from .scene_writer import encode_plane
from .source import Source
from .tiles import MARGIN, CutTile, cut_tile, pad_tile
from .types import Shape2d, TileIndex

__all__ = ["code_plane", "read_tiles", "spread"]


def spread(shape: Shape2d, count: int) -> list[TileIndex]:
    """`count` tiles, evenly over the grid without falling into step with anything periodic in it; all if there are no
    more. Additive recurrence on the inverses of the plastic number, the two-dimensional golden ratio."""
    if count >= shape.y * shape.x:
        return [TileIndex(iy, ix) for iy in range(shape.y) for ix in range(shape.x)]
    found: dict[TileIndex, None] = {}
    for n in range(1, 100 * count):
        found[TileIndex(int(0.7548776662 * n % 1 * shape.y), int(0.5698402910 * n % 1 * shape.x))] = None
        if len(found) == count:
            break
    return sorted(found)


def read_tiles(source: Source, meta: SceneMeta, group: BandGroup, tiles: Sequence[TileIndex]) -> list[CutTile]:
    """Whole tiles of a band group, as `tile_encoder.encode_tiles` takes them.

    Where the scene has a halo, with margins.
    """
    found, grid = [], meta.grid
    for tile in tiles:
        box = grid.with_margin(grid.tile_box(tile), MARGIN * meta.halo)
        pixels = source.read(box, group.bands)
        valid = valid_pixels(pixels, meta.nodata(group), source.read_mask(box))
        found.append(cut_tile(tile, grid, meta.halo, box, pixels, valid))
    return found


def code_plane(source: Source, meta: SceneMeta, name: str, tile: TileIndex) -> bytes:
    """A tile of ``alpha`` or ``mask`` as the scene stores it."""
    box = meta.grid.tile_box(tile)
    plane = source.read_mask(box) if name == "mask" or meta.alpha is None else source.read(box, [meta.alpha])[0]
    return encode_plane(pad_tile(np.asarray(plane)[None], meta.tile))
