"""`xarray.open_dataset` on compressed scenes; what `ltchm_geo.open` makes of it is in test_lazy."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401 - gives xarray objects their .rio
import xarray as xr
from decodable import DECODABLE, pixels, write_decodable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasters import COAST, pixels_of, smooth, write_tif
from scenes import MASK, SHAPE

import ltchm_geo
from ltchm_geo.container import SceneMeta
from ltchm_geo.errors import NotAContainerError, UsageError
from ltchm_geo.georef import Georef
from ltchm_geo.xarray_backend import SceneBackend

pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")

UTM = CRS.from_epsg(32650)
SOMEWHERE = Georef(crs=UTM.to_wkt(), transform=DECODABLE.georef.transform)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_decodable(tmp_path / "scene.ltchm")


def with_bands(**changes: Sequence[Any]) -> SceneMeta:
    """`DECODABLE` with other band information: a value for each of its five bands."""
    bands = list(DECODABLE.bands)
    for name, values in changes.items():
        bands = [replace(band, **{name: value}) for band, value in zip(bands, values, strict=True)]
    return replace(DECODABLE, bands=tuple(bands))


# --- which engine ----------------------------------------------------------------------------------------------------


def test_the_suffix_is_enough(scene: Path) -> None:
    with xr.open_dataset(scene) as dataset:
        assert dataset.band_data.dtype == np.uint8
        np.testing.assert_array_equal(dataset.band_data, pixels())
        np.testing.assert_array_equal(dataset["mask"], MASK)
        assert dataset.encoding["source"] == str(scene)


def test_a_folder_needs_the_engine(tmp_path: Path) -> None:
    """xarray's own Zarr engine comes first."""
    with xr.open_dataset(write_decodable(tmp_path / "scene.zarr"), engine="ltchm") as dataset:
        np.testing.assert_array_equal(dataset.band_data, pixels())


def test_guessing_is_narrow(scene: Path, tmp_path: Path) -> None:
    guess = SceneBackend().guess_can_open
    folder = write_decodable(tmp_path / "scene.zarr")
    (tmp_path / "other.zarr").mkdir()
    assert all(guess(path) for path in (scene, str(scene), tmp_path / "missing.LTCHM", folder, "s3://b/c.ltchm"))
    others = [COAST, tmp_path, tmp_path / "other.zarr", "https://a.b/c.tif", b"PK\x03\x04", scene.open("rb"), None]
    assert not any(guess(other) for other in others)
    others[5].close()
    copy = tmp_path / "scene.zip"
    copy.write_bytes(scene.read_bytes())
    assert guess(copy)


