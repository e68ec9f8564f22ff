from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile
from rasterio.rpc import RPC
from rasterio.vrt import WarpedVRT

from ltchm_geo.errors import (
    AlreadyCompressedError,
    CorruptContainerError,
    DestinationError,
    DestinationExistsError,
    SourceError,
    SourceReadError,
    UnsupportedRasterError,
    UsageError,
)
from ltchm_geo.georef import RPC_SCALARS, RPC_VECTORS, BandInfo, Georef
from ltchm_geo.georef_rasterio import quiet_open
from ltchm_geo.raster import Source, create_geotiff, open_source
from ltchm_geo.types import PixelBox, Shape2d

DATA = Path(__file__).parent / "data"
SCENES = sorted(DATA.glob("*.tif"))
UTM = CRS.from_epsg(32631)
TRANSFORM = rasterio.Affine(10, 0.5, 500_000, -0.25, -10, 4_000_000)


def make(path: Path, pixels: np.ndarray, colors: Sequence[str] = (), **profile: Any) -> Path:
    """Write an ordinary georeferenced GeoTIFF with plain rasterio."""
    count, height, width = pixels.shape
    profile = {"crs": UTM, "transform": TRANSFORM, "photometric": "MINISBLACK"} | profile
    options = {"count": count, "height": height, "width": width, "dtype": pixels.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", **options, **profile) as dataset:
        if colors:
            dataset.colorinterp = [ColorInterp[name] for name in colors]
        dataset.write(pixels)
    return path


def whole(shape: Shape2d) -> PixelBox:
    return PixelBox(0, 0, *shape)


def copy_through(source: Source, path: Path, **keywords: Any) -> None:
    """Read a source and write it again, in pieces that do not fit the blocks, band by band."""
    with create_geotiff(path, source.shape, source.bands, source.georef, **keywords) as writer:
        for y0 in range(0, source.shape.y, 100):
            box = PixelBox(y0, 0, min(100, source.shape.y - y0), source.shape.x)
            for band in range(len(source.bands)):
                writer.write(source.read(box, [band]), box, [band])
            mask = source.read_mask(box) if source.mask_kind == "mask" else None
            if mask is not None:
                writer.write_mask(mask, box)


def assert_same(first: Source, second: Source) -> None:
    assert second.shape == first.shape
    assert second.dtype == first.dtype
    assert second.bands == first.bands
    assert second.georef == first.georef
    assert second.mask_kind == first.mask_kind
    bands = range(len(first.bands))
    np.testing.assert_array_equal(second.read(whole(first.shape), bands), first.read(whole(first.shape), bands))
    np.testing.assert_array_equal(first.read_mask(whole(first.shape)), second.read_mask(whole(first.shape)))


def assert_round_trip(path: Path, tmp_path: Path, **keywords: Any) -> None:
    with open_source(path) as source:
        copy_through(source, tmp_path / "again.tif", **keywords)
        with open_source(tmp_path / "again.tif") as again:
            assert_same(source, again)
    assert not list(tmp_path.glob("*.part*"))


# --- everything comes back -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SCENES, ids=lambda path: path.stem)
def test_real_scenes_come_back(path: Path, tmp_path: Path) -> None:
    assert_round_trip(path, tmp_path)


def test_there_are_real_scenes() -> None:
    assert len(SCENES) == 7


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize(
    "colors",
    [
        ["gray"],
        ["pan"],
        ["gray", "alpha"],
        ["gray", "undefined", "undefined"],
        ["red", "green", "blue"],
        ["blue", "green", "red"],
        ["red", "green", "blue", "alpha"],
        ["red", "green", "blue", "nir"],
        ["red", "green", "blue", "undefined", "alpha"],
        ["alpha", "red", "green", "blue"],
        ["sar_c", "sar_c"],
        ["coastal", "blue", "green", "red", "rededge", "nir", "swir"],
    ],
    ids="-".join,
)
def test_types_and_colours_come_back(dtype: str, colors: list[str], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (len(colors), 20, 300)).astype(dtype)
    assert_round_trip(make(tmp_path / "a.tif", pixels, colors), tmp_path)


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("uint8", 255),
        ("uint16", 65535),
        ("int16", -32768),
        ("int16", -9999.5),
        ("float32", float("nan")),
        ("float32", -3.4028234663852886e38),
        ("float32", float("inf")),
        ("float64", 0.1),
        ("float64", -1.7976931348623157e308),
    ],
)
def test_nodata_comes_back(dtype: str, nodata: float, tmp_path: Path) -> None:
    path = make(tmp_path / "a.tif", np.zeros((2, 9, 9), dtype), nodata=nodata)
    with open_source(path) as source:
        assert isinstance(source.bands[0].nodata, int) == (np.dtype(dtype).kind != "f" and nodata == int(nodata))
    assert_round_trip(path, tmp_path)


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("int64", 2**60 + 1), ("int64", -(2**63)), ("uint64", 2**64 - 1), ("int64", 2**53)]
)
def test_nodata_of_64_bits_comes_back(dtype: str, nodata: int, tmp_path: Path) -> None:
    """rasterio has nodata as doubles, and writes large ones as other numbers altogether."""
    pixels = np.array([[[7, nodata, nodata - 1 if nodata > 0 else nodata + 1]]], dtype)
    path = make(tmp_path / "a.tif", pixels)
    band = f'<PAMRasterBand band="1"><NoDataValue>{nodata}</NoDataValue></PAMRasterBand>'
    path.with_name("a.tif.aux.xml").write_text(f"<PAMDataset>{band}</PAMDataset>")
    with open_source(path, "exact") as source:
        assert (source.bands[0].nodata, source.mask_kind) == (nodata, "nodata")
        copy_through(source, tmp_path / "again.tif")
        with open_source(tmp_path / "again.tif", "exact") as again:
            assert_same(source, again)
    with quiet_open(tmp_path / "again.tif") as dataset:
        assert dataset.read_masks(1).tolist() == [[255, 0, 255]]


