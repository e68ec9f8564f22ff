"""Disks that fill up or fail, clocks that are wrong, and folders that may not be written."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decodable import DECODABLE, colours, write_decodable
from rasters import smooth, write_tif
from scenes import ALPHA, MASK, SHARDS, put_plane

import ltchm_geo
from ltchm_geo import _sink
from ltchm_geo.bitstream import TileMode, TilePayload
from ltchm_geo.container import ContainerWriter
from ltchm_geo.errors import DestinationError

SMALL: dict[str, Any] = {"tile_size": 128, "shard_tiles": 1}
FORMS = ["scene.ltchm", "scene.zarr"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of 256 KiB; remount it read-only with `remount`."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if not sys.platform.startswith("linux") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs to mount a file system, which root may on Linux")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    """A raster that takes some 300 kB however it is stored."""
    return write_tif(tmp_path / "a.tif", np.random.default_rng(0).integers(0, 60_000, (1, 384, 384)).astype(np.uint16))


@pytest.mark.parametrize("name", FORMS)
def test_a_full_disk(name: str, small_disk: Path, noisy: Path, tiny: Path) -> None:
    with pytest.raises(DestinationError, match="disk full"):
        ltchm_geo.compress_raster(noisy, small_disk / name, lossless=True, **SMALL)
    assert list(small_disk.iterdir()) == []


def test_a_full_disk_while_restoring(small_disk: Path, noisy: Path, tiny: Path, tmp_path: Path) -> None:
    scene = ltchm_geo.compress_raster(noisy, tmp_path / "a.ltchm", lossless=True, **SMALL).path
    with pytest.raises(DestinationError, match=r"disk full|cannot be written"):
        ltchm_geo.decompress_raster(scene, small_disk / "a.tif")
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("name", FORMS)
def test_a_file_system_that_is_read_only(name: str, small_disk: Path, tiny: Path) -> None:
    """Scenes are read there, with nothing written beside them; writing says why it cannot."""
    scene = write_decodable(small_disk / name)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert ltchm_geo.verify(scene, deep=True).ok
    ltchm_geo.preview(scene, 50)
    with ltchm_geo.rasterio_open(scene) as dataset:
        dataset.read(1)
    with pytest.raises(DestinationError, match=r"[Rr]ead-only|permission"):
        ltchm_geo.decompress_raster(scene, small_disk / "out.tif")
    source = write_tif(small_disk.parent / "a.tif", smooth(1, 64, 64))
    with pytest.raises(DestinationError, match=r"Read-only|permission"):
        ltchm_geo.compress_raster(source, small_disk / f"b-{name}", **SMALL)


@pytest.mark.parametrize("name", FORMS)
def test_a_disk_that_fails_at_any_sync(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An fsync fails: an error that says so, the old scene as it was (or the new one, whole), nothing beside it."""
    path, real, calls = write_decodable(tmp_path / name), os.fsync, [0]
    before = {p: p.read_bytes() for p in [path, *path.rglob("*")] if p.is_file()}

    def failing(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] == fatal:
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(_sink.os, "fsync", failing)
    for fatal in (1, 2):  # a single file is synced once, and its folder then
        calls[0] = 0
        with pytest.raises(DestinationError, match="Input/output error"):
            overwrite(path)
        found = {p: p.read_bytes() for p in [path, *path.rglob("*")] if p.is_file()}
        if fatal == 1 or path.is_dir():
            assert found == before
        assert [p.name for p in tmp_path.iterdir()] == [name]


def overwrite(path: Path) -> None:
    with ContainerWriter(path, DECODABLE, True) as writer:
        fill(writer)
        writer.finish()


def fill(writer: ContainerWriter) -> None:
    grid = writer.grid
    for shard in SHARDS:
        for group in writer.meta.groups:
            tiles = grid.tiles_in_shard(shard)
            body = {t: TilePayload(TileMode.CONSTANT, body=colours(group.bands, t)).pack() for t in tiles}
            writer.put_shard(group.name, shard, {grid.slot(tile): data for tile, data in body.items()})
        put_plane(writer, "alpha", shard, ALPHA)
        put_plane(writer, "mask", shard, MASK)


# --- clocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [-(10**9), 0, 2**32 + 5, 2**33])
def test_files_from_the_far_past_and_future(seconds: int, tiny: Path, tmp_path: Path) -> None:
    source = write_tif(tmp_path / "a.tif", smooth(1, 140, 140))
    os.utime(source, (seconds, seconds))
    weights = Path(shutil.copytree(tiny, tmp_path / "weights"))
    for file in weights.iterdir():
        os.utime(file, (seconds, seconds))
    for resume in (False, True):
        scene = ltchm_geo.compress_raster(source, tmp_path / "a.ltchm", overwrite=True, resume=resume, **SMALL).path
        os.utime(scene, (seconds, seconds))
        assert ltchm_geo.verify(scene, deep=True).ok
    ltchm_geo.info(scene)


def test_a_clock_that_runs_backwards(monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path) -> None:
    """The same bytes as ever: no time is part of a scene, and nothing waits for the clock on the wall."""
    source = write_tif(tmp_path / "a.tif", smooth(1, 140, 140))
    first = ltchm_geo.compress_raster(source, tmp_path / "a.ltchm", workers=1, **SMALL).path.read_bytes()
    wall = [4e9]

    def backwards() -> float:
        wall[0] -= 86_400
        return wall[0]

    monkeypatch.setattr(time, "time", backwards)
    result = ltchm_geo.compress_raster(source, tmp_path / "b.ltchm", workers=1, **SMALL)
    assert result.path.read_bytes() == first
    assert result.seconds > 0
    assert all(seconds >= 0 for seconds in result.stages.values())
    assert ltchm_geo.decompress_raster(result.path, tmp_path / "b.tif").seconds > 0
