"""What power cuts, kill -9 and bit rot leave behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasters import COAST, pixels_of, smooth, write_tif

from ltchm_geo import compress_raster, decompress_raster, verify
from ltchm_geo.container import ContainerReader
from ltchm_geo.errors import CorruptTileError, LtchmError
from ltchm_geo.types import TileIndex

SMALL: dict[str, Any] = {"tile_size": 128, "shard_tiles": 1}
CHILD = """
import os, signal, sys
from ltchm_geo import compress_raster, decompress_raster

def progress(done, total):
    assert total == 12
    if done == 5:
        print("middle", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

run = {"compress": compress_raster, "decompress": decompress_raster}[sys.argv[1]]
options = {"tile_size": 128, "shard_tiles": 1} if sys.argv[1] == "compress" else {}
run(sys.argv[2], sys.argv[3], overwrite=True, progress=progress, **options)
"""

pytestmark = [
    pytest.mark.usefixtures("tiny"),
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no kill -9"),
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tif(tmp_path / "source.tif", smooth(3, 128 * 3, 128 * 4))


def child(verb: str, source: Path, target: Path) -> list[Any]:
    return [sys.executable, "-c", CHILD, verb, source, target]


def snapshot(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in [path, *path.rglob("*")] if p.is_file()}


@pytest.mark.parametrize("name", ["scene.ltchm", "scene.zarr"])
def test_kill_while_compressing(name: str, source: Path, tmp_path: Path) -> None:
    done = subprocess.run(child("compress", source, tmp_path / name), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "middle\n"), done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{name}.part", "source.tif"]
    with pytest.raises(LtchmError):
        decompress_raster(tmp_path / f"{name}.part", tmp_path / "a.tif")
    path = compress_raster(source, tmp_path / name, **SMALL).path
    assert sorted(p.name for p in tmp_path.iterdir()) == [name, "source.tif"]
    assert verify(path).ok
    # Nothing of the dead run is in it.
    fresh = compress_raster(source, tmp_path / f"fresh-{name}", **SMALL).path
    if path.is_dir():
        assert snapshot(path) == snapshot(fresh)
    else:
        assert path.stat().st_size == fresh.stat().st_size


def test_kill_while_decompressing(source: Path, tmp_path: Path) -> None:
    scene = compress_raster(source, tmp_path / "scene.ltchm", **SMALL).path
    out = tmp_path / "out.tif"
    done = subprocess.run(child("decompress", scene, out), capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not out.exists()
    decompress_raster(scene, out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.tif", "scene.ltchm", "source.tif"]


@pytest.mark.parametrize("name", ["scene.ltchm", "scene.zarr"])
def test_one_flipped_byte(name: str, tmp_path: Path) -> None:
    # With seams closed the tiles beside it change a little: tests/test_seams.py.
    path = compress_raster(COAST, tmp_path / name, tile_size=128, shard_tiles=2, seamless=False).path
    sound = pixels_of(decompress_raster(path, tmp_path / "sound.tif").path)
    with ContainerReader(path) as reader:
        payload, key = reader.tile_payload("g0", TileIndex(0, 1)), reader.meta.shard_key("g0", TileIndex(0, 0))
    file = path / key if path.is_dir() else path
    data = bytearray(file.read_bytes())
    data[data.index(payload) + len(payload) // 2] ^= 1
    file.write_bytes(data)

    (problem,) = verify(path).problems
    assert (problem.array, problem.tile, problem.key) == ("g0", (0, 1), key)
    with pytest.raises(CorruptTileError, match=r"tile \(0, 1\) of g0"):
        decompress_raster(path, tmp_path / "a.tif")
    assert not (tmp_path / "a.tif").exists()
    rest = decompress_raster(path, tmp_path / "a.tif", allow_damaged=True)
    assert [(d.array, d.tile) for d in rest.damaged] == [("g0", (0, 1))]
    sound[:, :128, 128:256] = 0  # nodata
    np.testing.assert_array_equal(pixels_of(rest.path), sound)
