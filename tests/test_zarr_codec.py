from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import zarr
from scenes import put_plane
from zarr.registry import get_codec_class, register_codec

from ltchm_geo._documents import coordinates
from ltchm_geo._json import dumps
from ltchm_geo.bitstream import TileMode, TilePayload, decode_lossless, encode_lossless
from ltchm_geo.container import MANIFEST_KEY, BandGroup, ContainerReader, ContainerWriter, SceneMeta
from ltchm_geo.errors import ContainerError, CorruptContainerError, UnsupportedVersionError, UsageError
from ltchm_geo.georef import BandInfo, Georef
from ltchm_geo.radiometry import BandMapping
from ltchm_geo.tiles import pad_tile
from ltchm_geo.types import PixelBox, Shape2d, TileIndex
from ltchm_geo.zarr_codec import CODEC_NAME, LtchmCodec

NAN = float("nan")
SHAPE = Shape2d(150, 220)
MAPPING = BandMapping(1.0, 0.5, -100.0, 1e5)
META = SceneMeta(
    shape=SHAPE,
    dtype="float32",
    bands=tuple(BandInfo("float32", colorinterp=c, nodata=NAN) for c in ("undefined", "undefined", "alpha")),
    georef=Georef(crs='GEOGCRS["x"]', transform=(0.5, 0.0, 10.0, 0.0, -0.25, 50.0)),
    groups=(BandGroup("g0", (0, 1), (MAPPING,) * 2, (NAN, NAN)),),
    weights="cd" * 32,
    tile=64,
    shard=2,
    alpha=2,
    mask=True,
)
PIXELS = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype(np.float32)
ALPHA = (np.arange(SHAPE.y * SHAPE.x) % 251).astype(np.float32).reshape(SHAPE)
CONFIGURATION = LtchmCodec.of(META, META.groups[0]).configuration


@pytest.fixture(autouse=True)
def codec(monkeypatch):
    """Register the codec, and let exact tiles stand in for the network's."""
    register_codec(CODEC_NAME, LtchmCodec)
    batches: list[int] = []

    def decode_for_zarr(payloads, configuration, shape, dtype):
        assert configuration == CONFIGURATION
        batches.append(len(payloads))
        return [decode_lossless(TilePayload.unpack(data).body, shape, dtype) for data in payloads]

    monkeypatch.setitem(sys.modules, "ltchm_geo.tile_decoder", types.SimpleNamespace(decode_for_zarr=decode_for_zarr))
    return batches


@pytest.fixture
def scene(tmp_path):
    path = tmp_path / "scene.zarr"
    with ContainerWriter(path, META) as writer:
        grid = writer.grid
        for shard in [TileIndex(iy, ix) for iy in range(2) for ix in range(2)]:
            chunks = {}
            for tile in grid.tiles_in_shard(shard):
                rows, columns = grid.tile_box(tile).slices
                body = encode_lossless(pad_tile(PIXELS[:, rows, columns], META.tile))
                chunks[grid.slot(tile)] = TilePayload(TileMode.LOSSLESS, body=body).pack()
            writer.put_shard("g0", shard, chunks)
            put_plane(writer, "alpha", shard, ALPHA)
            put_plane(writer, "mask", shard, ALPHA > 9)
        writer.finish()
    return path


@pytest.fixture
def level(scene):
    store = zarr.storage.LocalStore(scene, read_only=True)
    yield zarr.open_group(store, mode="r", zarr_format=3)["0"]
    store.close()


# --- zarr reads what we write ----------------------------------------------------------------------------------------


def test_zarr_reads_everything(level):
    np.testing.assert_array_equal(level["g0"][:], PIXELS)
    np.testing.assert_array_equal(level["g0"][1, 60:70, 100:220], PIXELS[1, 60:70, 100:220])
    np.testing.assert_array_equal(level["alpha"][:], ALPHA)
    np.testing.assert_array_equal(level["mask"][:], ALPHA > 9)
    assert np.isnan(level["g0"].fill_value)


def test_georeferencing_of_the_folder_follows_cf(level):
    assert level["spatial_ref"].attrs["crs_wkt"] == META.georef.crs
    assert level["spatial_ref"].attrs["GeoTransform"] == "10.0 0.5 0.0 50.0 0.0 -0.25"
    assert level["spatial_ref"][()] == 0
    np.testing.assert_array_equal(level["x"][:], 10 + 0.5 * (np.arange(220) + 0.5))
    np.testing.assert_array_equal(level["y"][:], 50 - 0.25 * (np.arange(150) + 0.5))
    assert level["x"].attrs["standard_name"] == "longitude"
    assert level["g0"].attrs["grid_mapping"] == "spatial_ref"
    assert level["g0"].metadata.dimension_names == ("band_g0", "y", "x")
    assert level["mask"].metadata.dimension_names == ("y", "x")


