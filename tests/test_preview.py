from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decodable import DECODABLE, pixels, write_decodable
from rasterio.enums import Resampling
from rasters import CHIAPAS, DRONE, opened, smooth, write_classes, write_tif

import ltchm_geo
from ltchm_geo import compress_raster, quicklook
from ltchm_geo._store import member_method
from ltchm_geo.cli.main import main
from ltchm_geo.container import ContainerReader
from ltchm_geo.errors import CorruptContainerError, UsageError
from ltchm_geo.picture import Stretch, encode_picture
from ltchm_geo.types import PixelBox, TileIndex

SMALL: dict[str, Any] = {"tile_size": 128, "shard_tiles": 1}


def source_of(path: Path, dtype: str = "uint8", side: tuple[int, int] = (200, 700), **profile: Any) -> Path:
    picture = smooth(3, *side, dtype, low=100, high=250 if dtype == "uint8" else 3000)
    picture[:, :60, :200] = 0
    return write_tif(path, picture, ("red", "green", "blue"), nodata=0, **profile)


def add_preview(scene: Path, data: bytes) -> Path:
    """The scene file with these bytes as its preview."""
    with zipfile.ZipFile(scene) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content["preview.jpg"] = data
    with zipfile.ZipFile(scene, "w") as archive:
        for name, stored in content.items():
            archive.writestr(name, stored, member_method(name))
    return scene


def picture_of(path: Path) -> np.ndarray:
    with opened(path) as dataset:
        found: np.ndarray = dataset.read()
        return found