def test_looking_for_engines_loads_nothing_heavy() -> None:
    code = (
        "import sys, xarray; assert 'ltchm' in xarray.backends.list_engines()\n"
        "print(*{'torch', 'numba', 'ltchm_geo.tile_decoder'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_no_scene(tmp_path: Path) -> None:
    with pytest.raises(NotAContainerError, match="no such file"):
        xr.open_dataset(tmp_path / "a.ltchm")
    with pytest.raises(NotAContainerError):
        xr.open_dataset(COAST, engine="ltchm")


# --- what is decoded -------------------------------------------------------------------------------------------------


def test_without_chunks_it_is_lazy_too(scene: Path, touched: list[Any]) -> None:
    with xr.open_dataset(scene) as dataset:
        assert dataset.band_data.chunks is None
        part = dataset.band_data.isel(band=4, y=slice(60, 70)).isel(x=slice(150, 160))
        assert touched == []
        np.testing.assert_array_equal(part, pixels()[4, 60:70, 150:160])
    assert touched == [("g1", (0, 2)), ("g1", (1, 2))]


def test_pixels_far_apart_decode_nothing_between(scene: Path, touched: list[Any]) -> None:
    with xr.open_dataset(scene) as dataset:
        corners = dataset.band_data.isel(band=0, y=[149, 0], x=[0, 219])
        np.testing.assert_array_equal(corners, pixels()[0][np.ix_([149, 0], [0, 219])])
    assert sorted(touched) == [("g0", (0, 0)), ("g0", (0, 3)), ("g0", (2, 0)), ("g0", (2, 3))]


def test_points_decode_their_own_tiles(scene: Path, touched: list[Any]) -> None:
    y, x = xr.DataArray([5, 149, 70], dims="p"), xr.DataArray([3, 219, 100], dims="p")
    with xr.open_dataset(scene) as dataset:
        found = dataset.band_data.isel(band=[4, 0], y=y, x=x)
        assert dict(found.sizes) == {"band": 2, "p": 3}
        np.testing.assert_array_equal(found, pixels()[[4, 0]][:, y, x])
    assert {tile for _, tile in touched} == {(0, 0), (2, 3), (1, 1)}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_selection(data: st.DataObject, scene: Path) -> None:
    expected = xr.DataArray(pixels(), dims=("band", "y", "x"))
    count = data.draw(st.integers(0, 4))
    with xr.open_dataset(scene) as dataset:
        found = dataset.band_data.drop_vars(list(dataset.band_data.coords))
        for _ in range(data.draw(st.integers(1, 3))):  # lazy selections of selections
            selection: dict[str, Any] = {}
            for name in expected.dims:
                n = expected.sizes[name]
                choices: list[Any] = [st.slices(n)]
                if n:
                    number = st.integers(-n, n - 1)
                    points = st.lists(number, min_size=count, max_size=count).map(
                        lambda values: xr.DataArray(np.array(values, int), dims="p")
                    )
                    choices += [number, st.lists(number, max_size=4), *([points] if "p" not in expected.dims else [])]
                selection[str(name)] = data.draw(st.one_of(choices))
            found, expected = found.isel(selection), expected.isel(selection)
        assert found.dims == expected.dims
        np.testing.assert_array_equal(found.values, expected.values)


def test_chunks(scene: Path) -> None:
    with xr.open_dataset(scene, chunks={}) as dataset:
        assert dataset.band_data.chunks == ((5,), (128, 22), (128, 92))
        assert dataset["mask"].chunks == ((128, 22), (128, 92))
        np.testing.assert_array_equal(dataset.band_data, pixels())
    with xr.open_dataset(scene, chunks={"y": 128, "x": -1}) as dataset:
        assert dataset.band_data.chunks == ((5,), (128, 22), (220,))
        np.testing.assert_array_equal(dataset.band_data.sum("x"), pixels().sum(2))


def test_from_many_threads(scene: Path) -> None:
    with xr.open_dataset(scene, cache=False) as dataset, ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda y: dataset.band_data[:, y].values, range(0, SHAPE.y, 5)))
    np.testing.assert_array_equal(np.stack(rows, 1), pixels()[:, ::5])


@pytest.mark.usefixtures("tiny")
def test_levels(tmp_path: Path) -> None:
    made = ltchm_geo.compress_raster(COAST, tmp_path / "a.ltchm", tile_size=128, shard_tiles=1, overviews=[2])
    restored = ltchm_geo.decompress_raster(made.path, tmp_path / "a.tif", level=1).path
    with xr.open_dataset(made.path, level=1, mask_and_scale=False) as dataset, rasterio.open(restored) as expected:
        np.testing.assert_array_equal(dataset.band_data, pixels_of(restored))
        assert dataset.rio.transform() == expected.transform
        assert dataset.band_data.nbytes == pixels_of(restored).nbytes
    with pytest.raises(UsageError, match="no pyramid level 2"):
        xr.open_dataset(made.path, level=2)


# --- what it means ---------------------------------------------------------------------------------------------------


