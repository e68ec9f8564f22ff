from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from decodable import DECODABLE, write_decodable
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.warp import transform
from rasters import COAST, CROPS, DRONE, masks_of, opened, pixels_of, smooth, write_tif

from ltchm_geo import compress_raster, footprint, outline
from ltchm_geo.bitstream import TileMode, TilePayload
from ltchm_geo.cli.main import main
from ltchm_geo.container import ContainerReader
from ltchm_geo.errors import CorruptTileError, UsageError
from ltchm_geo.georef import Georef
from ltchm_geo.scene_decoder import SceneDecoder
from ltchm_geo.types import PixelBox, TileIndex

SMALL: dict[str, Any] = {"tile_size": 128, "shard_tiles": 1}


def valid_of(source: Path) -> np.ndarray:
    return pixels_of(source)[3] != 0 if source == DRONE else masks_of(source).any(axis=0)


def in_pixels(feature: dict[str, Any], source: Path) -> Any:
    """The outline, given in the raster's own coordinates, as a polygon of columns and rows."""
    with opened(source) as dataset:
        a, b, c, d, e, f, *_ = ~dataset.transform
    return shapely.affinity.affine_transform(shapely.geometry.shape(feature["geometry"]), (a, b, d, e, c, f))


@pytest.mark.parametrize("source", CROPS, ids=lambda path: path.stem)
def test_an_outline_of_precision_1_is_exact(source: Path, tiny: Path, tmp_path: Path) -> None:
    path = compress_raster(source, tmp_path / "a.ltchm", overviews=(2,), **SMALL).path
    (tmp_path / "none").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTCHM_WEIGHTS", str(tmp_path / "none"))  # no network is needed
        found = in_pixels(footprint(path, precision=1, crs=None), source)
    valid = valid_of(source)
    again = rasterize([(shapely.affinity.translate(found, 0, 0), 1)], valid.shape, dtype="uint8")
    # Simplifying by half a pixel may take a corner, never a pixel's middle.
    assert (again != valid).mean() < 0.002
    assert found.area == pytest.approx(valid.sum(), rel=0.002)


@pytest.mark.parametrize("precision", [4, 16])
def test_precision(precision: int, tiny: Path, tmp_path: Path) -> None:
    path = compress_raster(COAST, tmp_path / "a.ltchm", overviews=(2, 8), **SMALL).path
    exact = in_pixels(footprint(path, precision=1, crs=None), COAST)
    coarse = in_pixels(footprint(path, precision=precision, crs=None), COAST)
    assert shapely.get_num_coordinates(coarse) < shapely.get_num_coordinates(exact)
    large = max(exact.geoms, key=lambda part: part.area)
    assert coarse.exterior.hausdorff_distance(large.exterior) <= precision
    assert shapely.box(0, 0, 300, 260).covers(coarse)


def test_longitude_and_latitude(tiny: Path, tmp_path: Path) -> None:
    path = compress_raster(COAST, tmp_path / "a.ltchm", **SMALL).path
    feature = footprint(path)
    assert "crs" not in feature
    assert feature["properties"] == {"scene": "a.ltchm", "precision": 1.0}
    found = shapely.geometry.shape(feature["geometry"])
    assert found.is_valid
    assert all(part.exterior.is_ccw for part in found.geoms)
    with opened(COAST) as dataset:
        rows, columns = np.nonzero(valid_of(COAST))
        xs, ys = rasterio.transform.xy(dataset.transform, rows, columns)
        points = shapely.points(*transform(dataset.crs, "EPSG:4326", xs, ys))
    assert shapely.contains(found, points).mean() > 0.998
    assert json.loads(json.dumps(feature)) == feature


def test_other_coordinates(tiny: Path, tmp_path: Path) -> None:
    path = compress_raster(COAST, tmp_path / "a.ltchm", **SMALL).path
    names = [footprint(path, crs=crs)["crs"]["properties"]["name"] for crs in (None, "EPSG:3857")]
    assert names == ["urn:ogc:def:crs:EPSG::32618", "urn:ogc:def:crs:EPSG::3857"]
    with pytest.raises(UsageError, match="EPSG:99999"):
        footprint(path, crs="EPSG:99999")


