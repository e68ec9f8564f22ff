"""A small scene that decodes without a network: each tile is one colour."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from scenes import ALPHA, MASK, META, SHAPE, SHARDS, put_plane

from ltchm_geo.bitstream import TileMode, TilePayload
from ltchm_geo.container import ContainerWriter, SceneMeta
from ltchm_geo.georef import Georef
from ltchm_geo.types import TileIndex

DECODABLE = replace(META, weights=None, weights_tag=None, level=0, georef=Georef(transform=META.georef.transform))
BROKEN = TilePayload(TileMode.CONSTANT, body=b"far too long").pack()  # stored soundly, yet it cannot be decoded


def colours(bands: tuple[int, ...], tile: TileIndex) -> bytes:
    return bytes(10 * (band + 1) + 4 * tile.iy + tile.ix for band in bands)


def pixels() -> np.ndarray:
    """(bands, y, x): what the scene decodes to."""
    found = np.empty((len(DECODABLE.bands), *SHAPE), np.uint8)
    for iy, ix in np.ndindex(*DECODABLE.grid.shape):
        tile = TileIndex(iy, ix)
        rows, columns = DECODABLE.grid.tile_box(tile).slices
        for band, value in enumerate(colours(tuple(range(len(found))), tile)):
            found[band, rows, columns] = value
    found[DECODABLE.alpha] = ALPHA
    return found


def write_decodable(path: Path, broken: tuple[str, TileIndex] | None = None, meta: SceneMeta = DECODABLE) -> Path:
    """The scene; `meta` may differ from `DECODABLE` in what does not concern pixels."""
    grid = meta.grid
    with ContainerWriter(path, meta) as writer:
        for shard in SHARDS:
            for group in meta.groups:
                chunks = {
                    grid.slot(tile): TilePayload(TileMode.CONSTANT, body=colours(group.bands, tile)).pack()
                    for tile in grid.tiles_in_shard(shard)
                }
                if broken is not None and broken[0] == group.name and grid.shard_of(broken[1]) == shard:
                    chunks[grid.slot(broken[1])] = BROKEN
                writer.put_shard(group.name, shard, chunks)
            put_plane(writer, "alpha", shard, ALPHA)
            put_plane(writer, "mask", shard, MASK)
        writer.finish()
    return path