def test_rioxarray_finds_the_place(tmp_path: Path) -> None:
    path = write_decodable(tmp_path / "a.ltchm", meta=replace(DECODABLE, georef=SOMEWHERE))
    with xr.open_dataset(path, chunks={}) as dataset, rasterio.open(write_tif_there(tmp_path)) as there:
        for found in (dataset, dataset.band_data, dataset.band_data * 2, dataset.band_data.isel(y=slice(0, 150))):
            assert found.rio.crs == UTM
            assert found.rio.transform() == there.transform
        assert dataset.rio.bounds() == tuple(there.bounds)
        window = dataset.band_data.rio.clip_box(500_100, 3_999_500, 500_200, 3_999_900)
        assert window.rio.transform(recalc=True).c == 500_100
        assert window.rio.reproject("EPSG:4326").rio.crs == CRS.from_epsg(4326)


def write_tif_there(folder: Path) -> Path:
    profile = {"driver": "GTiff", "height": SHAPE.y, "width": SHAPE.x, "count": 1, "dtype": "uint8", "crs": UTM}
    with rasterio.open(folder / "there.tif", "w", transform=rasterio.Affine(*SOMEWHERE.transform), **profile):
        return folder / "there.tif"


def beside_alpha(values: np.ndarray) -> np.ndarray:
    """The values, with the pixels of the alpha band as they are."""
    values[DECODABLE.alpha] = pixels()[DECODABLE.alpha]
    return values


def opaque(folder: Path) -> Path:
    """A scene of two bands without alpha."""
    source = write_tif(folder / "a.tif", smooth(2, 100, 130, low=5), nodata=10)
    with rasterio.open(source, "r+") as dataset:
        dataset.scales, dataset.offsets, dataset.units = [0.5] * 2, [-3.0] * 2, ["days"] * 2
    return ltchm_geo.compress_raster(source, lossless=True).path


def test_nodata_and_scale(tmp_path: Path) -> None:
    path = opaque(tmp_path)
    whole = pixels_of(tmp_path / "a.tif")
    with xr.open_dataset(path) as dataset:
        expected = np.where(whole == 10, np.nan, whole * 0.5 - 3)
        np.testing.assert_allclose(dataset.band_data, expected)
        assert np.isnan(expected).any()
        encoding = dataset.band_data.encoding
        assert [encoding[key] for key in ("_FillValue", "scale_factor", "add_offset")] == [10, 0.5, -3]
        assert encoding["dtype"] == np.uint8
        assert dataset.band_data.attrs["units"] == "days"
        assert dataset.band_data.rio.encoded_nodata == 10
    with xr.open_dataset(path, mask_and_scale=False) as dataset:
        assert dataset.band_data.dtype == np.uint8
        assert dataset.band_data.rio.nodata == 10
        assert dataset.band_data.attrs["scale_factor"] == 0.5


@pytest.mark.parametrize("alpha", [0.5, 1.0])
@pytest.mark.parametrize("chunks", [None, {}])
def test_alpha_is_left_alone(alpha: float, chunks: Any, tmp_path: Path) -> None:
    """Its scale and unit spoil nothing, and it has no holes; so nothing claims that it could be written as CF data."""
    scale, unit = [0.5] * 3 + [alpha, 0.5], ["days"] * 3 + [None, "days"]
    path = write_decodable(tmp_path / "a.ltchm", meta=with_bands(nodata=[10] * 5, scale=scale, unit=unit))
    with xr.open_dataset(path, chunks=chunks) as dataset:
        expected = beside_alpha(np.where(pixels() == 10, np.nan, pixels() * 0.5))
        np.testing.assert_array_equal(dataset.band_data, expected)
        assert np.isnan(dataset.band_data[:3]).any()
        np.testing.assert_array_equal(dataset.band_data.isel(band=[3, 0], y=[5, 149]), expected[[3, 0]][:, [5, 149]])
        assert dataset.band_data.attrs["units"] == "days"
        assert dataset.band_data.encoding.keys().isdisjoint({"_FillValue", "scale_factor"})
    again = ltchm_geo.compress_raster(xr.open_dataset(path), tmp_path / "again.ltchm", lossless=True).path
    with xr.open_dataset(again) as dataset:
        np.testing.assert_array_equal(dataset.band_data, expected)