@pytest.mark.parametrize(
    ("code", "origin", "pixel"), [(32601, (100_000, 500_000), 1000), (4326, (170, 10), 0.1), (4326, (-185, 10), 0.1)]
)
def test_across_the_antimeridian(
    code: int, origin: tuple[float, float], pixel: float, tiny: Path, tmp_path: Path
) -> None:
    place = rasterio.Affine(pixel, 0, origin[0], 0, -pixel, origin[1])
    source = write_tif(tmp_path / "a.tif", smooth(1, 100, 140), crs=CRS.from_epsg(code), transform=place)
    found = shapely.geometry.shape(footprint(compress_raster(source, **SMALL).path)["geometry"])
    west, east = sorted(found.geoms, key=lambda part: part.bounds[0])
    assert west.bounds[0] == -180
    assert east.bounds[2] == 180
    assert west.bounds[2] < -160
    assert east.bounds[0] > 160
    assert found.area == pytest.approx(140 * 100 * (0.1 if code == 4326 else 1000 / 111_200) ** 2, rel=0.02)


@pytest.mark.parametrize(("west", "expected"), [(180, (-180, -176)), (-184, (176, 180)), (176, (176, 180))])
def test_along_the_antimeridian(west: float, expected: tuple[float, float], tmp_path: Path) -> None:
    """It touches the line, and lies on one side of it alone."""
    place = rasterio.Affine(0.04, 0, west, 0, -0.04, 10)
    source = write_tif(tmp_path / "a.tif", smooth(1, 50, 100), crs=CRS.from_epsg(4326), transform=place)
    feature = footprint(compress_raster(source, lossless=True, **SMALL).path)
    found = shapely.geometry.shape(feature["geometry"])
    assert found.geom_type == "Polygon"
    assert found.bounds == pytest.approx((expected[0], 8, expected[1], 10))


def test_lines_that_making_it_valid_leaves() -> None:
    square, line = shapely.box(0, 0, 1, 1), shapely.LineString([(2, 2), (3, 3)])
    mixed = shapely.GeometryCollection([square, line, shapely.MultiPolygon([shapely.box(5, 5, 6, 6)])])
    assert [area.bounds for area in outline._areas(mixed)] == [(0, 0, 1, 1), (5, 5, 6, 6)]
    assert outline._areas(line) == []


def test_straight_edges_are_bent(tiny: Path, tmp_path: Path) -> None:
    """The upper edge of a scene in a polar projection is no straight line in longitude and latitude."""
    place = rasterio.Affine(10_000, 0, -500_000, 0, -10_000, -1_000_000)
    source = write_tif(tmp_path / "a.tif", smooth(1, 100, 100), crs=CRS.from_epsg(3995), transform=place)
    found = shapely.geometry.shape(footprint(compress_raster(source, **SMALL).path)["geometry"])
    (longitude,), (latitude,) = transform("EPSG:3995", "EPSG:4326", [0], [-1_000_000])
    edge = found.boundary.distance(shapely.Point(longitude, latitude))
    assert edge < 0.05  # degrees; the corners alone would be off by one
    assert shapely.get_num_coordinates(found) > 8


def test_holes_and_islands_smaller_than_the_precision(tiny: Path, tmp_path: Path) -> None:
    pixels = smooth(1, 200, 200)
    pixels[0, 50:53, 50:53] = pixels[0, 100:140, 20:60] = pixels[0, :, 150:] = 0
    pixels[0, 100:102, 180:182] = 9
    path = compress_raster(write_tif(tmp_path / "a.tif", pixels, nodata=0), **SMALL).path
    fine, coarse = (shapely.geometry.shape(footprint(path, precision=p, crs=None)["geometry"]) for p in (1, 6))
    assert (len(fine.geoms), len(fine.geoms[0].interiors) + len(fine.geoms[1].interiors)) == (2, 2)
    assert (coarse.geom_type, len(coarse.interiors)) == ("Polygon", 1)


def test_nothing_valid(tiny: Path, tmp_path: Path) -> None:
    source = write_tif(tmp_path / "a.tif", np.zeros((1, 90, 90), np.uint8), nodata=0)
    path = compress_raster(source, **SMALL).path
    assert footprint(path)["geometry"] is None
    assert main(["footprint", str(path), str(tmp_path / "a.geojson")]) == 0