def test_nodata_beyond_the_type_marks_nothing_and_is_dropped(tmp_path: Path) -> None:
    bands = [BandInfo("uint8", nodata=-9999, colorinterp="gray")]
    with create_geotiff(tmp_path / "a.tif", Shape2d(9, 9), bands, Georef()) as writer:
        writer.write(np.zeros((1, 9, 9), np.uint8), PixelBox(0, 0, 9, 9), [0])
    with open_source(tmp_path / "a.tif") as again:
        assert again.bands[0].nodata is None


def test_tags_scales_and_names_come_back(tmp_path: Path) -> None:
    path = make(tmp_path / "a.tif", np.zeros((2, 9, 9), np.uint16))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(AREA_OR_POINT="Point", TIFFTAG_SOFTWARE="camera", KEY="a=b\n<&>", ü="ö")
        dataset.update_tags(ns="SPACE", k="v")
        dataset.update_tags(ns="xml:XMP", **{"<x:xmpmeta xmlns:x": '"adobe:ns:meta/"><a b="1"/></x:xmpmeta>'})
        dataset.update_tags(1, ns="SPACE", k="w")
        dataset.update_tags(2, wavelength="0.8")
        dataset.scales, dataset.offsets, dataset.units = (1e-4, 2.0), (-0.1, 0.0), ("W", None)
        dataset.descriptions = ("first", None)
    with open_source(path) as source:
        assert source.georef.tags["SPACE"] == {"k": "v"}
        assert source.georef.tags["xml:XMP"]["xml:XMP"].startswith("<x:xmpmeta xmlns:x=")
        assert source.georef.tags[""]["AREA_OR_POINT"] == "Point"
        assert source.bands[0].tags == {"SPACE": {"k": "w"}}
        assert source.bands[1].tags == {"": {"wavelength": "0.8"}}
        assert (source.bands[0].scale, source.bands[0].offset, source.bands[0].unit) == (1e-4, -0.1, "W")
        assert [band.description for band in source.bands] == ["first", None]
    assert_round_trip(path, tmp_path)


def test_tags_too_long_for_a_tiff_follow_in_a_side_car_file(tmp_path: Path) -> None:
    path = make(tmp_path / "a.tif", np.zeros((1, 9, 9), np.uint8))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(LONG="x" * 60_000)
    assert_round_trip(path, tmp_path)


def test_control_points_may_lack_a_crs(tmp_path: Path) -> None:
    gcp = {"row": 0.0, "col": 1.0, "x": 2.0, "y": 3.0, "z": 0.0, "id": "1", "info": ""}
    with create_geotiff(tmp_path / "a.tif", SHAPE, GRAY, Georef(gcps=(gcp, gcp | {"id": "2"}))) as writer:
        writer.write(ZEROS, whole(SHAPE), [0])
    with open_source(tmp_path / "a.tif") as again:
        assert again.georef.gcps[0] == gcp
        assert again.georef.gcps_crs is None


