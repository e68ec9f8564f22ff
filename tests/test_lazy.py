from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray as xr
from decodable import DECODABLE, pixels, write_decodable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasters import CHIAPAS, COAST, CROPS, SAR, pixels_of, smooth, write_tif

import ltchm_geo
from ltchm_geo.errors import NotAContainerError


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_decodable(tmp_path / "scene.ltchm")


@pytest.mark.parametrize("source", CROPS, ids=lambda path: path.stem)
@pytest.mark.parametrize("name", ["scene.ltchm", "scene.zarr"])
def test_values_are_the_decompressed_ones(source: Path, name: str, tiny: Path, tmp_path: Path) -> None:
    path = ltchm_geo.compress_raster(source, tmp_path / name, tile_size=128, shard_tiles=2).path
    expected = pixels_of(ltchm_geo.decompress_raster(path, tmp_path / "a.tif").path)
    with ltchm_geo.open(path) as dataset:
        found = dataset["band_data"]
        assert (found.dims, found.dtype) == (("band", "y", "x"), expected.dtype)
        np.testing.assert_array_equal(found.values, expected)


def test_coordinates_and_crs(tiny: Path, tmp_path: Path) -> None:
    path = ltchm_geo.compress_raster(CHIAPAS, tmp_path / "a.ltchm").path
    with ltchm_geo.open(path) as dataset, rasterio.open(CHIAPAS) as source:
        assert CRS.from_wkt(dataset.spatial_ref.attrs["crs_wkt"]) == source.crs
        numbers = [float(n) for n in dataset.spatial_ref.attrs["GeoTransform"].split()]
        assert rasterio.Affine.from_gdal(*numbers) == source.transform
        for row, column in [(0, 0), (5, 90)]:
            assert source.xy(row, column) == (dataset.x[column], dataset.y[row])
        assert dataset.band.values.tolist() == list(range(1, 9))
        assert dataset.band_data.attrs["_FillValue"] == -9999
        assert dataset.band_data.attrs["long_name"] == tuple(d or "" for d in source.descriptions)
        assert dataset.attrs == source.tags()


def test_no_coordinates_where_the_grid_is_rotated(tiny: Path, tmp_path: Path) -> None:
    rotated = rasterio.Affine(1, 0.5, 0, 0.5, -1, 0)
    source = write_tif(tmp_path / "a.tif", smooth(1, 30, 40), transform=rotated)
    with ltchm_geo.open(ltchm_geo.compress_raster(source).path) as dataset:
        assert "x" not in dataset.coords
        assert dataset.spatial_ref.attrs["GeoTransform"] == "0.0 1.0 0.5 0.0 0.5 -1.0"
        assert "_FillValue" not in dataset.band_data.attrs


def test_chunks_are_shards(scene: Path) -> None:
    with ltchm_geo.open(scene) as dataset:
        assert isinstance(dataset.band_data.data, da.Array)
        assert dataset.band_data.chunks == ((5,), (128, 22), (128, 92))  # alpha stands between the groups
        np.testing.assert_array_equal(dataset.band_data.values, pixels())


def test_chunks_follow_band_groups(tiny: Path, tmp_path: Path) -> None:
    path = ltchm_geo.compress_raster(CHIAPAS, tmp_path / "a.ltchm", decorrelate=False).path
    with ltchm_geo.open(path) as dataset:
        assert dataset.band_data.chunks == ((3, 3, 2), (96,), (100,))


def test_opening_decodes_nothing(scene: Path, touched: list[Any]) -> None:
    with ltchm_geo.open(scene) as dataset:
        assert dataset.band_data.shape == (5, *DECODABLE.shape)
        assert dataset.band_data.mean().shape == ()
    assert touched == []


def test_only_needed_tiles_are_decoded(scene: Path, touched: list[Any]) -> None:
    with ltchm_geo.open(scene) as dataset:
        part = dataset.band_data.isel(band=4, y=slice(60, 70), x=slice(150, 160))
        np.testing.assert_array_equal(part.values, pixels()[4, 60:70, 150:160])
    assert touched == [("g1", (0, 2)), ("g1", (1, 2))]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_selection(data: st.DataObject, scene: Path) -> None:
    sizes = {"band": 5, "y": 150, "x": 220}
    selection = {
        name: data.draw(st.one_of(st.integers(-n, n - 1), st.slices(n), st.lists(st.integers(0, n - 1), max_size=4)))
        for name, n in sizes.items()
    }
    with ltchm_geo.open(scene) as dataset:
        expected = xr.DataArray(pixels(), dims=("band", "y", "x")).isel(selection)
        np.testing.assert_array_equal(dataset.band_data.isel(selection).values, expected.values)


def test_by_coordinates(tiny: Path, tmp_path: Path) -> None:
    path = ltchm_geo.compress_raster(SAR, tmp_path / "a.ltchm").path
    with ltchm_geo.open(path) as dataset:
        point = dataset.band_data.sel(x=float(dataset.x[7]), y=float(dataset.y[9]) + 1, method="nearest")
        np.testing.assert_array_equal(point.values, dataset.band_data.values[:, 9, 7])


def test_travels_between_processes(scene: Path) -> None:
    with ltchm_geo.open(scene) as dataset:
        again = pickle.loads(pickle.dumps(dataset))
        np.testing.assert_array_equal(again.band_data.values, pixels())
        assert again.band_data.data.name == dataset.band_data.data.name
        again.close()


def test_a_changed_file_gives_another_dask_name(tiny: Path, tmp_path: Path) -> None:
    names = []
    for quality in (10, 90):
        path = ltchm_geo.compress_raster(COAST, tmp_path / "a.ltchm", quality=quality, overwrite=True).path
        with ltchm_geo.open(path) as dataset:
            names.append(dataset.band_data.data.name)
    assert names[0] != names[1]


def test_no_scene(tmp_path: Path) -> None:
    with pytest.raises(NotAContainerError):
        ltchm_geo.open(COAST)
    with pytest.raises(NotAContainerError, match="no such file"):
        ltchm_geo.open(tmp_path / "a.ltchm")
