"""The web map example in a real browser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from browser import browser
from rasters import FARMLAND

import ltchm_geo
from ltchm_geo.georef_rasterio import quiet_open

EXAMPLE = Path(__file__).parent.parent / "examples" / "07_web_map.py"
MAPLIBRE = "maplibre-gl@5.24.1"


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium (package chromium)")
    return found


@pytest.fixture(scope="module")
def maplibre(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with MapLibre GL JS: where LTCHM_MAPLIBRE says, else from npm."""
    if folder := os.environ.get("LTCHM_MAPLIBRE"):
        return Path(folder)
    target = tmp_path_factory.mktemp("npm")
    if (npm := shutil.which("npm")) is None:
        pytest.skip("no npm to get MapLibre with, and no LTCHM_MAPLIBRE")
    done = subprocess.run(
        [npm, "pack", MAPLIBRE, "--silent"], cwd=target, capture_output=True, timeout=100, check=False
    )
    if done.returncode:
        pytest.skip("npm cannot get MapLibre")
    with tarfile.open(next(target.glob("*.tgz"))) as archive:
        archive.extractall(target, filter="data")
    return target / "package" / "dist"


def test_a_scene_on_a_web_map(chromium: str, maplibre: Path, tiny: Path, tmp_path: Path) -> None:
    scene = ltchm_geo.compress_raster(FARMLAND, tmp_path / "a.ltchm", overviews=(2,)).path
    command = [sys.executable, str(EXAMPLE), str(scene), "--maplibre", str(maplibre), "--minutes", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            with browser(chromium, tmp_path / "profile", (500, 500)) as page:
                page.open(url)
                assert page.wait_for_title(": shown", "error", seconds=120) == "LTCHM scene: shown"
                picture = page.screenshot()
                elsewhere = url.replace("127.0.0.1", "localhost")  # another origin, which may not read
                page.open(elsewhere)
                assert "error" in page.wait_for_title(": shown", "error", seconds=60)
        finally:
            process.terminate()
    with rasterio.MemoryFile(picture) as memory, quiet_open(memory) as dataset:
        shown = dataset.read([1, 2, 3]).astype(float)
    height, width = shown.shape[1:]
    middle = shown[:, height // 3 : -height // 3, width // 3 : -width // 3]
    assert np.ptp(middle, axis=0).mean() > 5  # colours, where the background is grey
    assert middle.std() > 5
    assert (shown[:, height // 2, 3] == 0xDD).all()
