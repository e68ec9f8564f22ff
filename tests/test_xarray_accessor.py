"""Compressing xarray objects: what is understood (`ArraySource`), and `.ltchm.to_scene`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from rasterio.crs import CRS
from rasters import CHIAPAS, COAST, DRONE, FARMLAND, SAR, assert_restored, pixels_of, smooth, write_tif

import ltchm_geo
import ltchm_geo.xarray_accessor
from ltchm_geo.errors import DestinationError, DestinationExistsError, UnsupportedRasterError, UsageError
from ltchm_geo.masks import valid_pixels
from ltchm_geo.raster import Source, open_source
from ltchm_geo.types import PixelBox, Shape2d

pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")

UTM = CRS.from_epsg(32631)
TRANSFORM = rasterio.Affine(10, 0, 500_000, 0, -10, 4_000_000)
HEIGHT, WIDTH = 40, 60


def array(pixels: Any = None, **changes: Any) -> xr.DataArray:
    """A raster as rioxarray would give it, (band, y, x)."""
    pixels = smooth(3, HEIGHT, WIDTH) if pixels is None else pixels
    coords = {"x": 500_005 + 10.0 * np.arange(WIDTH), "y": 3_999_995 - 10.0 * np.arange(HEIGHT)}
    dims = ("band", "y", "x")[-pixels.ndim :]
    found = xr.DataArray(pixels, dims=dims, coords=coords, **changes)
    return found.rio.write_crs(UTM)


def source_of(src: xr.DataArray | xr.Dataset) -> Source:
    with open_source(src) as source:
        return source


def everything(source: Source) -> Any:
    return source.read(PixelBox(0, 0, *source.shape), range(len(source.bands)))


# --- what is understood ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [COAST, CHIAPAS, FARMLAND, SAR, DRONE], ids=lambda path: path.stem)
@pytest.mark.parametrize("chunks", [None, {"x": 100, "y": 70}])
def test_as_rioxarray_opens_it(path: Path, chunks: Any) -> None:
    with open_source(path) as expected, rioxarray.open_rasterio(path, chunks=chunks) as opened:
        found = source_of(opened)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        assert found.georef.transform == pytest.approx(expected.georef.transform, rel=1e-12)
        assert found.georef.crs == expected.georef.crs
        assert [band.nodata for band in found.bands] == [band.nodata for band in expected.bands]
        assert [band.description for band in found.bands] == [band.description for band in expected.bands]
        np.testing.assert_array_equal(everything(found), everything(expected))
        box = PixelBox(7, 11, 20, 30)
        np.testing.assert_array_equal(found.read(box, [0]), expected.read(box, [0]))


@pytest.mark.parametrize("path", [COAST, CHIAPAS, SAR], ids=lambda path: path.stem)
def test_masked_floats_become_pixels_again(path: Path) -> None:
    """As they would in to_netcdf: the encoding says what they were."""
    with rioxarray.open_rasterio(path, masked=True) as opened:
        found = source_of(opened)
        assert found.dtype == pixels_of(path).dtype
        np.testing.assert_array_equal(everything(found), pixels_of(path))
        computed = source_of(opened * 2)  # no encoding: these are floats
        assert (computed.dtype, computed.bands[0].nodata) == (opened.dtype, None)


def test_scaled_values_become_pixels_again(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pixels = smooth(2, HEIGHT, WIDTH, "uint16", 1, 10_000)
    pixels[:, :5] = 0
    write_tif(path, pixels, nodata=0)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = [0.0001] * 2, [-0.1] * 2
    with rioxarray.open_rasterio(path, mask_and_scale=True) as opened:
        found = source_of(opened)
        assert [(band.scale, band.offset, band.nodata) for band in found.bands] == [(0.0001, -0.1, 0)] * 2
        np.testing.assert_array_equal(everything(found), pixels)
    with rioxarray.open_rasterio(path) as opened:
        raw = source_of(opened)
        assert raw.bands == found.bands
        np.testing.assert_array_equal(everything(raw), pixels)


def test_values_that_do_not_fit_their_encoding() -> None:
    packed = array(smooth(1, HEIGHT, WIDTH, "float32"))
    packed.encoding = {"dtype": "uint8", "scale_factor": 0.5}
    with pytest.raises(UsageError, match="drop_encoding"):
        everything(source_of(packed))
    packed.encoding["scale_factor"] = 1.0
    packed[0, 0, 0] = np.nan
    with pytest.raises(UsageError, match="_FillValue"):
        everything(source_of(packed))


@pytest.mark.parametrize("nodata", [np.nan, np.inf, -1, 255.5])
def test_nodata_that_no_pixel_can_hold_marks_nothing(nodata: float) -> None:
    found = source_of(array(attrs={"_FillValue": nodata}))
    assert str(found.bands[0].nodata) == str(nodata)
    assert valid_pixels(everything(found), [band.nodata for band in found.bands]).all()
    packed = array(smooth(1, HEIGHT, WIDTH, "float32"))
    packed.encoding = {"dtype": "uint8", "_FillValue": nodata}
    packed[0, 0, 0] = np.nan
    with pytest.raises(UsageError, match="do not fit the uint8"):
        everything(source_of(packed))


def test_nodata_of_64_bits() -> None:
    exact = array(smooth(1, HEIGHT, WIDTH, "int64"), attrs={"_FillValue": np.int64(2**60 + 1)})
    with open_source(exact, "exact") as source:
        assert source.bands[0].nodata == 2**60 + 1


def test_a_plane_and_other_orders() -> None:
    plane = array(smooth(1, HEIGHT, WIDTH)[0], name="ndvi")
    found = source_of(plane)
    assert (found.shape, found.bands[0].description, found.mask_kind) == (Shape2d(HEIGHT, WIDTH), "ndvi", "none")
    turned = array().transpose("x", "band", "y")
    np.testing.assert_array_equal(everything(source_of(turned)), smooth(3, HEIGHT, WIDTH))
    degrees = array().rename(y="lat", x="lon")
    assert source_of(degrees).georef.transform == tuple(TRANSFORM)[:6]


def test_variables_become_bands() -> None:
    pixels = smooth(4, HEIGHT, WIDTH)
    valid = pixels[0] > 100
    dataset = xr.Dataset({"red": array(pixels[0]), "pair": array(da.from_array(pixels[1:3])), "nir": array(pixels[3])})
    dataset = dataset.assign(mask=(("y", "x"), valid)).assign_attrs(sensor="S2", orbit=7)
    found = source_of(dataset)
    assert [band.description for band in found.bands] == ["red", None, None, "nir"]
    assert [band.colorinterp for band in found.bands] == ["red", "undefined", "undefined", "undefined"]
    assert found.georef.tags == {"": {"sensor": "S2", "orbit": "7"}}
    assert found.mask_kind == "mask"
    np.testing.assert_array_equal(everything(found), pixels)
    box = PixelBox(3, 4, 10, 20)
    np.testing.assert_array_equal(found.read(box, [3, 1]), pixels[[3, 1], 3:13, 4:24])
    np.testing.assert_array_equal(found.read_mask(box), valid[3:13, 4:24])


def test_names_and_colours() -> None:
    bands = xr.DataArray(["Red", "green", "swir"], dims="band")
    found = source_of(array().assign_coords(band=bands))
    assert [(band.description, band.colorinterp) for band in found.bands] == [
        ("Red", "red"),
        ("green", "green"),
        ("swir", "undefined"),
    ]
    assert [band.description for band in source_of(array(attrs={"long_name": ("a", "", "c")})).bands] == [
        "a",
        None,
        "c",
    ]
    stale = array(attrs={"long_name": ("a", "b")})
    assert [band.description for band in source_of(stale).bands] == [None] * 3


def test_a_window_lies_where_it_lies() -> None:
    """`GeoTransform` does not follow when a window is chosen; the coordinates do."""
    window = array().rio.write_transform(TRANSFORM).isel(y=slice(10, 20), x=slice(5, None))
    assert source_of(window).georef.transform == (10, 0, 500_050, 0, -10, 3_999_900)
    row = array().rio.write_transform(TRANSFORM).isel(y=[10])
    assert source_of(row).georef.transform == (10, 0, 500_000, 0, -10, 3_999_900)


def test_geotransform_alone() -> None:
    rotated = rasterio.Affine(1, 0.5, 0, 0.5, -1, 0)
    found = array().drop_vars(["x", "y"]).rio.write_transform(rotated)
    assert source_of(found).georef.transform == tuple(rotated)[:6]
    nowhere = xr.DataArray(smooth(1, HEIGHT, WIDTH), dims=("band", "y", "x"))
    georef = source_of(nowhere).georef
    assert (georef.transform, georef.crs) == (None, None)


@pytest.mark.usefixtures("tiny")
def test_as_zarr_opens_a_scene(tmp_path: Path) -> None:
    path = ltchm_geo.compress_raster(CHIAPAS, tmp_path / "a.zarr").path
    with xr.open_zarr(path, group="0", consolidated=False, decode_coords="all") as dataset, open_source(CHIAPAS) as one:
        found = source_of(dataset)
        assert (found.georef.crs, found.georef.transform) == (one.georef.crs, one.georef.transform)
        assert [band.nodata for band in found.bands] == [-9999] * 8


# --- what is refused -------------------------------------------------------------------------------------------------


def packed(encoding: dict[str, Any]) -> xr.DataArray:
    found = array().astype("float32")
    found.encoding = encoding
    return found


def irregular() -> xr.DataArray:
    x = np.cumsum(np.linspace(9, 11, WIDTH))
    return array().assign_coords(x=x)


REFUSED = {
    "irregular": (irregular, UsageError, "coordinate x is not regular"),
    "curvilinear": (
        lambda: array().drop_vars(["x", "y"]).assign_coords(lon=(("y", "x"), np.zeros((HEIGHT, WIDTH)))),
        UsageError,
        "only lon for each pixel",
    ),
    "half located": (lambda: array().drop_vars("y"), UsageError, "only one of y and x"),
    "names": (lambda: array().assign_coords(x=[f"c{i}" for i in range(WIDTH)]), UsageError, "no numbers"),
    "unknown place": (lambda: array().assign_coords(x=np.full(WIDTH, np.nan)), UsageError, "not regular"),
    "same place": (lambda: array().assign_coords(x=np.zeros(WIDTH)), UsageError, "not regular"),
    "single column": (lambda: array().isel(x=[0]), UsageError, "one pixel wide along x"),
    "dimensions": (lambda: array().rename(y="row"), UsageError, "rename rows to y"),
    "time": (lambda: array().expand_dims("time"), UsageError, "choose one of each"),
    "no rows": (lambda: array().isel(y=[]), UsageError, "is empty"),
    "empty": (lambda: array().isel(band=[]), UsageError, "is empty"),
    "dtype": (lambda: array().astype("int32"), UnsupportedRasterError, "unsupported data type int32.*astype"),
    "complex": (lambda: array().astype("complex64"), UnsupportedRasterError, "complex64"),
    "classes": (lambda: array(attrs={"flag_meanings": "a b"}), UnsupportedRasterError, "classes"),
    "no pixels": (lambda: xr.Dataset({"a": 5}), UsageError, "no variable with pixels"),
    "mixed": (lambda: xr.Dataset({"a": array(), "b": array().astype("int16")}), UnsupportedRasterError, "mixes"),
    "sizes": (
        lambda: xr.Dataset({"a": array(), "b": array().isel(y=slice(5)).rename(y="lat", x="lon")}),
        UsageError,
        "different sizes",
    ),
    "nodata": (
        lambda: xr.Dataset({"a": array(attrs={"_FillValue": 1}), "b": array(attrs={"_FillValue": 2})}),
        UnsupportedRasterError,
        "one nodata value",
    ),
    "text as nodata": (lambda: array(attrs={"_FillValue": "none"}), UsageError, "no number"),
    "two nodata values": (lambda: array(attrs={"_FillValue": np.array([0, 1])}), UsageError, "no number"),
    "no nodata value": (lambda: array(attrs={"_FillValue": []}), UsageError, "no number"),
    "huge nodata": (lambda: array(attrs={"_FillValue": 10**400}), UsageError, "no number"),
    "scales": (lambda: array(attrs={"scales": [1, 2]}), UsageError, "2 scales"),
    "no number as scales": (lambda: array(attrs={"scales": 3}), UsageError, "1 scales"),
    "text as scale": (lambda: array(attrs={"scale_factor": "x"}), UsageError, "scale_factor 'x', which is no number"),
    "text as packing": (
        lambda: packed({"dtype": "uint8", "scale_factor": "x"}),
        UsageError,
        "scale_factor 'x', which is no number",
    ),
    "lost CRS": (
        lambda: array(attrs={"grid_mapping": "spatial_ref"}).drop_vars("spatial_ref"),
        UsageError,
        "not among its coordinates",
    ),
    "bad CRS": (lambda: array().assign_coords(spatial_ref=((), 0, {"crs_wkt": "?"})), UsageError, "write_crs"),
    "bad transform": (
        lambda: array().assign_coords(spatial_ref=((), 0, {"GeoTransform": "1 2"})),
        UsageError,
        "six numbers",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    make, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        source_of(make())


def test_variables_without_a_place_are_left_out() -> None:
    """CF keeps the bounds of coordinates beside the pixels."""
    bounds = xr.DataArray(np.zeros((HEIGHT, 2)), dims=("y", "bnds"))
    source = source_of(xr.Dataset({"y_bnds": bounds, "a": array(), "when": ("time", [1, 2])}))
    assert len(source.bands) == array().sizes["band"]
    with pytest.raises(UsageError, match="y_bnds has dimensions"):
        source_of(xr.Dataset({"y_bnds": bounds}))


def test_half_a_character_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedRasterError, match="no Unicode text: mend or drop it"):
        array(attrs={"history": "bad \ud800 text"}).ltchm.to_scene(tmp_path / "a.ltchm", lossless=True)


# --- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("path", [COAST, CHIAPAS], ids=lambda path: path.stem)
def test_same_scene_as_from_the_file(path: Path, tmp_path: Path) -> None:
    expected = ltchm_geo.compress_raster(path, tmp_path / "a.ltchm").path
    with rioxarray.open_rasterio(path, chunks={"y": 50}) as opened:
        opened = opened.drop_vars("band")
        result = opened.ltchm.to_scene(tmp_path / "b.ltchm", measure=True)
    assert result.psnr is not None
    first, second = (ltchm_geo.decompress_raster(p, p.with_suffix(".tif")).path for p in (expected, result.path))
    np.testing.assert_array_equal(pixels_of(first), pixels_of(second))


def test_classes_are_kept_as_the_refusal_says(tmp_path: Path) -> None:
    """`to_scene` takes whatever `compress_raster` takes."""
    classes = array(smooth(1, HEIGHT, WIDTH, "uint8", 0, 5), attrs={"flag_values": [0, 1, 2, 3, 4]})
    with pytest.raises(UnsupportedRasterError, match="lossless=True"):
        classes.ltchm.to_scene(tmp_path / "a.ltchm")
    result = classes.ltchm.to_scene(tmp_path / "a.ltchm", lossless=True, verify=True, tile_size=128)
    with ltchm_geo.open(result.path) as dataset:
        np.testing.assert_array_equal(next(iter(dataset.data_vars.values())).squeeze(), classes.squeeze())


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("path", [FARMLAND, DRONE], ids=lambda path: path.stem)
def test_a_scene_opened_and_written_is_the_same_raster(path: Path, tmp_path: Path) -> None:
    """Names, colours, tags, nodata, alpha, CRS: all of it comes along."""
    scene = ltchm_geo.compress_raster(path, tmp_path / "a.ltchm").path
    with xr.open_dataset(scene, chunks={}) as dataset:
        again = dataset.ltchm.to_scene(tmp_path / "b.ltchm", quality=90).path
    restored = ltchm_geo.decompress_raster(scene, tmp_path / "a.tif").path
    assert_restored(restored, ltchm_geo.decompress_raster(again, tmp_path / "b.tif").path)


@pytest.mark.usefixtures("tiny")
def test_a_mask_band_comes_along(tmp_path: Path) -> None:
    valid = smooth(1, HEIGHT, WIDTH)[0] > 90
    path = write_tif(tmp_path / "a.tif", smooth(1, HEIGHT, WIDTH), mask=valid)
    scene = ltchm_geo.compress_raster(path).path
    with ltchm_geo.open(scene) as dataset:
        again = ltchm_geo.compress_raster(dataset, tmp_path / "b.ltchm").path
    with ltchm_geo.open(again) as dataset:
        np.testing.assert_array_equal(dataset["mask"], valid)


@pytest.mark.usefixtures("tiny")
def test_pixels_are_computed_shard_by_shard(tmp_path: Path) -> None:
    sizes: list[int] = []

    def note(block: Any) -> Any:
        sizes.append(block.size)
        return block

    pixels = da.from_array(smooth(1, 300, 280), chunks=(1, 128, 128)).map_blocks(note, dtype="uint8", meta=np.empty(0))
    large = xr.DataArray(pixels, dims=("band", "y", "x"))
    cut = {"tile_size": 128, "shard_tiles": 1, "seamless": False}
    made = ltchm_geo.compress_raster(large, tmp_path / "a.ltchm", workers=1, **cut)
    assert max(sizes) <= 128 * 128
    assert len(sizes) == 9  # each once: 8 bit integers need no survey
    assert made.source_bytes is None
    assert made.raw_bytes == 300 * 280


@pytest.mark.usefixtures("tiny")
def test_the_scene_being_read_is_not_overwritten(tmp_path: Path) -> None:
    path = ltchm_geo.compress_raster(COAST, tmp_path / "a.ltchm").path
    before = path.read_bytes()
    with ltchm_geo.open(path) as dataset, pytest.raises(DestinationError, match="source itself"):
        dataset.ltchm.to_scene(path, overwrite=True)
    with pytest.raises(DestinationExistsError):
        array().ltchm.to_scene(path)
    assert path.read_bytes() == before


def test_a_destination_must_be_named() -> None:
    with pytest.raises(UsageError, match="say where"):
        ltchm_geo.compress_raster(array())