@pytest.mark.parametrize("point", ["Area", "Point"])
def test_control_points_come_back(point: str, tmp_path: Path) -> None:
    points = [GroundControlPoint(r, c, 2 + c / 10, 4 - r / 10, z) for r, c, z in [(0, 0, 1), (0, 9, 0), (9.5, 9, 2)]]
    path = make(tmp_path / "a.tif", np.zeros((1, 9, 9), np.uint8), crs=CRS.from_epsg(4326), transform=None, gcps=points)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(AREA_OR_POINT=point)
        dataset.gcps = (points, CRS.from_epsg(4326))
    with open_source(path) as source:
        assert len(source.georef.gcps) == 3
        assert source.georef.transform is None
    assert_round_trip(path, tmp_path)


def test_rpcs_come_back(tmp_path: Path) -> None:
    values: dict[str, Any] = {name: i / 7 for i, name in enumerate(RPC_SCALARS)}
    values |= {name: [i / 3 - 1e-12 for i in range(20)] for name in RPC_VECTORS}
    path = make(tmp_path / "a.tif", np.zeros((1, 9, 9), np.uint8), crs=None, transform=None, rpcs=RPC(**values))
    with open_source(path) as source:
        assert source.georef.rpcs is not None
        assert source.georef.rpcs["line_num_coeff"] == pytest.approx(values["line_num_coeff"])
    assert_round_trip(path, tmp_path)


@pytest.mark.parametrize(
    "crs",
    [
        "EPSG:4326",
        "EPSG:32631+5773",
        "EPSG:5498",
        "EPSG:7405",
        "EPSG:7415",
        "ESRI:54009",
        "+proj=lcc +lat_1=33 +lat_2=45 +towgs84=1,2,3",
    ],
)
def test_crs_comes_back(crs: str, tmp_path: Path) -> None:
    assert_round_trip(make(tmp_path / "a.tif", np.zeros((1, 9, 9), np.uint8), crs=crs), tmp_path)


def test_georeferencing_may_be_absent(tmp_path: Path) -> None:
    quiet_open(tmp_path / "a.png", "w", driver="PNG", width=9, height=9, count=1, dtype="uint8").close()
    with open_source(tmp_path / "a.png") as source:
        assert source.georef == Georef()
        copy_through(source, tmp_path / "b.tif")
    with open_source(tmp_path / "b.tif") as again:
        assert (again.georef.crs, again.georef.transform) == (None, None)


def test_everything_survives_json_on_the_way(tmp_path: Path) -> None:
    for path in SCENES:
        with open_source(path) as source:
            assert Georef.from_dict(json.loads(json.dumps(source.georef.to_dict()))) == source.georef
            bands = tuple(BandInfo.from_dict(json.loads(json.dumps(band.to_dict()))) for band in source.bands)
            assert bands == source.bands


# --- masks -----------------------------------------------------------------------------------------------------------


def test_internal_mask_comes_back(tmp_path: Path) -> None:
    path = make(tmp_path / "a.tif", np.full((3, 300, 300), 7, np.uint8))
    mask = np.random.default_rng(0).random((300, 300)) > 0.5
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(mask)
    with open_source(path) as source:
        assert source.mask_kind == "mask"
        np.testing.assert_array_equal(source.read_mask(PixelBox(10, 20, 30, 40)), mask[10:40, 20:60])
    assert_round_trip(path, tmp_path)
    assert not (tmp_path / "again.tif.msk").exists()


def test_alpha_is_a_mask(tmp_path: Path) -> None:
    alpha = np.array([[0, 1], [128, 255]], np.uint8)
    path = make(tmp_path / "a.tif", np.stack([alpha, alpha]), ["gray", "alpha"])
    with open_source(path) as source:
        assert (source.mask_kind, source.alpha) == ("alpha", 1)
        mask = source.read_mask(PixelBox(0, 0, 2, 2))
    assert mask is not None
    assert mask.tolist() == [[False, True], [True, True]]


