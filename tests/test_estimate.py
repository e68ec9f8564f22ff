"""Estimates before compressing: sizes against real files, windows against real pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

import ltchm_geo
from ltchm_geo.cli.main import main
from ltchm_geo.errors import DestinationError, SourceError, UsageError
from ltchm_geo.estimate import AMPLIFICATION, _total, estimate_raster, estimate_scene
from ltchm_geo.plan import DOCUMENT_BYTES
from ltchm_geo.pyramid import automatic_factors
from ltchm_geo.sampling import spread
from ltchm_geo.settings import CompressSettings
from ltchm_geo.types import PixelBox, Shape2d

DATA = Path(__file__).parent / "data"
SCENES = sorted(DATA.glob("*.tif"))
FARMLAND = Path(__file__).parents[1] / "examples/data/farmland_rgbn.tif"


@pytest.mark.parametrize("scene", SCENES, ids=lambda path: path.stem)
def test_coding_every_tile_gives_the_size_of_the_file(scene: Path, tmp_path: Path) -> None:
    real = ltchm_geo.compress_raster(scene, tmp_path / "scene.ltchm", quality=30, overviews=False)
    found = estimate_raster(scene, quality=30, samples=10_000)
    assert found.sampled_tiles == found.tiles
    assert found.bytes == found.bytes_low == found.bytes_high
    assert abs(found.bytes - real.bytes) < 700  # documents differ with what there is to say
    assert found.raw_bytes == real.raw_bytes
    assert found.source_bytes == real.source_bytes


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # they are pictures
def test_the_window_shows_what_decompressing_would_give(tmp_path: Path) -> None:
    row, column, height, width = window = (100, 200, 180, 260)
    found = estimate_raster(FARMLAND, quality=40, window=window, samples=1, images=tmp_path)
    ltchm_geo.compress_raster(FARMLAND, tmp_path / "scene.ltchm", quality=40)
    ltchm_geo.decompress_raster(tmp_path / "scene.ltchm", tmp_path / "part.tif", window=window)
    with rasterio.open(tmp_path / "part.tif") as part, rasterio.open(found.images["restored"]) as picture:
        restored = part.read()
        np.testing.assert_array_equal(picture.read(), restored[:3])
    with rasterio.open(FARMLAND) as source, rasterio.open(found.images["original"]) as picture:
        original = source.read(window=((row, row + height), (column, column + width)))
        np.testing.assert_array_equal(picture.read(), original[:3])
    error = restored.astype(float) - original
    with rasterio.open(found.images["difference"]) as picture:
        np.testing.assert_array_equal(picture.read(), np.clip(error[:3] * AMPLIFICATION + 128, 0, 255))
    np.testing.assert_allclose(found.psnr, 10 * np.log10(255**2 / (error**2).mean(axis=(1, 2))))
    np.testing.assert_allclose(found.max_error, np.abs(error).max(axis=(1, 2)))
    assert found.window == PixelBox(*window)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40))
def test_the_sample_is_made_of_distinct_tiles_of_the_grid(rows: int, columns: int, count: int) -> None:
    found = spread(Shape2d(rows, columns), count)
    assert len(found) == len(set(found)) == min(count, rows * columns)
    assert all(0 <= tile.iy < rows and 0 <= tile.ix < columns for tile in found)


def test_the_sample_covers_the_scene() -> None:
    found = spread(Shape2d(40, 40), 24)
    quarters = {(tile.iy // 20, tile.ix // 20) for tile in found}
    assert len(quarters) == 4


def test_the_margin_shrinks_with_the_sample() -> None:
    few, many = (_total([900, 1100] * n, 64, (), preview=False) for n in (3, 25))
    assert few[1] == many[1] == 64 * 1000 + DOCUMENT_BYTES
    assert few[2] - few[0] > 3 * (many[2] - many[0]) > 0
    low, _, high = _total([1000], 64, (), preview=False)  # one tile says nothing about the spread
    assert low == DOCUMENT_BYTES
    assert high == DOCUMENT_BYTES + 3 * 64_000


def test_overviews_and_a_preview_count() -> None:
    factors = automatic_factors(Shape2d(2304, 2304))
    large = _total([1000] * 24, 81, factors, preview=True)[1]
    assert 81_000 * 1.08 < large - DOCUMENT_BYTES - 60_000 < 81_000 * 1.13


def test_settings_decide_what_is_estimated() -> None:
    def size(**options: Any) -> int:
        return estimate_scene(FARMLAND, CompressSettings(quality=30, **options), samples=4).bytes

    plain = size()
    assert 1.2 * plain < size(overviews=(2, 4)) < 1.6 * plain
    assert size(preview=True) == plain + 60_000
    assert size(seamless=False) != plain
    with pytest.raises(UsageError, match="overview factor"):
        size(overviews=(4096,))


@pytest.mark.parametrize(
    ("view", "window"),
    [
        ((0.0, 0.0, 1.0, 1.0), (0, 0, 128, 140)),  # all of it
        ((-9.0, -9.0, 9.0, 9.0), (0, 0, 128, 140)),  # far more
        ((0.0, 0.5, 0.5, 1.0), (0, 0, 64, 70)),  # its upper left quarter
        ((0.9, 0.0, 1.5, 0.1), (64, 76, 64, 64)),  # a corner: no less than 64 pixels, and inside
        ((5.0, 5.0, 6.0, 6.0), (0, 0, 128, 140)),  # elsewhere: as if nothing were said
    ],
)
@pytest.mark.parametrize("turn", ["north up", "south up"])
def test_bounds_are_the_place_on_the_map(tmp_path: Path, view, window, turn: str) -> None:
    scene = tmp_path / "scene.tif"
    with rasterio.open(DATA / "tokyo_l8_u16.tif") as source:
        pixels, profile, box, (rows, _) = source.read(), source.profile, source.bounds, source.shape
    if turn == "south up":
        a, b, c, d, e, f = profile["transform"][:6]
        profile["transform"] = rasterio.Affine(a, b, c, d, -e, f + rows * e)
        pixels = pixels[:, ::-1]
        row, column, height, width = window
        window = (rows - row - height, column, height, width)
    with rasterio.open(scene, "w", **profile) as made:
        made.write(pixels)
    x0, y0, x1, y1 = view
    width, height = box.right - box.left, box.top - box.bottom
    bounds = (box.left + x0 * width, box.bottom + y0 * height, box.left + x1 * width, box.bottom + y1 * height)
    found = estimate_raster(scene, lossless=True, bounds=bounds, samples=1)
    assert found.window == PixelBox(*window)


def test_bounds_of_a_large_scene_are_its_middle() -> None:
    with rasterio.open(FARMLAND) as source:
        found = estimate_raster(FARMLAND, lossless=True, bounds=tuple(source.bounds), samples=1)
        rows, columns = source.shape
    height, width = min(rows, 512), min(columns, 512)
    assert found.window == PixelBox((rows - height) // 2, (columns - width) // 2, height, width)


def test_bounds_elsewhere_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line warns and looks at the middle; pictures get a folder of their own."""
    folder = tmp_path / "new" / "look"
    arguments = ["estimate", str(FARMLAND), "--bounds", "0", "0", "1", "1", "--samples", "1", "--images", str(folder)]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "no place in these bounds" in captured.err
    assert sorted(path.name for path in folder.iterdir()) == ["difference.png", "original.png", "restored.png"]
    assert main(["estimate", str(FARMLAND), "--bounds", "1", "0", "0", "1"]) == 2


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_bounds_of_a_raster_without_a_place(tmp_path: Path) -> None:
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", width=90, height=70, count=1, dtype="uint8") as made:
        made.write(np.zeros((1, 70, 90), np.uint8))
    found = estimate_raster(tmp_path / "a.tif", lossless=True, bounds=(0, 0, 1, 1))
    assert found.window == PixelBox(0, 0, 70, 90)


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="window and bounds exclude each other"):
        estimate_raster(FARMLAND, window=(0, 0, 64, 64), bounds=(0, 0, 1, 1))
    with pytest.raises(UsageError, match="not inside the raster"):
        estimate_raster(FARMLAND, window=(0, 0, 5000, 10))
    with pytest.raises(UsageError, match="samples must be at least 1"):
        estimate_raster(FARMLAND, samples=0)
    (tmp_path / "file").touch()
    for folder in ("file", "file/x"):
        with pytest.raises(DestinationError, match=r"cannot write .*file"):
            estimate_raster(FARMLAND, images=tmp_path / folder)
    with pytest.raises(SourceError):
        estimate_raster(tmp_path / "nowhere.tif", images=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    scene = str(DATA / "tokyo_l8_u16.tif")
    assert main(["estimate", scene, "--quality", "20", "--images", str(tmp_path), "--json"]) == 0
    event = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert event["event"] == "result"
    assert event["sampled_tiles"] == event["tiles"] == 1
    assert event["window"] == [0, 0, 128, 140]
    assert len(event["psnr"]) == 3
    assert all(Path(path).is_file() for path in event["images"].values())
    assert main(["estimate", scene]) == 0
    assert "1 tile of 1" in capsys.readouterr().out
    options = ["--lambda", "512", "--tile-size", "128", "--overviews", "2", "--no-decorrelate"]
    assert main(["estimate", scene, *options]) == 0
    assert "2 tiles of 2" in capsys.readouterr().out
    (tmp_path / "file").touch()
    assert main(["estimate", scene, "--images", str(tmp_path / "file" / "x")]) == 1
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize("promise", [{"lossless": True}, {"max_error": 3}], ids=["lossless", "bounded"])
def test_a_guarantee_is_estimated(promise: dict[str, Any], tmp_path: Path) -> None:
    guess = estimate_raster(FARMLAND, **promise)
    result = ltchm_geo.compress_raster(FARMLAND, tmp_path / "x.ltchm", **promise)
    assert result.bytes == pytest.approx(guess.bytes, rel=0.05)
    assert max(guess.max_error) <= promise.get("max_error", 0)
