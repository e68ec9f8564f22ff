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
