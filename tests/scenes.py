"""A small scene without a network, for the tests of the container."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltchm_geo.bitstream import TileMode, TilePayload
from ltchm_geo.container import BandGroup, ContainerWriter, SceneMeta
from ltchm_geo.georef import BandInfo, Georef
from ltchm_geo.radiometry import UINT8_MAPPING
from ltchm_geo.scene_writer import plane_chunks
from ltchm_geo.types import Shape2d, TileIndex

SHAPE = Shape2d(150, 220)  # 3 x 4 tiles of 64, 2 x 2 shards of 2 x 2 tiles
META = SceneMeta(
    shape=SHAPE,
    dtype="uint8",
    bands=tuple(BandInfo("uint8", f"B{i}", c) for i, c in enumerate(["red", "green", "blue", "alpha", "undefined"])),
    georef=Georef(crs='LOCAL_CS["x"]', transform=(10.0, 0.0, 5e5, 0.0, -10.0, 4e6), tags={"": {"ä": "ö"}}),
    groups=(
        BandGroup("g0", (0, 1, 2), (UINT8_MAPPING,) * 3, (0, None, 7)),
        BandGroup("g1", (4,), (UINT8_MAPPING,), (None,)),
    ),
    weights="ab" * 32,
    weights_tag="tiny",
    level=56,
    tile=64,
    shard=2,
    alpha=3,
    mask=True,
    source={"name": "scene.tif", "bytes": 123, "note": None},
)
SHARDS = [TileIndex(iy, ix) for iy in range(2) for ix in range(2)]
ALPHA = (np.arange(SHAPE.y * SHAPE.x) % 251).astype(np.uint8).reshape(SHAPE)
MASK = ALPHA > 100


def payload(array: str, tile: TileIndex) -> bytes:
    return TilePayload(TileMode.LATENT, 56, body=f"{array} {tile.iy} {tile.ix}".encode()).pack()


def put_all(writer: ContainerWriter, shards: list[TileIndex] = SHARDS) -> None:
    grid = writer.grid
    for shard in shards:
        for group in ("g0", "g1"):
            tiles = grid.tiles_in_shard(shard)
            writer.put_shard(group, shard, {grid.slot(tile): payload(group, tile) for tile in tiles})
        put_plane(writer, "alpha", shard, ALPHA)
        put_plane(writer, "mask", shard, MASK)


def put_plane(writer: ContainerWriter, plane: str, shard: TileIndex, pixels: NDArray[Any], pyramid: int = 0) -> None:
    """Store a shard of ``alpha`` or ``mask``; `pixels` are those of the whole level."""
    grid = writer.meta.pyramid_grid(pyramid)
    rows, columns = grid.shard_box(shard).slices
    writer.put_shard(plane, shard, plane_chunks(grid, shard, pixels[rows, columns]), pyramid)


def write(path: Path, overwrite: bool = False, meta: SceneMeta = META) -> Path:
    with ContainerWriter(path, meta, overwrite) as writer:
        put_all(writer)
        writer.finish()
    return path
