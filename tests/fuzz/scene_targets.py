"""Targets that take a whole scene, through each of its doors; see `targets`."""

from __future__ import annotations

import contextlib
import functools
import gzip
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from decodable import DECODABLE
from drawing import Draw, edited
from rasterio.errors import RasterioIOError
from rasters import smooth
from targets import folder, parsed, target

import ltchm_geo
from ltchm_geo._store import member_method
from ltchm_geo.container import ContainerReader, SceneMeta
from ltchm_geo.manifest import PREVIEW_KEY
from ltchm_geo.picture import encode_picture
from ltchm_geo.scene_decoder import SceneDecoder
from ltchm_geo.shards import pack_shard
from ltchm_geo.virtual_tiff import VirtualTiff

MOST_TILES = 100


@target
def scene(data: bytes) -> None:
    """A description with changes and tiles to match; then one of the doors."""
    draw = Draw(data)
    door = draw.one_of([_info, _restore, _rasterio, _xarray, _outline, _picture, _virtual])
    found = parsed(edited(DECODABLE.to_document(), draw))
    meta = SceneMeta.from_dict(found)
    if sum(np.prod(meta.pyramid_grid(level).shape) for level in meta.pyramid) > MOST_TILES or meta.tile > 128:
        return
    door(write_scene(meta, found, draw))


def write_scene(meta: SceneMeta, described: Any, draw: Draw, preview: bytes | None = None) -> Path:
    """A file whose checksums are right, whatever it says."""
    files = {"zarr.json": json.dumps({"attributes": {"ltchm": described}}).encode()}
    if preview is not None:
        files[PREVIEW_KEY] = preview
    shards = {}
    for level in meta.pyramid:
        grid = meta.pyramid_grid(level)
        for array in meta.arrays:
            for index in grid.shard_indices:
                slots = [grid.slot(tile) for tile in grid.tiles_in_shard(index)]
                chunks = {slot: _chunk(meta, array, draw) for slot in slots}
                shards[meta.shard_key(array, index, level)] = pack_shard(chunks, meta.shard**2)
    path = folder() / "scene.ltchm"
    with zipfile.ZipFile(path, "w") as archive:
        for key, value in (files | shards).items():
            archive.writestr(key, value, member_method(key))
    return path


def _chunk(meta: SceneMeta, array: str, draw: Draw) -> bytes:
    shape, item = meta.tile_shape(array), meta.array_dtype(array).itemsize
    if array in meta.planes:
        return gzip.compress(bytes([draw.byte()]) * (shape[0] * shape[1] * item), 1)
    if draw.byte() % 16 == 1:
        return bytes([0, 0, 0, 0])  # EMPTY
    return bytes([0, 1, 0, 0]) + bytes([draw.byte()]) * (shape[0] * item)  # CONSTANT


def _info(path: Path) -> None:
    json.dumps(ltchm_geo.info(path).to_dict(), ensure_ascii=False).encode()
    ltchm_geo.verify(path, deep=True)


def _restore(path: Path) -> None:
    ltchm_geo.decompress_raster(path, folder() / "restored.tif", overwrite=True, allow_damaged=True)


def _rasterio(path: Path) -> None:
    with ltchm_geo.rasterio_open(path) as dataset:
        with contextlib.suppress(RasterioIOError):
            dataset.read(1)
        dataset.tags(), dataset.crs, dataset.gcps


def _xarray(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with ltchm_geo.open(path) as dataset:
            dataset["band_data"][0, :5, :5].load()


def _outline(path: Path) -> None:
    ltchm_geo.footprint(path, crs=None)
    ltchm_geo.footprint(path)


def _picture(path: Path) -> None:
    ltchm_geo.preview(path, 50)


def _virtual(path: Path) -> None:
    with ContainerReader(path) as reader:
        virtual = VirtualTiff(SceneDecoder(reader, "cpu"))
        virtual.read(0, 5000)
        virtual.read(virtual.size // 2, 5000)


@target
def stored_preview(data: bytes) -> None:
    """Any bytes where the preview should be; or a JPEG file with some overwritten."""
    draw = Draw(data)
    picture = bytearray(_jpeg())
    if draw.byte() % 8 == 0:
        picture = bytearray(draw.rest())
    for _ in range(draw.number(8)):
        picture[draw.number(min(700, len(picture)) or 1) : 1] = bytes([draw.byte()])
    path = write_scene(DECODABLE, DECODABLE.to_document(), Draw(b""), bytes(picture))
    ltchm_geo.preview(path, 10)


@functools.cache
def _jpeg() -> bytes:
    return encode_picture(smooth(3, 40, 50), "JPEG")