@pytest.mark.parametrize(
    ("dtype", "nodata", "kind"),
    [("uint8", None, "none"), ("uint8", 0, "nodata"), ("float32", None, "nan"), ("float32", np.nan, "nan")],
)
def test_other_kinds_of_holes(dtype: str, nodata: float | None, kind: str, tmp_path: Path) -> None:
    with open_source(make(tmp_path / "a.tif", np.zeros((1, 9, 9), dtype), nodata=nodata)) as source:
        assert source.mask_kind == kind
        assert source.read_mask(PixelBox(0, 0, 9, 9)) is None


# --- reading ---------------------------------------------------------------------------------------------------------


def test_windows_and_bands_are_in_the_asked_order(tmp_path: Path) -> None:
    pixels = np.arange(3 * 40 * 50, dtype=np.uint16).reshape(3, 40, 50)
    with open_source(str(make(tmp_path / "a.tif", pixels))) as source:
        block = source.read(PixelBox(5, 7, 11, 13), [2, 0])
        assert source.nbytes_file == (tmp_path / "a.tif").stat().st_size
    assert block.dtype == np.uint16
    np.testing.assert_array_equal(block, pixels[[2, 0], 5:16, 7:20])


@pytest.mark.parametrize("box", [PixelBox(0, 0, 41, 50), PixelBox(-1, 0, 5, 5), PixelBox(0, 50, 1, 1)])
def test_windows_outside_are_refused(box: PixelBox, tmp_path: Path) -> None:
    with open_source(make(tmp_path / "a.tif", np.zeros((1, 40, 50), np.uint8))) as source, pytest.raises(UsageError):
        source.read(box, [0])


@pytest.mark.parametrize("by_path", [True, False])
def test_threads_read_the_same(by_path: bool, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (1, 256, 256)).astype(np.uint8)
    path = make(tmp_path / "a.tif", pixels, compress="deflate")
    boxes = [PixelBox(y, x, 32, 32) for y in range(0, 256, 32) for x in range(0, 256, 32)]
    with rasterio.open(path) as dataset, open_source(path if by_path else dataset) as source:
        start = threading.Barrier(4)

        def read(part: int) -> list[np.ndarray]:
            start.wait()
            return [source.read(box, [0]) for box in boxes[part::4]]

        with ThreadPoolExecutor(4) as pool:
            blocks = list(pool.map(read, range(4)))
        assert not dataset.closed
    for part, found in enumerate(blocks):
        for box, block in zip(boxes[part::4], found, strict=True):
            np.testing.assert_array_equal(block[0], pixels[0][box.slices])


def test_open_datasets_of_any_kind_are_taken(tmp_path: Path) -> None:
    path = make(tmp_path / "a.tif", np.ones((1, 40, 50), np.uint8))
    with rasterio.open(path) as dataset, WarpedVRT(dataset, crs="EPSG:4326") as warped, open_source(warped) as source:
        assert source.shape == Shape2d(*warped.shape)
    with MemoryFile(path.read_bytes()) as memory, memory.open() as dataset, open_source(dataset) as source:
        assert source.nbytes_file is None
    with pytest.raises(UsageError, match="was closed"), open_source(dataset):
        pass
    with pytest.raises(UsageError, match="int is no raster"), open_source(7):
        pass


# --- refused, with advice --------------------------------------------------------------------------------------------


def refused(src: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match) as caught, open_source(src):
        pass
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)


def test_what_is_no_raster(tmp_path: Path) -> None:
    refused(tmp_path / "none.tif", SourceError, "does not exist")
    refused(tmp_path, SourceError, "is a folder")
    (tmp_path / "empty.tif").touch()
    refused(tmp_path / "empty.tif", SourceError, "is empty")
    (tmp_path / "text.tif").write_text("no raster at all")
    refused(tmp_path / "text.tif", SourceError, "not a raster in any format")


def test_compressed_scenes(tmp_path: Path) -> None:
    (tmp_path / "a.ltchm").write_bytes(b"PK")
    refused(tmp_path / "a.ltchm", AlreadyCompressedError, "decompress it first")
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr/ltchm-manifest.json").touch()
    refused(tmp_path / "a.zarr", AlreadyCompressedError, "decompress it first")
    with zipfile.ZipFile(tmp_path / "renamed.zip", "w") as archive:
        archive.writestr("ltchm-manifest.json", "{}")
    refused(tmp_path / "renamed.zip", AlreadyCompressedError, "decompress it first")
    refused(tmp_path / "none.ltchm", SourceError, "does not exist")


