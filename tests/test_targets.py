from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rasters import smooth, write_tif

from ltchm_geo import compress_raster, targets
from ltchm_geo.engine import load_engine
from ltchm_geo.errors import UsageError
from ltchm_geo.plan import describe_scene
from ltchm_geo.raster import open_source
from ltchm_geo.settings import CompressSettings
from ltchm_geo.tiles import TileGrid
from ltchm_geo.timing import StageClock
from ltchm_geo.types import TileIndex

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    pixels = smooth(3, 256, 384) + np.random.default_rng(5).integers(0, 12, (3, 256, 384)).astype(np.uint8)
    return write_tif(tmp_path / "a.tif", pixels)


def test_sizes_are_hit(source: Path, tmp_path: Path) -> None:
    small, large = (compress_raster(source, tmp_path / f"{q}.ltchm", quality=q) for q in (20, 70))
    wanted = (small.bpp + large.bpp) / 2
    found = compress_raster(source, tmp_path / "a.ltchm", target_bpp=wanted)
    assert found.bpp == pytest.approx(wanted, rel=0.02)
    assert found.bytes == found.path.stat().st_size
    wanted = found.ratio
    assert compress_raster(source, tmp_path / "b.ltchm", target_ratio=wanted).ratio == pytest.approx(wanted, rel=0.02)
    assert not list(tmp_path.glob("*checking*"))


def test_a_psnr_is_hit(source: Path, tmp_path: Path) -> None:
    low, high = (compress_raster(source, tmp_path / f"{q}.ltchm", quality=q, measure=True) for q in (20, 90))
    wanted = float(np.mean([*(low.psnr or ()), *(high.psnr or ())]))
    found = compress_raster(source, tmp_path / "a.ltchm", target_psnr=wanted)
    assert np.mean(found.psnr or ()) == pytest.approx(wanted, rel=0.02)


def test_alpha_counts(tmp_path: Path) -> None:
    """An alpha band that takes most of the bytes is part of the size from the first guess on."""
    rng = np.random.default_rng(5)
    pixels = smooth(4, 256, 384) + rng.integers(0, 12, (4, 256, 384)).astype(np.uint8)
    pixels[3] = 255 * rng.integers(0, 2, (256, 384))
    path = write_tif(tmp_path / "a.tif", pixels, ["red", "green", "blue", "alpha"])
    small, large = (compress_raster(path, tmp_path / f"{q}.ltchm", quality=q) for q in (1, 100))
    for part in (0.1, 0.5, 0.9):
        wanted = small.bpp + part * (large.bpp - small.bpp)
        found = compress_raster(path, tmp_path / "a.ltchm", target_bpp=wanted, overwrite=True)
        assert found.bpp == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("fixed", [0, 3000, 30_000, 100_000])
def test_few_passes_are_enough(fixed: int, source: Path) -> None:
    """However far the sample is from the scene: here it knows nothing of bytes that are always there."""

    def figure(level: float) -> float:
        return float(np.log2(fixed + 500 * 2 ** (level / 20)))

    with open_source(source) as opened:
        target = targets._Target(opened, CompressSettings(target_bpp=1))
    for wanted in np.arange(0.1, 112, 3):
        target.wanted = figure(wanted)
        curve = targets._Curve([np.log2(700 * 2 ** (level / 24)) for level in targets._CURVE])
        level = curve.next_level(target)
        while level is not None:
            curve.tried[level] = figure(level)
            close = abs(target.miss(curve.tried[level])) < targets._CLOSE
            level = None if close else curve.next_level(target)
        assert len(curve.tried) <= targets._PASSES
        assert min(abs(target.miss(found)) for found in curve.tried.values()) < 1


def test_what_is_not_found_is_not_called_impossible(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    between = compress_raster(source, tmp_path / "50.ltchm", quality=50).bpp
    monkeypatch.setattr(targets, "_sampled", lambda *_: [0.0, 1.0, 2.0, 3.0, 40.0])
    monkeypatch.setattr(targets, "_PASSES", 1)
    with pytest.raises(UsageError, match=r"was not found in 1 passes: .* bpp \(lambda [\d.e+]+\) came nearest"):
        compress_raster(source, tmp_path / "a.ltchm", target_bpp=between)


def test_what_cannot_be_reached_is_told_with_what_can(source: Path, tmp_path: Path) -> None:
    for options, words in [
        ({"target_bpp": 1e-4}, "target_bpp of 0.0001 cannot be reached .* about .* bpp"),
        ({"target_ratio": 1.01}, "target_ratio of 1.01 cannot"),
        ({"target_psnr": 90}, "about .* dB to .* dB can"),
    ]:
        with pytest.raises(UsageError, match=words):
            compress_raster(source, tmp_path / "a.ltchm", **options)
    assert sorted(tmp_path.iterdir()) == [source]


def test_what_lies_beyond_the_edge_is_not_judged(tmp_path: Path) -> None:
    """The sample's PSNR is that of the scene, of tiles that reach beyond it, too."""
    pixels = smooth(3, 140, 300) + np.random.default_rng(5).integers(0, 12, (3, 140, 300)).astype(np.uint8)
    path = write_tif(tmp_path / "a.tif", pixels)
    whole = compress_raster(path, tmp_path / "a.ltchm", lambda_=1024, seamless=False, tile_size=128, measure=True)
    with open_source(path, "lossy") as source:
        engine, grid = load_engine(device="cpu"), TileGrid(source.shape, 128)
        meta = describe_scene(source, engine, whole.level, 128, 8, StageClock())
        tiles = [TileIndex(*index) for index in np.ndindex(*grid.shape)]
        _, quality = targets._code(source, meta, engine, whole.level, tiles, decode=True)
    assert quality == pytest.approx(np.mean(whole.psnr or ()), abs=1e-6)