def test_nodata_beside_alpha(tmp_path: Path) -> None:
    path = write_decodable(tmp_path / "a.ltchm", meta=with_bands(nodata=[10] * 5))
    with xr.open_dataset(path) as dataset:
        np.testing.assert_array_equal(dataset.band_data, beside_alpha(np.where(pixels() == 10, np.nan, pixels())))
        assert (dataset.band_data.dtype, dataset.band_data.encoding["dtype"]) == (np.float32, np.uint8)
        again = ltchm_geo.compress_raster(dataset, tmp_path / "again.ltchm", lossless=True).path
    with xr.open_dataset(again, mask_and_scale=False) as dataset:
        np.testing.assert_array_equal(dataset.band_data, pixels())


def test_bands_of_different_scale_are_left_alone(tmp_path: Path) -> None:
    meta = with_bands(nodata=[10] * 5, scale=[0.5, 0.5, 2, 1, 1])
    path = write_decodable(tmp_path / "a.ltchm", meta=meta)
    with pytest.warns(UserWarning, match="bands differ in scale") as told:
        dataset = xr.open_dataset(path)
    assert told[0].filename == __file__
    with dataset:
        np.testing.assert_array_equal(dataset.band_data, beside_alpha(np.where(pixels() == 10, np.nan, pixels())))
        assert dataset.band_data.attrs["scales"] == [0.5, 0.5, 2, 1, 1]
        assert dataset.band_data.attrs["offsets"] == [0] * 5


def test_impossible_nodata_marks_nothing(tmp_path: Path) -> None:
    path = write_decodable(tmp_path / "a.ltchm", meta=with_bands(nodata=[-9999] * 5))
    with xr.open_dataset(path) as dataset:
        np.testing.assert_array_equal(dataset.band_data, pixels())
        assert dataset.band_data.dtype == np.uint8


def test_names_and_colours_follow_the_bands(scene: Path) -> None:
    with xr.open_dataset(scene) as dataset:
        assert dataset.band_data.attrs["long_name"] == ("B0", "B1", "B2", "B3", "B4")
        chosen = dataset.band_data.isel(band=[4, 0])
        assert chosen.band_name.values.tolist() == ["B4", "B0"]
        assert chosen.colorinterp.values.tolist() == ["undefined", "red"]
        by_name = dataset.band_data.swap_dims(band="band_name").sel(band_name="B4")
        np.testing.assert_array_equal(by_name, pixels()[4])


def test_variables_can_be_dropped(scene: Path) -> None:
    with xr.open_dataset(scene, drop_variables="mask") as dataset:
        assert set(dataset.data_vars) == {"band_data"}


@pytest.mark.filterwarnings("ignore:.*does not have a Zarr V3 specification")  # text
@pytest.mark.parametrize("chunks", [None, {}])
def test_it_can_be_saved_as_anything(chunks: Any, tmp_path: Path) -> None:
    with xr.open_dataset(opaque(tmp_path), chunks=chunks) as dataset:
        dataset.to_zarr(tmp_path / "plain.zarr", consolidated=False)
        with xr.open_zarr(tmp_path / "plain.zarr", consolidated=False, mask_and_scale=False) as again:
            np.testing.assert_array_equal(again.band_data, pixels_of(tmp_path / "a.tif"))
        with xr.open_zarr(tmp_path / "plain.zarr", consolidated=False, decode_coords="all") as again:
            xr.testing.assert_allclose(again, dataset)
            assert again.rio.crs == CRS.from_epsg(32631)


def test_closing_closes_the_file(scene: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    dataset = xr.open_dataset(scene, cache=False)
    dataset.close()
    with pytest.raises((ValueError, OSError)):
        _ = dataset.band_data.values
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before


def test_forgetting_closes_the_file(scene: Path) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        array = xr.open_dataset(scene).band_data
        gc.collect()
        np.testing.assert_array_equal(array, pixels())  # still open
        del array
        gc.collect()
    assert not told