@pytest.mark.parametrize("dtype", ["int8", "uint32", "int32", "int64", "uint64"])
def test_unsupported_types(dtype: str, tmp_path: Path) -> None:
    path = make(tmp_path / "a.tif", np.zeros((1, 9, 9), dtype))
    refused(path, UnsupportedRasterError, f"unsupported data type {dtype} .*--lossless")


@pytest.mark.parametrize("dtype", ["complex64", "complex_int16"])
def test_complex_numbers(dtype: str, tmp_path: Path) -> None:
    quiet_open(tmp_path / "a.tif", "w", driver="GTiff", width=9, height=9, count=1, dtype=dtype).close()
    refused(tmp_path / "a.tif", UnsupportedRasterError, "complex")


def test_palettes_classes_and_flags(tmp_path: Path) -> None:
    path = make(tmp_path / "a.tif", np.zeros((1, 9, 9), np.uint8), photometric="palette")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {0: (1, 2, 3, 255)})
    refused(path, UnsupportedRasterError, "paletted: .*-expand rgb")
    path = make(tmp_path / "b.tif", np.zeros((1, 9, 9), np.uint8))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(1, LAYER_TYPE="Thematic")
    refused(path, UnsupportedRasterError, "holds classes")
    path = make(tmp_path / "c.tif", np.zeros((1, 9, 9), np.uint8), nbits=1)
    refused(path, UnsupportedRasterError, "flags of 1 bits")
    path = make(tmp_path / "d.tif", np.zeros((2, 9, 9), np.uint8))
    names = "<CategoryNames><Category>water</Category><Category>wood</Category></CategoryNames>"
    band = f'<PAMRasterBand band="2">{names}</PAMRasterBand>'
    path.with_name("d.tif.aux.xml").write_text(f"<PAMDataset>{band}</PAMDataset>")
    refused(path, UnsupportedRasterError, "holds classes, which have names: .*--lossless")
    with open_source(path, "exact") as source:
        assert source.classes


VRT_BAND = '<VRTRasterBand dataType="{dtype}" band="{band}">{more}</VRTRasterBand>'


@pytest.mark.parametrize(
    ("size", "bands", "message"),
    [
        (9, [("Byte", ""), ("Int16", "")], "mixes data types"),
        (9, [("Byte", "<NoDataValue>0</NoDataValue>"), ("Byte", "<NoDataValue>1</NoDataValue>")], "different nodata"),
        (9, [("Byte", "<ColorInterp>Alpha</ColorInterp>")], "only an alpha band"),
        (2_000_000_000, [("Byte", "")], "header is damaged"),
    ],
)
def test_odd_vrts(size: int, bands: list[tuple[str, str]], message: str, tmp_path: Path) -> None:
    inner = "".join(VRT_BAND.format(dtype=dtype, band=i + 1, more=more) for i, (dtype, more) in enumerate(bands))
    text = f'<VRTDataset rasterXSize="{size}" rasterYSize="{size}">{inner}</VRTDataset>'
    (tmp_path / "a.vrt").write_text(text)
    refused(tmp_path / "a.vrt", UnsupportedRasterError, message)


def test_truncated_files_name_the_window(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (1, 512, 512)).astype(np.uint8)
    data = make(tmp_path / "a.tif", pixels, tiled=True).read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[: len(data) // 2])
    with open_source(tmp_path / "cut.tif") as source:
        np.testing.assert_array_equal(source.read(PixelBox(0, 0, 256, 256), [0]), pixels[:, :256, :256])
        with pytest.raises(SourceReadError, match=r"cut\.tif: cannot read rows 256-511, columns 300-399"):
            source.read(PixelBox(256, 300, 256, 100), [0])
    (tmp_path / "stub.tif").write_bytes(data[:6])
    with pytest.raises(SourceError), open_source(tmp_path / "stub.tif"):
        pass


# --- writing: all or nothing -----------------------------------------------------------------------------------------

GRAY = [BandInfo("uint8", colorinterp="gray")]
SHAPE = Shape2d(300, 300)
ZEROS = np.zeros((1, 300, 300), np.uint8)


def write(path: Path, **keywords: Any) -> None:
    with create_geotiff(path, SHAPE, GRAY, Georef(), **keywords) as writer:
        writer.write(ZEROS, whole(SHAPE), [0])


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_text("old")

    def fail() -> None:
        with create_geotiff(path, SHAPE, GRAY, Georef(), overwrite=True) as writer:
            writer.write(ZEROS, whole(SHAPE), [0])
            assert (tmp_path / "a.tif.part").exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]
    assert path.read_text() == "old"


