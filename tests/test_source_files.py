"""The files behind GDAL's names, and that nothing written ever replaces them."""

from __future__ import annotations

import os
import shutil
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import rasterio.shutil
from rasters import TOKYO, pixels_of, smooth, write_tif

from ltchm_geo import checked, compress_raster, decompress_raster, info, source_files, verify
from ltchm_geo.errors import DestinationBusyError, DestinationError, LtchmError, UnsupportedRasterError
from ltchm_geo.fingerprint import fingerprint, work_identity
from ltchm_geo.place import bounds_box, check_place, touched, window_box
from ltchm_geo.raster import open_source
from ltchm_geo.settings import CompressSettings
from ltchm_geo.source_files import file_behind, files_behind
from ltchm_geo.types import PixelBox, Shape2d

EXACT = {"lossless": True, "overviews": False}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tif(tmp_path / "a.tif", smooth(1, 60, 50))


@pytest.mark.parametrize(
    "name",
    ["{}", "file://{}", "GTIFF_DIR:1:{}", 'NETCDF:"{}":ndvi'],
)
def test_names_of_a_file(name: str, source: Path) -> None:
    assert file_behind(name.format(source)) == str(source)


def test_names_of_archives(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(source, "inner/a.tif")
    for name in (f"/vsizip/{path}/inner/a.tif", f"/vsizip/{{{path}}}/inner/a.tif", f"/vsizip//vsigzip/{path}/x"):
        assert file_behind(name) == str(path)
    for name in ("/vsicurl/https://host/a.tif", "s3://bucket/a.tif", "/vsimem/a.tif", "nowhere.tif"):
        assert file_behind(name) is None
    assert file_behind(str(tmp_path)) == str(tmp_path)  # a raster may be a folder
    assert files_behind(str(source), ["https://host/b.tif"]) == ({str(source)}, False)


def zipped(source: Path) -> tuple[str, Path]:
    path = source.with_name("z.zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(source, "a.tif")
    return f"/vsizip/{path}/a.tif", path


def mosaic(source: Path) -> tuple[str, Path]:
    for name, of in (("inner.vrt", source), ("outer.vrt", source.with_name("inner.vrt"))):
        rasterio.shutil.copy(of, source.with_name(name), driver="VRT")
    outer = source.with_name("outer.vrt")
    outer.write_text(outer.read_text().replace("a.tif", "inner.vrt"))
    assert "inner.vrt" in outer.read_text()
    return str(outer), source


NAMINGS: dict[str, Callable[[Path], tuple[str, Path]]] = {
    "path": lambda source: (str(source), source),
    "url": lambda source: (f"file://{source}", source),
    "directory": lambda source: (f"GTIFF_DIR:1:{source}", source),
    "mosaic": mosaic,
    "archive": zipped,
    "part": lambda source: (str(shutil.move(source, f"{source}.part")), source),
    "checking": lambda source: (str(shutil.move(source, source.with_name("a.checking.tif"))), source),
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_a_source_is_never_replaced(naming: str, source: Path, tmp_path: Path) -> None:
    name, destination = NAMINGS[naming](source)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DestinationError, match="source"):
        compress_raster(name, destination, overwrite=True, verify=True, **EXACT)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_source_inside_a_scene_is_never_replaced(source: Path, tmp_path: Path) -> None:
    folder = compress_raster(source, tmp_path / "a.zarr", **EXACT).path
    inside = Path(shutil.move(source, folder / "a.tif"))
    with pytest.raises(DestinationError, match="source"):
        compress_raster(inside, folder, overwrite=True, **EXACT)
    assert inside.exists()


@pytest.mark.parametrize("name", ["file://{}", "{}.part"])
def test_a_scene_is_never_replaced(name: str, source: Path, tmp_path: Path) -> None:
    scene = compress_raster(source, tmp_path / "a.ltchm", **EXACT).path
    if name.endswith(".part"):
        shutil.move(scene, f"{scene}.part")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DestinationError, match="scene itself"):
        decompress_raster(name.format(scene), scene, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_mosaic_is_opened_once(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, _ = mosaic(source)
    seen: list[str] = []
    opened = source_files.quiet_open
    monkeypatch.setattr(source_files, "quiet_open", lambda file: seen.append(Path(file).name) or opened(file))
    fingerprint(name)
    assert sorted(seen) == ["inner.vrt", "outer.vrt"]


def test_fingerprints_know_all_files(source: Path) -> None:
    name, _ = mosaic(source)
    before = fingerprint(name)
    assert before is not None
    os.utime(source, ns=(1, 1))
    assert fingerprint(name) != before
    inner = source.with_name("inner.vrt")
    inner.write_text(
        inner.read_text().replace('relativeToVRT="1">a.tif', 'relativeToVRT="0">/vsicurl/http://127.0.0.1:9/a.tif')
    )
    before = fingerprint(name)
    assert before is not None
    assert str(source) not in before
    assert not files_behind(name, [str(inner)]).complete
    identities = set()
    for _ in range(2):
        with open_source(name) as opened:
            identities.add(work_identity(opened, CompressSettings()))
    assert len(identities) == 2  # of what lies elsewhere nothing is known: never the same work


def test_no_two_runs_at_once(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither while a scene is checked, under another name, nor while a GeoTIFF is written."""
    looked_at, go_on = threading.Event(), threading.Event()
    original = checked.verify_scene

    def waits(*arguments: object) -> None:
        looked_at.set()
        assert go_on.wait(60)
        original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(checked, "verify_scene", waits)
    done: list[Path] = []
    first = threading.Thread(
        target=lambda: done.append(compress_raster(source, tmp_path / "a.ltchm", verify=True, **EXACT).path)
    )
    first.start()
    assert looked_at.wait(60)
    other = write_tif(tmp_path / "b.tif", 255 - smooth(1, 60, 50))
    with pytest.raises(DestinationBusyError):
        compress_raster(other, tmp_path / "a.ltchm", verify=True, **EXACT)
    go_on.set()
    first.join(60)
    assert done == [tmp_path / "a.ltchm"]

    def again(tiles: int, total: int) -> None:
        with pytest.raises(DestinationBusyError):
            decompress_raster(done[0], tmp_path / "c.tif")

    restored = decompress_raster(done[0], tmp_path / "c.tif", progress=again).path
    assert (pixels_of(restored) == pixels_of(source)).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ltchm", "a.tif", "b.tif", "c.tif"]


# --- what sources say about themselves -------------------------------------------------------------------------------


def vrt_of(source: Path, *changes: tuple[str, str]) -> Path:
    path = source.with_suffix(".vrt")
    rasterio.shutil.copy(source, path, driver="VRT")
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path.write_bytes(text.encode("latin-1"))
    return path


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_texts_in_another_encoding(dtype: str, tmp_path: Path) -> None:
    """Old files have them; they come through with question marks, and everything else as it is."""
    source = write_tif(tmp_path / "a.tif", smooth(1, 60, 50, dtype))
    with rasterio.open(source, "r+") as dataset:
        dataset.set_band_description(1, "cafXX")
        dataset.update_tags(NOTE="cafYY")
    source.write_bytes(source.read_bytes().replace(b"cafXX", b"caf\xe9\xe9").replace(b"cafYY", b"caf\xe8\xe8"))
    scene = compress_raster(source, tmp_path / "a.ltchm", **EXACT).path
    meta = info(scene).meta
    assert (meta.bands[0].description or "").startswith("caf")
    assert (pixels_of(decompress_raster(scene, tmp_path / "b.tif").path) == pixels_of(source)).all()


def test_tags_that_rasterio_cannot_write(source: Path, tmp_path: Path) -> None:
    tags = '<Metadata><MDI key="ns">x</MDI><MDI key="bidx">3</MDI><MDI key="NOTE">kept</MDI></Metadata>'
    path = vrt_of(source, ("  <VRTRasterBand", f"  {tags}\n  <VRTRasterBand"))
    scene = compress_raster(path, tmp_path / "a.ltchm", **EXACT).path
    assert info(scene).meta.georef.tags[""]["ns"] == "x"
    with rasterio.open(decompress_raster(scene, tmp_path / "b.tif").path) as dataset:
        assert dataset.tags()["NOTE"] == "kept"


@pytest.mark.parametrize("place", ['X="nan" Y="1" Z="0"', 'X="1" Y="1" Z="inf"'])
def test_a_scene_that_nobody_could_open_is_not_written(place: str, source: Path, tmp_path: Path) -> None:
    kept = compress_raster(source, tmp_path / "a.ltchm", **EXACT).path
    points = f'<GCPList Projection="EPSG:4326"><GCP Id="1" Pixel="1" Line="1" {place}/></GCPList>'
    path = vrt_of(source, ("  <VRTRasterBand", f"  {points}\n  <VRTRasterBand"))
    with pytest.raises(UnsupportedRasterError, match="control point"):
        compress_raster(path, kept, overwrite=True, **EXACT)
    assert verify(kept).ok


# --- windows and bounds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "bounds"),
    [
        ((0, 0, 1, 1), (0.0, 0.0, 1.0, 1.0)),
        ((0, 0, 1), None),
        (None, (0.0, 0.0, 1.0)),
        (None, (1.0, 0.0, 0.0, 1.0)),
        (None, (0.0, 0.0, float("nan"), 1.0)),
        (None, (0.0, 0.0, float("inf"), 1.0)),
    ],
)
def test_no_place(window: tuple[int, ...] | None, bounds: tuple[float, ...] | None) -> None:
    with pytest.raises(LtchmError):
        check_place(window, bounds)


def test_places() -> None:
    shape = Shape2d(40, 60)
    assert window_box((1, 2, 39, 58), shape) == PixelBox(1, 2, 39, 58)
    for window in ((0, 0, 41, 1), (0, 0, 1, 61), (-1, 0, 1, 1), (0, 0, 0, 1)):
        with pytest.raises(LtchmError, match="not inside"):
            window_box(window, shape)
    assert touched(((-3.0, 1.1), (58.9, 99.0)), shape) == PixelBox(0, 58, 2, 2)
    assert touched(((40.0, 41.0), (0.0, 1.0)), shape) is None
    assert touched(((2.0, 3.0), (4.0, 5.0)), shape) == PixelBox(2, 4, 1, 1)


def test_bounds_are_of_the_crs(tmp_path: Path) -> None:
    with open_source(TOKYO) as source:
        whole = source.georef.bounds(source.shape)
        assert whole is not None
        assert bounds_box(whole, source.georef, source.shape) == PixelBox(0, 0, *source.shape)
        with pytest.raises(LtchmError, match="does not touch"):
            bounds_box((0.0, 0.0, 1.0, 1.0), source.georef, source.shape)
