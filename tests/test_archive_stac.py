"""STAC documents: what pystac reads in them, and what the extensions' fields say."""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pystac
import pytest
import rasterio
from pystac.extensions.file import FileExtension
from pystac.extensions.projection import ProjectionExtension
from rasters import DATA, smooth, write_tif

from ltchm_geo.archive import compress_many, run
from ltchm_geo.archive.stac import _union as around
from ltchm_geo.archive.stac import write_item
from ltchm_geo.archive.target import Target
from ltchm_geo.cli.main import main
from ltchm_geo.settings import CompressSettings

SETTINGS = CompressSettings(tile_size=128, workers=1)
SCENES = ["tokyo_l8_u16.tif", "coast_rotated_u8_nodata0.tif"]

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for name in SCENES:
        (folder / name).write_bytes((DATA / name).read_bytes())
    path = write_tif(folder / "sub" / "dated.tif", smooth(2, 90, 110, "float32"), nodata=float("nan"))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(TIFFTAG_DATETIME="2021:07:04 09:08:07")
        dataset.set_band_description(1, "near infrared")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        write_tif(folder / "nowhere.tif", smooth(1, 50, 60), crs=None, transform=rasterio.Affine.identity())
    return folder


@pytest.mark.parametrize("folders", [False, True])
def test_documents(folders: bool, sources: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = compress_many([sources], out, SETTINGS, folders=folders, stac=True)
    assert report.ok, report.failed
    collection = pystac.Collection.from_file(str(out / "collection.json"))
    items = {item.id: item for item in collection.get_items(recursive=True)}
    assert items.keys() == {"tokyo_l8_u16", "coast_rotated_u8_nodata0", "sub_dated-6552d441", "nowhere"}
    assert collection.extent.spatial.bboxes[0] == pytest.approx(_union([item.bbox for item in items.values()]))
    for scene in report.scenes:
        (item,) = (item for item in items.values() if scene.result in (item.assets["data"].get_absolute_href() or ""))
        _check_item(item, scene, out, folders)
    dated = items["sub_dated-6552d441"]
    assert dated.datetime is not None
    assert dated.datetime.isoformat() == "2021-07-04T09:08:07+00:00"
    bands = dated.assets["data"].extra_fields["bands"]
    assert bands[0] == {"name": "b1", "description": "near infrared", "data_type": "float32", "nodata": "nan"}
    assert (items["nowhere"].geometry, items["nowhere"].bbox) == (None, None)


def _union(boxes: list[list[float] | None]) -> list[float]:
    known = [box for box in boxes if box is not None]
    return [min(b[0] for b in known), min(b[1] for b in known), max(b[2] for b in known), max(b[3] for b in known)]


def _check_item(item: pystac.Item, scene: Any, out: Path, folders: bool) -> None:
    assert item.get_collection() is not None
    assert item.get_single_link("via") is not None
    assert item.get_single_link("via").href == Path(scene.source).as_uri()  # type: ignore[union-attr]
    asset = item.assets["data"]
    path = Path(asset.get_absolute_href() or "")
    assert path == out / scene.result
    assert FileExtension.ext(asset).size == scene.bytes
    hashed = item.assets["manifest"] if folders else asset
    digest = hashlib.sha256(Path(hashed.get_absolute_href() or "").read_bytes()).hexdigest()
    assert FileExtension.ext(hashed).checksum == "1220" + digest
    with rasterio.open(scene.source) as dataset:
        projection = ProjectionExtension.ext(item)
        assert projection.shape == list(dataset.shape)
        assert len(asset.extra_fields["bands"]) == dataset.count
        if dataset.crs is not None:
            assert projection.code == f"EPSG:{dataset.crs.to_epsg()}"
            assert projection.transform == list(dataset.transform)
            box = rasterio.warp.transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
            # The outline of the valid pixels lies within that of the raster, give or take a pixel.
            assert item.bbox is not None
            assert item.bbox[0] >= box[0] - 0.01
            assert item.bbox[3] <= box[3] + 0.01
    assert item.properties["ltchm:sha256"] == scene.sha256


def test_ids_differ_where_folders_do(tmp_path: Path) -> None:
    for name in ("a/b_c.tif", "a_b/c.tif", "a_b_c.tif"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        write_tif(tmp_path / "images" / name, smooth(1, 50, 60))
    compress_many([tmp_path / "images"], tmp_path / "out", SETTINGS, stac=True)
    ids = {json.loads(path.read_text())["id"] for path in (tmp_path / "out").rglob("*.stac.json")}
    assert len(ids) == 3
    assert "a_b_c" in ids
    assert not any("/" in name for name in ids)


def test_across_the_antimeridian(tmp_path: Path) -> None:
    """Boxes have their west in the east then (RFC 7946, 5.2)."""
    (tmp_path / "images").mkdir()
    for name, east in (("across", 813_000), ("before", 801_000)):  # 180 degrees are at about 819,600 m
        grid = rasterio.Affine(100, 0, east, 0, -100, 8_120_000)
        write_tif(tmp_path / "images" / f"{name}.tif", smooth(1, 100, 120), crs="EPSG:32760", transform=grid)
    report = compress_many([tmp_path / "images"], tmp_path / "out", SETTINGS, stac=True)
    assert report.ok, report.undescribed
    across, before = (json.loads((tmp_path / "out" / f"{n}.stac.json").read_text()) for n in ("across", "before"))
    west, south, east, north = across["bbox"]
    assert across["geometry"]["type"] == "MultiPolygon"
    assert (-180 < east < -179.9, 179.9 < west < 180, south < north < -16) == (True, True, True)
    assert before["bbox"][0] < before["bbox"][2] < 180
    whole = pystac.Collection.from_file(str(tmp_path / "out" / "collection.json")).extent.spatial.bboxes[0]
    assert whole == pytest.approx(
        [before["bbox"][0], min(south, before["bbox"][1]), east, max(north, before["bbox"][3])]
    )


@pytest.mark.parametrize(
    ("boxes", "whole"),
    [
        ([(170, -5, 175, 0), (-178, -1, -176, 3)], [170, -5, -176, 3]),  # on both sides
        ([(179, 0, -179, 1), (-178, 2, -170, 3)], [179, 0, -170, 3]),  # one across
        ([(179, 0, -179, 1), (10, 2, 20, 3)], [10, 0, -179, 3]),
        ([(-10, 0, 10, 1), (20, 0, 30, 1)], [-10, 0, 30, 1]),
        ([(-10, 0, 40, 1), (20, 0, 30, 1)], [-10, 0, 40, 1]),  # one within another
        ([(-180, -90, 180, 90), (179, 0, -179, 1)], [-180, -90, 180, 90]),  # the whole world
        ([(-180, 0, 0, 1), (0, 0, 180, 1)], [-180, 0, 180, 1]),
        ([(5, 6, 7, 8)], [5, 6, 7, 8]),
    ],
)
def test_union_of_boxes(boxes: list[tuple[float, ...]], whole: list[float]) -> None:
    assert around(boxes) == whole
    assert around(boxes[::-1]) == whole


def test_a_coordinate_system_of_its_own(tmp_path: Path) -> None:
    """Nothing leads from it to longitude and latitude."""
    (tmp_path / "images").mkdir()
    site = rasterio.crs.CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')
    write_tif(tmp_path / "images" / "a.tif", smooth(1, 50, 60), crs=site)
    report = compress_many([tmp_path / "images"], tmp_path / "out", SETTINGS, stac=True)
    assert report.ok
    item = json.loads((tmp_path / "out" / "a.stac.json").read_text())
    assert (item["geometry"], "bbox" in item, item["properties"]["proj:code"]) == (None, False, None)
    assert "site" in item["properties"]["proj:wkt2"]


def test_a_scene_that_cannot_be_described_stops_nothing(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, original = tmp_path / "out", run.write_item

    def write(target: Any, scene: Any) -> None:
        if scene.result == "nowhere.ltchm":
            raise ZeroDivisionError("a bug")
        original(target, scene)

    arguments = ["archive", str(sources), str(out), "--tile-size", "128", "--stac", "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr(run, "write_item", write)
        assert main(arguments) == 1
    assert "nowhere.ltchm: no STAC Item: ZeroDivisionError: a bug" in capsys.readouterr().err
    assert json.loads((out / "manifest.json").read_text())["counts"] == {"done": 4}
    links = [link["href"] for link in json.loads((out / "collection.json").read_text())["links"]]
    assert sorted(links) == [
        *("./coast_rotated_u8_nodata0.stac.json", "./collection.json", "./sub/dated.stac.json"),
        "./tokyo_l8_u16.stac.json",
    ]
    assert main(arguments) == 0
    assert (out / "nowhere.stac.json").exists()


@pytest.mark.parametrize(
    ("source", "href"),
    [
        ("/vsis3/bucket/a.tif", "/vsis3/bucket/a.tif"),
        ("s3://bucket/a.tif", "s3://bucket/a.tif"),
        ('NETCDF:"a.nc":b', 'NETCDF:"a.nc":b'),
    ],
)
def test_links_to_sources_that_are_no_files(source: str, href: str, sources: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (scene,) = compress_many([sources / SCENES[0]], out, SETTINGS).scenes
    write_item(Target.of(out), replace(scene, source=source))
    links = json.loads((out / "tokyo_l8_u16.stac.json").read_text())["links"]
    assert [link["href"] for link in links] == [*["./collection.json"] * 3, href]


def test_missing_items_are_made_up(sources: Path, tmp_path: Path) -> None:
    out, options = tmp_path / "out", {"stac": True, "include": ["*.tif"], "exclude": ["nowhere.tif"]}
    compress_many([sources], out, SETTINGS, **options)
    before = {p: p.read_bytes() for p in out.rglob("*.json") if p.name != "manifest.json"}
    item = out / "sub" / "dated.stac.json"
    item.unlink()
    outdated = out / "tokyo_l8_u16.stac.json"
    outdated.write_text(outdated.read_text().replace('"ltchm:sha256": "', '"ltchm:sha256": "0'))
    compress_many([sources], out, SETTINGS, **options)
    assert {p: p.read_bytes() for p in before} == before
    write_tif(sources / "sub" / "dated.tif", smooth(2, 90, 110, "float32", low=3))
    compress_many([sources], out, SETTINGS, **options)
    assert json.loads(item.read_text())["properties"]["ltchm:datetime_source"] == "file time"
    assert item.read_bytes() != before[item]
