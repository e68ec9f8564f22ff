"""Disks that fail, give little at a time or are slow, and scenes that are cut or replaced while they are read."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decodable import DECODABLE, pixels, write_decodable
from rasterio.errors import RasterioIOError
from rasters import pixels_of, smooth, write_tif

import ltchm_geo
from ltchm_geo import _random_access, _store
from ltchm_geo.container import ContainerReader
from ltchm_geo.errors import (
    CorruptContainerError,
    CorruptTileError,
    IncompleteContainerError,
    LtchmError,
    NotAContainerError,
    SourceReadError,
)
from ltchm_geo.manifest import MANIFEST_KEY
from ltchm_geo.types import TileIndex

FORMS = ["scene.ltchm", "scene.zarr"]
needs_pread = pytest.mark.skipif(not hasattr(os, "pread"), reason="Windows reads another way")


def restored(path: Path) -> np.ndarray:
    out = ltchm_geo.decompress_raster(path, path.with_name("restored.tif"), overwrite=True).path
    return pixels_of(out)


@pytest.fixture
def pread(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., bytes]], None]:
    """Put something in the place of `os.pread`; it is called with the real one first."""
    real = os.pread

    class Patched:
        def __init__(self, instead: Callable[..., bytes]):
            self.instead = instead

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def pread(self, *arguments: Any) -> bytes:
            return self.instead(real, *arguments)

    return lambda instead: monkeypatch.setattr(_random_access, "os", Patched(instead))


@needs_pread
def test_a_disk_that_gives_little_at_a_time(pread: Any, tmp_path: Path) -> None:
    path = write_decodable(tmp_path / "scene.ltchm")
    pread(lambda real, file, size, offset: real(file, min(size, 7), offset))
    np.testing.assert_array_equal(restored(path), pixels())
    assert ltchm_geo.verify(path, deep=True).ok


@needs_pread
def test_a_slow_disk_and_many_readers(pread: Any, tmp_path: Path) -> None:
    path = write_decodable(tmp_path / "scene.ltchm")

    def slow(real: Any, *arguments: Any) -> bytes:
        time.sleep(0.002)
        return real(*arguments)

    pread(slow)
    with ContainerReader(path) as reader, ThreadPoolExecutor(16) as pool:
        tiles = [TileIndex(iy, ix) for iy, ix in np.ndindex(*reader.grid.shape)] * 4
        found = list(pool.map(lambda tile: reader.tile_payload("g0", tile), tiles))
    assert found[:12] == found[12:24] == found[36:]


@needs_pread
def test_a_bad_sector(pread: Any, tmp_path: Path) -> None:
    """Reading a tile fails: that tile is damaged, the rest is not."""
    path = write_decodable(tmp_path / "scene.ltchm")
    with ContainerReader(path) as reader:
        payload = reader.tile_payload("g0", TileIndex(1, 2))
    bad = path.read_bytes().index(payload)

    def failing(real: Any, file: int, size: int, offset: int) -> bytes:
        if offset <= bad < offset + size and size < 200:
            raise OSError(errno.EIO, "Input/output error")
        return real(file, size, offset)

    pread(failing)
    with pytest.raises(CorruptTileError, match=r"tile \(1, 2\) of g0.*Input/output error"):
        restored(path)
    rest = ltchm_geo.decompress_raster(path, tmp_path / "rest.tif", allow_damaged=True)
    assert [(d.array, d.tile) for d in rest.damaged] == [("g0", (1, 2))]


@needs_pread
def test_a_disk_that_fails_at_any_read(pread: Any, tmp_path: Path) -> None:
    """The n-th read fails, for n up to 30 and each seventh from there on: always one of our errors, never an output."""
    path, calls = write_decodable(tmp_path / "scene.ltchm"), [0]

    def failing(real: Any, *arguments: Any) -> bytes:
        calls[0] += 1
        if calls[0] == fatal:
            raise OSError(errno.EIO, "Input/output error")
        return real(*arguments)

    pread(failing)
    fatal, failed = 1, 0
    while True:
        calls[0] = 0
        try:
            restored(path)
            break
        except LtchmError:
            failed += 1
        assert not (tmp_path / "restored.tif").exists()
        fatal += 1 if fatal < 30 else 7
    assert failed > 30


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("left", [0, 0.3])
def test_cut_while_it_is_read(left: float, name: str, tmp_path: Path) -> None:
    """No mapped memory that would end the process, only errors."""
    path = write_decodable(tmp_path / name)
    with ContainerReader(path) as reader:
        for file in [path, *path.rglob("c/**/*")]:
            if file.is_file():
                os.truncate(file, int(left * file.stat().st_size))
        found = reader.shard_payloads("g1", TileIndex(1, 1)).values()
        assert all(isinstance(payload, CorruptTileError) for payload in found)
        assert reader.verify()


def test_cut_while_gdal_reads_it(tmp_path: Path) -> None:
    path = write_decodable(tmp_path / "scene.ltchm")
    with ltchm_geo.rasterio_open(path) as dataset:
        os.truncate(path, 100)
        with pytest.raises(RasterioIOError):
            dataset.read()


def test_source_cut_while_it_is_compressed(tiny: Path, tmp_path: Path) -> None:
    source = write_tif(tmp_path / "source.tif", smooth(3, 384, 384), blockysize=16)
    size = source.stat().st_size

    def cut(done: int, _total: int) -> None:
        if done:
            os.truncate(source, size // 4)

    with pytest.raises(SourceReadError):
        ltchm_geo.compress_raster(source, tmp_path / "a.ltchm", tile_size=128, shard_tiles=1, progress=cut)
    assert [p.name for p in tmp_path.iterdir()] == ["source.tif"]


@pytest.mark.skipif(os.name == "nt", reason="Windows does not replace what is open")
def test_an_open_file_stays_what_it_was(tmp_path: Path) -> None:
    path = write_decodable(tmp_path / "scene.ltchm")
    with ContainerReader(path) as reader:
        os.replace(write_decodable(tmp_path / "other.ltchm", meta=replace(DECODABLE, level=7)), path)
        assert reader.verify() == []
        assert reader.meta.level == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows does not replace what is open")
def test_a_replaced_folder_is_never_half_one_and_half_the_other(tmp_path: Path) -> None:
    path, other = write_decodable(tmp_path / "scene.zarr"), write_decodable(tmp_path / "other.zarr")
    with ContainerReader(path) as reader:
        reader.tile_payload("g0", TileIndex(0, 0))
        shutil.rmtree(path)
        other.rename(path)
        with pytest.raises(CorruptTileError, match="replaced"):
            reader.tile_payload("g0", TileIndex(0, 0))


@pytest.mark.parametrize("name", FORMS)
def test_readers_while_it_is_overwritten(name: str, tmp_path: Path) -> None:
    """Each sees the old or the new scene, whole; a folder may be away for a moment, but is not called unfinished."""
    path, stop = write_decodable(tmp_path / name), threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not stop.is_set():
            try:
                with ContainerReader(path) as reader:
                    level, problems = reader.meta.level, reader.verify()
            except (NotAContainerError, CorruptContainerError):
                assert name == "scene.zarr"
                continue
            if problems:
                assert name == "scene.zarr"
                assert any(
                    "replaced" in p.message or "missing" in p.message or "cannot be" in p.message for p in problems
                )
            else:
                seen.append(level)

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        for level in range(1, 6):
            made = write_decodable(tmp_path / f"next-{name}", meta=replace(DECODABLE, level=level))
            if path.is_dir():  # as `DirectorySink.commit` does it
                path.rename(tmp_path / "old")
                made.rename(path)
                shutil.rmtree(tmp_path / "old")
            else:
                os.replace(made, path)
        stop.set()
        for reader in readers:
            reader.result()
    assert len(set(seen)) > 1


@pytest.mark.skipif(os.name == "nt", reason="Windows does not replace what is open")
@pytest.mark.parametrize("successor", [True, False])
def test_a_folder_replaced_while_it_is_opened(successor: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its description was read; its manifest is gone then, but it was not left unfinished."""
    path, other = (write_decodable(tmp_path / name) for name in ("scene.zarr", "other.zarr"))
    describe = ContainerReader._find_description

    def replace_after(self: ContainerReader, root: bytes) -> Any:
        path.rename(tmp_path / "old")
        if successor:
            other.rename(path)
        return describe(self, root)

    monkeypatch.setattr(ContainerReader, "_find_description", replace_after)
    with pytest.raises(CorruptContainerError, match=r"scene\.zarr: the scene was replaced or removed"):
        ContainerReader(path)


def test_a_folder_without_its_manifest_is_unfinished(tmp_path: Path) -> None:
    path = write_decodable(tmp_path / "scene.zarr")
    (path / MANIFEST_KEY).unlink()
    with pytest.raises(IncompleteContainerError, match=r"scene\.zarr: the scene was not finished"):
        ContainerReader(path)


def test_names_that_cannot_be_looked_up() -> None:
    for name in ("x" * 300, "a\0b", ""):
        with pytest.raises(LtchmError):
            ltchm_geo.info(name)


def test_open_store_needs_no_luck(tmp_path: Path) -> None:
    with pytest.raises(NotAContainerError, match="no such file"):
        _store.open_store(tmp_path / ("x" * 300))
