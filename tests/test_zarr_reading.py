"""What anybody with zarr and the registered codec reads is what we decompress, to the last bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from rasterio.crs import CRS
from rasters import CHIAPAS, COAST, CROPS, masks_of, opened, pixels_of, smooth, write_tif

from ltchm_geo import compress_raster, decompress_raster
from ltchm_geo.container import ContainerReader
from ltchm_geo.errors import CorruptTileError, LtchmError
from ltchm_geo.types import TileIndex

pytestmark = [
    pytest.mark.usefixtures("tiny"),
    pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr"),
]


def made(source: Path, folder: Path, name: str = "scene.zarr", **options: Any) -> tuple[Path, Any]:
    # Zarr shows its codec one tile at a time, so only tiles that stand alone are the same there.
    scene = compress_raster(source, folder / name, tile_size=128, shard_tiles=2, seamless=False, **options).path
    return scene, pixels_of(decompress_raster(scene, folder / "restored.tif").path)


def check(level: zarr.Group, scene: Path, expected: Any) -> None:
    with ContainerReader(scene) as reader:
        meta = reader.meta
    for group in meta.groups:
        np.testing.assert_array_equal(level[group.name][:], expected[list(group.bands)])
    if meta.alpha is not None:
        np.testing.assert_array_equal(level["alpha"][:], expected[meta.alpha])


@pytest.mark.parametrize("source", CROPS, ids=lambda path: path.stem)
def test_zarr_reads_the_folder(source: Path, tmp_path: Path) -> None:
    scene, expected = made(source, tmp_path)
    check(zarr.open_group(scene, mode="r")["0"], scene, expected)


def test_windows_and_single_pixels(tmp_path: Path) -> None:
    scene, expected = made(COAST, tmp_path)
    array = zarr.open_array(scene, path="0/g0", mode="r")
    np.testing.assert_array_equal(array[1, 100:200, 130:140], expected[1, 100:200, 130:140])
    assert array[2, 259, 299] == expected[2, 259, 299]


def test_mask_and_nan(tmp_path: Path) -> None:
    pixels, valid = smooth(2, 150, 140, "float32", 0, 1), np.ones((150, 140), bool)
    pixels[0, 3:50, 4:9], valid[100:] = np.nan, False
    scene, expected = made(write_tif(tmp_path / "a.tif", pixels, mask=valid), tmp_path)
    level = zarr.open_group(scene, mode="r")["0"]
    np.testing.assert_array_equal(level["g0"][:], expected)
    np.testing.assert_array_equal(level["mask"][:], masks_of(tmp_path / "restored.tif")[1])


def test_xarray(tmp_path: Path) -> None:
    scene, expected = made(CHIAPAS, tmp_path, decorrelate=False)
    with xr.open_zarr(scene, group="0", consolidated=False, mask_and_scale=False) as dataset, opened(CHIAPAS) as source:
        assert {"g0", "g1", "g2"} <= set(dataset.data_vars)
        assert dataset.g2.dims == ("band_g2", "y", "x")
        np.testing.assert_array_equal(np.concatenate([dataset[g] for g in ("g0", "g1", "g2")]), expected)
        assert CRS.from_wkt(dataset.spatial_ref.attrs["crs_wkt"]) == source.crs
        assert source.xy(3, 4) == (float(dataset.x[4]), float(dataset.y[3]))


def test_damage_is_an_error(tmp_path: Path) -> None:
    scene, _ = made(COAST, tmp_path)
    with ContainerReader(scene) as reader:
        key = reader.meta.shard_key("g0", TileIndex(0, 0))
    shard = scene / key
    data = bytearray(shard.read_bytes())
    data[50] ^= 1
    shard.write_bytes(data)
    array = zarr.open_array(scene, path="0/g0", mode="r")
    with pytest.raises((CorruptTileError, ValueError)):
        array[:, :128, :128]
    assert array[:, 130:, 130:].any()


def test_part_of_a_scene_cannot_be_written(tmp_path: Path) -> None:
    """It would decode and code again tiles that hold more than what is written: a silent loss."""
    scene, expected = made(COAST, tmp_path)
    array = zarr.open_array(scene, path="0/g0", mode="r+")
    with pytest.raises(LtchmError, match="compress_raster"):
        array[:, :9, :9] = 7
    check(zarr.open_group(scene, mode="r")["0"], scene, expected)


def test_the_codec_is_found_without_importing_us(tmp_path: Path) -> None:
    scene, expected = made(COAST, tmp_path)
    code = (
        "import sys, zarr; a = zarr.open_array(sys.argv[1], path='0/g0', mode='r')\n"
        "print(int(a[:, :128, :128].astype('int64').sum()))"
    )
    done = subprocess.run([sys.executable, "-c", code, scene], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(expected[:, :128, :128].astype(np.int64).sum()), done.stderr