def test_exact_tiles_count_as_well(tiny: Path, tmp_path: Path) -> None:
    """Tiles stored without the network have their holes in their pixels."""
    pixels, valid = np.full((2, 128, 256), 7, "float32"), np.ones((128, 256), bool)
    pixels[0, 5:9, 5:9] = pixels[1, 5:9, 5:9] = np.nan
    pixels[0, 9, 9], valid[100:, 130:] = np.nan, False
    for mask in (None, valid):
        source = write_tif(tmp_path / "a.tif", pixels, mask=mask, nodata=np.nan)
        result = compress_raster(source, overwrite=True, **SMALL)
        expected = ~np.isnan(pixels).all(axis=0) & (valid if mask is not None else True)
        with ContainerReader(result.path) as reader:
            found = SceneDecoder(reader).read_valid(PixelBox(0, 0, 128, 256))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("nodata", "bits"), [(np.nan, 0xFFC00000), (0.0, 0x80000000)])
def test_holes_have_more_than_one_form(nodata: float, bits: int, tmp_path: Path) -> None:
    """Exact tiles of one value keep the bits of NaN, and -0.0."""
    pixels = np.full((1, 128, 256), 7, "float32")
    pixels.view(np.uint32)[:, :, :128] = bits
    source = write_tif(tmp_path / "a.tif", pixels, nodata=nodata)
    path = compress_raster(source, lossless=True, **SMALL).path
    with ContainerReader(path) as reader:
        assert TilePayload.unpack(reader.tile_payload("g0", TileIndex(0, 0))).mode == TileMode.CONSTANT
        found = SceneDecoder(reader).read_valid(PixelBox(0, 0, 128, 256))
    assert not found[:, :128].any()
    assert found[:, 128:].all()


def test_a_scene_without_place(tmp_path: Path) -> None:
    scene = write_decodable(tmp_path / "a.ltchm")
    with pytest.raises(UsageError, match="no coordinate system"):
        footprint(scene)
    found = shapely.geometry.shape(footprint(scene, crs=None)["geometry"])
    assert found.bounds[0] >= 5e5  # it has a transform


def test_a_coordinate_system_of_its_own(tmp_path: Path) -> None:
    """A building site's, say: nothing leads from it to longitude and latitude."""
    georef = Georef(crs='LOCAL_CS["site",UNIT["metre",1]]', transform=(1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
    scene = write_decodable(tmp_path / "a.ltchm", meta=replace(DECODABLE, georef=georef))
    with pytest.raises(UsageError, match=r"nothing leads from .* to EPSG:4326: ask for its own .*--crs own"):
        footprint(scene)
    assert footprint(scene, crs=None)["geometry"] is not None


def test_pixels_without_area(tmp_path: Path) -> None:
    georef = Georef(crs=CRS.from_epsg(32631).to_wkt(), transform=(1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    scene = write_decodable(tmp_path / "a.ltchm", meta=replace(DECODABLE, georef=georef))
    with pytest.raises(UsageError, match="no area"):
        footprint(scene)


def test_too_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = write_decodable(tmp_path / "a.ltchm")
    monkeypatch.setattr(outline, "_MAX_PIXELS", 1000)
    with pytest.raises(UsageError, match="too fine"):
        footprint(scene, crs=None)
    for precision in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="positive"):
            footprint(scene, precision=precision, crs=None)


def test_damage_is_an_error(tiny: Path, tmp_path: Path) -> None:
    path = compress_raster(COAST, tmp_path / "a.zarr", **SMALL).path
    shard = path / "0/g0/c/0/1/1"
    data = bytearray(shard.read_bytes())
    data[9] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CorruptTileError, match=r"tile \(1, 1\) of g0"):
        footprint(path)


def test_command(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = str(compress_raster(COAST, tmp_path / "a.ltchm", **SMALL).path)
    assert main(["footprint", scene]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == footprint(scene)
    target = tmp_path / "a.geojson"
    assert main(["footprint", scene, str(target), "--crs", "own", "--precision", "8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["footprint"] == json.loads(target.read_text()) == footprint(scene, precision=8, crs=None)
    assert main(["footprint", scene, str(target)]) == 2
    assert "exists" in capsys.readouterr().err
    assert main(["footprint", scene, str(target), "--overwrite"]) == 0
    assert "MultiPolygon of" in capsys.readouterr().out
    assert {p.name for p in tmp_path.iterdir()} == {"a.ltchm", "a.geojson"}