# --- stored ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("name", ["a.ltchm", "a.zarr"])
def test_what_is_stored_is_an_ordinary_picture_of_the_source(
    dtype: str, name: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = compress_raster(source_of(tmp_path / "a.tif", dtype), tmp_path / name, preview=True, **SMALL).path
    if path.is_dir():
        jpeg = path / "preview.jpg"
    else:
        with zipfile.ZipFile(path) as archive:
            jpeg = Path(archive.extract("preview.jpg", tmp_path))
    with opened(jpeg) as dataset:
        assert (dataset.driver, dataset.count, dataset.shape) == ("JPEG", 3, (146, 512))
    monkeypatch.setattr(ContainerReader, "tile_payload", None)  # nothing is decoded
    found = ltchm_geo.preview(path)
    assert found.shape == (146, 512, 3)
    np.testing.assert_array_equal(found, picture_of(jpeg).transpose(1, 2, 0))
    assert (found[:30, :128] > 245).all()  # no data
    with opened(tmp_path / "a.tif") as dataset:
        expected = dataset.read(out_shape=(3, 146, 512), resampling=Resampling.average).transpose(1, 2, 0)
    for band in range(3):  # which the untrained network would never give
        assert np.corrcoef(found[50:, :, band].ravel(), expected[50:, :, band].ravel())[0, 1] > 0.97
    if dtype == "uint8":
        assert abs(found[50:].astype(float) - expected[50:]).mean() < 5


def test_one_band_is_grey(tiny: Path, tmp_path: Path) -> None:
    path = compress_raster(write_tif(tmp_path / "a.tif", smooth(1, 100, 130)), preview=True, **SMALL).path
    with ContainerReader(path) as reader:
        (tmp_path / "a.jpg").write_bytes(reader.preview() or b"")
    with opened(tmp_path / "a.jpg") as dataset:
        assert (dataset.count, dataset.shape) == (1, (100, 130))
    found = ltchm_geo.preview(path)
    assert found.shape == (100, 130, 3)
    assert (found[..., 0] == found[..., 2]).all()


@pytest.mark.parametrize("table", [True, False])
def test_classes_are_not_mixed(table: bool, tmp_path: Path) -> None:
    """3000 pixels: a preview is made of factor 4, then reduced to 512."""
    classes = np.random.default_rng(1).choice(np.array([2, 3, 7, 0], np.uint8), (1, 30, 3000))
    colors = {value: (30 * value, 0, 255 - value, 255) for value in range(10)}
    source = write_classes(tmp_path / "a.tif", classes, colors if table else None, nodata=0)
    expected = [colors[value][:3] for value in (2, 3, 7)] if table else [(0,) * 3, (51,) * 3, (255,) * 3]
    path = compress_raster(source, lossless=True, preview=True, overviews=False).path
    found = ltchm_geo.preview(path, 512, level=0)
    assert found.shape == (5, 512, 3)
    assert {tuple(color) for color in found.reshape(-1, 3).tolist()} <= {*expected, (255, 255, 255)}
    stored = ltchm_geo.preview(path)  # as JPEG, which may blur them
    assert np.abs(stored.astype(int) - found).mean() < 25


def test_values_without_a_colour_are_white() -> None:
    painted = Stretch((), (), ((1, 2, 3, 255), (4, 5, 6, 0))).apply(np.array([[[0, 1, 2, -1]]], np.int16))
    assert painted.transpose(1, 2, 0).tolist() == [[[1, 2, 3], [4, 5, 6], [255] * 3, [255] * 3]]


def test_of_a_level_that_is_not_stored(tiny: Path, tmp_path: Path) -> None:
    """2100 pixels: a preview is made of factor 2, overviews begin with 4, and there may be none."""
    source = source_of(tmp_path / "a.tif", side=(60, 2100))
    first = compress_raster(source, tile_size=128).path
    second = compress_raster(source, tmp_path / "b.ltchm", tile_size=128, overviews=False).path
    third = compress_raster(source, tmp_path / "c.ltchm", tile_size=128, overviews=(2,), preview=False).path
    with ContainerReader(first) as one, ContainerReader(second) as two, ContainerReader(third) as three:
        assert one.preview() is not None
        assert one.preview() == two.preview()
        assert three.preview() is None
        assert [overview.factor for overview in one.meta.overviews] == [4, 8]
        assert two.meta.overviews == ()


# --- asked for -------------------------------------------------------------------------------------------------------


def test_decoded(tmp_path: Path) -> None:
    scene = write_decodable(tmp_path / "a.ltchm")
    expected = pixels()[[0, 1, 2]]
    whole = ltchm_geo.preview(scene).transpose(2, 0, 1)
    with ContainerReader(scene) as reader:
        valid = reader.plane("mask", PixelBox(0, 0, *DECODABLE.shape))
    np.testing.assert_array_equal(whole, np.where(valid, expected, 255))
    assert ltchm_geo.preview(scene, 100).shape == (68, 100, 3)
    assert ltchm_geo.preview(scene, 1).shape == (1, 1, 3)
    seen: list[tuple[int, int]] = []
    ltchm_geo.preview(scene, 220, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_coarsest_level_that_suffices(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = compress_raster(CHIAPAS, tmp_path / "a.ltchm", overviews=(2, 4)).path  # 100, 50 and 25 pixels
    used: list[int] = []
    render = quicklook._render_level

    def noted(decoder: Any, level: int, *rest: Any) -> Any:
        used.append(level)
        return render(decoder, level, *rest)

    monkeypatch.setattr(quicklook, "_render_level", noted)
    for size, level in ((25, 2), (26, 1), (50, 1), (51, 0), (512, 0)):
        assert max(ltchm_geo.preview(path, size).shape) == min(size, 100)
        assert used.pop() == level
    assert max(ltchm_geo.preview(path, 80, level=2).shape) == 25
    for wrong in ({"size": 0}, {"size": 9000}, {"level": 3}):
        with pytest.raises(UsageError):
            ltchm_geo.preview(path, **wrong)


def test_the_stored_one_is_taken_only_if_it_suffices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = write_decodable(tmp_path / "a.ltchm")
    add_preview(scene, encode_picture(np.full((3, 75, 110), 99, np.uint8), "JPEG"))
    assert (ltchm_geo.preview(scene, 110) == 99).all()
    assert ltchm_geo.preview(scene, 60).shape == (41, 60, 3)
    assert len(np.unique(ltchm_geo.preview(scene, 111))) > 1
    assert len(np.unique(ltchm_geo.preview(scene, 60, level=0))) > 1


# --- hostile ---------------------------------------------------------------------------------------------------------


def jpeg(*shape: int) -> bytes:
    return encode_picture(np.zeros(shape, np.uint8), "JPEG")


@pytest.mark.parametrize("data", [b"", b"nothing" * 9, jpeg(3, 4, 513), jpeg(3, 9, 9)[:200]])
def test_a_preview_that_is_none(data: bytes, tmp_path: Path) -> None:
    scene = add_preview(write_decodable(tmp_path / "a.ltchm"), data)
    with pytest.raises(CorruptContainerError, match="preview"):
        ltchm_geo.preview(scene, 9)
    assert ltchm_geo.preview(scene, 9, level=0).shape == (6, 9, 3)


def test_a_preview_that_is_a_png(tmp_path: Path) -> None:
    png = encode_picture(np.zeros((3, 9, 9), np.uint8), "PNG")
    with pytest.raises(CorruptContainerError, match="not a JPEG"):
        ltchm_geo.preview(add_preview(write_decodable(tmp_path / "a.ltchm"), png), 9)


def test_an_oversized_preview(tmp_path: Path) -> None:
    scene = add_preview(write_decodable(tmp_path / "a.ltchm"), bytes(2**20 + 1))
    with pytest.raises(CorruptContainerError, match="1048577 bytes, more than the 1048576"):
        ContainerReader(scene)


def test_a_changed_preview(tiny: Path, tmp_path: Path) -> None:
    path = compress_raster(DRONE, tmp_path / "a.zarr", preview=True).path
    data = bytearray((path / "preview.jpg").read_bytes())
    data[-5] ^= 1
    (path / "preview.jpg").write_bytes(data)
    assert [problem.key for problem in ltchm_geo.verify(path).problems] == ["preview.jpg"]
    with pytest.raises(CorruptContainerError, match="not the one"):
        ltchm_geo.preview(path)


def test_a_damaged_tile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = str(write_decodable(tmp_path / "a.ltchm", broken=("g0", TileIndex(0, 0))))
    target = str(tmp_path / "a.png")
    assert main(["preview", scene, target]) == 1
    assert "tile (0, 0) of g0" in capsys.readouterr().err
    assert main(["preview", scene, target, "--allow-damaged"]) == 0
    sound = ltchm_geo.preview(write_decodable(tmp_path / "b.ltchm"))
    np.testing.assert_array_equal(picture_of(Path(target)).transpose(1, 2, 0)[64:], sound[64:])


# --- command ---------------------------------------------------------------------------------------------------------


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = write_decodable(tmp_path / "a.ltchm")
    assert main(["preview", str(scene), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    path = tmp_path / "a.png"
    assert found == {
        **{"event": "result", "path": str(path), "width": 220, "height": 150},
        "bytes": path.stat().st_size,
    }
    np.testing.assert_array_equal(picture_of(path).transpose(1, 2, 0), ltchm_geo.preview(scene))
    assert main(["preview", str(scene)]) == 2
    assert "exists" in capsys.readouterr().err
    assert main(["preview", str(scene), str(tmp_path / "b.JPG"), "--size", "50", "--level", "0"]) == 0
    assert "50 x 34 pixels" in capsys.readouterr().out
    with opened(tmp_path / "b.JPG") as dataset:
        assert (dataset.driver, dataset.shape) == ("JPEG", (34, 50))
    assert main(["preview", str(scene), str(tmp_path / "b.gif")]) == 2
    assert {p.name for p in tmp_path.iterdir()} == {"a.ltchm", "a.png", "b.JPG"}