def test_overwriting_is_asked_for_and_takes_side_cars_along(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_text("old")
    (tmp_path / "a.tif.ovr").write_text("old")
    with pytest.raises(DestinationExistsError, match="exists"):
        write(path)
    assert path.read_text() == "old"
    write(path, overwrite=True)
    with open_source(path) as source:
        assert source.shape == SHAPE
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_impossible_destinations(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match="does not exist"):
        write(tmp_path / "none/a.tif")
    with pytest.raises(DestinationError, match="is a folder"):
        write(tmp_path)


def test_a_leftover_part_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.tif.part").write_bytes(b"half a file")
    write(tmp_path / "a.tif")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_options_are_passed_on(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    georef = Georef(transform=tuple(TRANSFORM)[:6])
    options = {"COMPRESS": "zstd", "BLOCKXSIZE": "64", "blockysize": "64"}
    with create_geotiff(path, SHAPE, GRAY, georef, options) as writer:
        writer.write(ZEROS, whole(SHAPE), [0])
    with rasterio.open(path) as dataset:
        assert dataset.compression.name == "zstd"
        assert dataset.block_shapes == [(64, 64)]


def test_threads_that_hide_errors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="num_threads"):
        write(tmp_path / "a.tif", options={"NUM_THREADS": "4"})


def test_blocks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with create_geotiff(tmp_path / "a.tif", SHAPE, GRAY, Georef()) as writer:
        with pytest.raises(UsageError):
            writer.write(ZEROS.astype(np.int16), whole(SHAPE), [0])
        with pytest.raises(UsageError):
            writer.write(ZEROS, PixelBox(0, 0, 299, 300), [0])
        with pytest.raises(UsageError):
            writer.write(ZEROS, PixelBox(1, 0, 300, 300), [0])
        with pytest.raises(UsageError):
            writer.write_mask(np.ones((2, 2), bool), PixelBox(0, 0, 3, 3))


@pytest.mark.parametrize(
    "bands", [[BandInfo("uint8"), BandInfo("int16")], [BandInfo("uint8", nodata=1), BandInfo("uint8", nodata=2)]]
)
def test_bands_a_geotiff_cannot_hold_together(bands: list[BandInfo], tmp_path: Path) -> None:
    with pytest.raises(UsageError), create_geotiff(tmp_path / "a.tif", SHAPE, bands, Georef()):
        pass
    assert not list(tmp_path.iterdir())


def test_a_damaged_crs_is_the_scenes_fault(tmp_path: Path) -> None:
    with (
        pytest.raises(CorruptContainerError, match="CRS is not valid"),
        create_geotiff(tmp_path / "a.tif", SHAPE, GRAY, Georef(crs="PROJCRS[")),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(DestinationError, match=r"cannot be written: .*No space"):
        write(tmp_path / "a.tif")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(DestinationError, match="disk full"):
        write(tmp_path / "a.tif")
    assert not list(tmp_path.iterdir())


WRITE_UNDER_LIMIT = """
import resource, sys, numpy as np
from pathlib import Path
sys.path[:0] = {path!r}
from ltchm_geo.errors import DestinationError
from ltchm_geo.raster import create_geotiff
from ltchm_geo.georef import BandInfo, Georef
from ltchm_geo.types import PixelBox, Shape2d
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
noise = np.random.default_rng(0).integers(0, 255, (1, 300, 300)).astype(np.uint8)
try:
    with create_geotiff(Path(sys.argv[1]), Shape2d(300, 300), [BandInfo("uint8")], Georef()) as writer:
        writer.write(noise[:, :256], PixelBox(0, 0, 256, 300), [0])
        writer.write(noise[:, 256:], PixelBox(256, 0, 44, 300), [0])
except DestinationError:
    sys.exit(7)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs file size limits")
@pytest.mark.parametrize("limit", [300, 1_000, 50_000, 91_000])
def test_writes_that_fail_at_any_point_are_noticed(limit: int, tmp_path: Path) -> None:
    code = WRITE_UNDER_LIMIT.format(path=sys.path, limit=limit)
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.tif")], capture_output=True, check=False)
    assert result.returncode == 7, result.stderr
    assert not list(tmp_path.iterdir())
