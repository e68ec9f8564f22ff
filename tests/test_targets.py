from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rasters import smooth, write_tif

from ltchm_geo import compress_raster
from ltchm_geo.errors import UsageError

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