@pytest.mark.parametrize("transform", [None, (1.0, 0.1, 0.0, 0.0, -1.0, 0.0), (1.0, 0.0, 0.0, 0.1, -1.0, 0.0)])
def test_no_coordinates_without_a_straight_grid(transform):
    assert coordinates(replace(META, georef=Georef(transform=transform))) == {}


def test_a_batch_is_decoded_in_one_call(level, codec):
    with zarr.config.set({"codec_pipeline.batch_size": 64}):
        array = zarr.open_array(level["g0"].store_path, mode="r")
        np.testing.assert_array_equal(array[:, :128, :128], PIXELS[:, :128, :128])
    assert codec == [4]


def test_only_touched_tiles_are_decoded(level, codec):
    level["g0"][0, 10, 10]
    assert codec == [1]


# --- we read what zarr writes ----------------------------------------------------------------------------------------


def test_planes_written_by_zarr(scene):
    group = zarr.open_group(scene, mode="r+", zarr_format=3)["0"]
    values = np.where(np.indices(SHAPE)[1] % 128 < 64, np.float32(0), ALPHA + 1)  # every second tile is left out
    group["alpha"][:], group["mask"][:] = values, values > 50
    manifest = json.loads((scene / MANIFEST_KEY).read_bytes())
    for key in manifest["shards"]:
        data = (scene / key).read_bytes()
        manifest["shards"][key] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (scene / MANIFEST_KEY).write_bytes(dumps(manifest))
    with ContainerReader(scene) as reader:
        np.testing.assert_array_equal(reader.plane("alpha", PixelBox(0, 0, *SHAPE)), values)
        np.testing.assert_array_equal(reader.plane("mask", PixelBox(0, 0, *SHAPE)), values > 50)
        assert reader.verify() == []


# --- the codec by itself ---------------------------------------------------------------------------------------------


def test_writing_is_refused(scene):
    array = zarr.open_array(scene / "0" / "g0", mode="r+", zarr_format=3)
    before = (scene / "0/g0/c/0/0/0").read_bytes()
    with pytest.raises(UsageError, match="compress_raster"):
        array[:, :64, :64] = 1.0
    assert (scene / "0/g0/c/0/0/0").read_bytes() == before


def test_configuration_round_trip():
    codec = LtchmCodec.from_configuration(CONFIGURATION)
    assert codec.configuration == CONFIGURATION
    assert codec.configuration["fill"] == ["NaN", "NaN"]
    assert LtchmCodec.from_dict(json.loads(json.dumps(codec.to_dict()))) == codec
    assert pickle.loads(pickle.dumps(codec)) == codec
    assert hash(codec) == hash(LtchmCodec.from_configuration(CONFIGURATION))
    assert get_codec_class(CODEC_NAME) is LtchmCodec


@pytest.mark.parametrize(
    "change",
    [
        {"format": -1},
        {"format": None},
        {"weights": 3},
        {"weights": "/tmp/any.safetensors"},  # what a store may not choose
        {"weights": "ltchm-64-preview4"},
        {"weights": "CD" * 32},
        {"mapping": [], "fill": [], "nodata": []},
        {"mapping": [[0, 1, 0, 1]] * 4, "fill": [None] * 4, "nodata": [None] * 4},
        {"mapping": 5},
        {"mapping": [[1, 2, 3]] * 2},
        {"mapping": [[1, 2, 3, "x"]] * 2},
        {"mapping": [5]},
        {"fill": [1]},
        {"fill": [[], 1]},
        {"nodata": None},
        {"surprise": 1},
    ],
)
def test_configuration_is_strict(change):
    with pytest.raises(CorruptContainerError):
        LtchmCodec.from_configuration({**CONFIGURATION, **change})


def test_newer_configuration():
    with pytest.raises(UnsupportedVersionError, match="update"):
        LtchmCodec.from_configuration({**CONFIGURATION, "format": 3, "more": 2})


def test_damaged_tile_raises(scene):
    shard = scene / "0/g0/c/0/0/0"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    array = zarr.open_array(scene / "0" / "g0", mode="r", zarr_format=3)
    with pytest.raises((ValueError, ContainerError)):
        array[:, :64, :64]


def test_metadata_needs_no_torch():
    code = "import sys, ltchm_geo.zarr_codec; print(*{'torch', 'numba', 'rasterio'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
