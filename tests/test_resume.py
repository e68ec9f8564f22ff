"""Going on where a run stopped: nothing is coded twice, and the bytes do not tell."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio.shutil
import scenes
from rasters import pixels_of, smooth, write_tif

from ltchm_geo import _resumable_sink, compress_raster, shard_coder, verify
from ltchm_geo._resumable_sink import discard_unfinished
from ltchm_geo.container import ContainerWriter
from ltchm_geo.errors import (
    CorruptTileError,
    DestinationBusyError,
    DestinationError,
    DestinationExistsError,
    UsageError,
)
from ltchm_geo.shards import pack_shard, unpack_shard
from ltchm_geo.types import TileIndex

OPTIONS: dict[str, Any] = {"tile_size": 128, "shard_tiles": 1, "overviews": (2,), "preview": True, "resume": True}
SHARDS = 2 * 3 + 1 * 2
NAMES = pytest.mark.parametrize("name", ["scene.ltchm", "scene.zarr"])

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tif(tmp_path / "source.tif", smooth(3, 128 * 2, 128 * 3))


class Stop(BaseException):
    """As Ctrl-C: no `Exception`."""


def stop_at(tiles: int) -> Any:
    def progress(done: int, total: int) -> None:
        if done >= tiles:
            raise Stop

    return progress


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in [path, *path.rglob("*")] if p.is_file()}


@pytest.fixture
def coded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tiles that were coded since, one entry per call."""
    counts: list[int] = []
    original = shard_coder.encode_tiles

    def noted(tiles: Any, *args: Any, **options: Any) -> list[bytes]:
        counts.append(len(tiles))
        return original(tiles, *args, **options)

    monkeypatch.setattr(shard_coder, "encode_tiles", noted)
    return counts


@NAMES
@pytest.mark.parametrize("tiles", [1, 7])
def test_stopped_and_resumed(name: str, tiles: int, source: Path, tmp_path: Path, coded: list[int]) -> None:
    whole = compress_raster(source, tmp_path / f"whole-{name}", **OPTIONS)
    coded.clear()
    with pytest.raises(Stop):
        compress_raster(source, tmp_path / name, progress=stop_at(tiles), **OPTIONS)
    assert not (tmp_path / name).exists()
    result = compress_raster(source, tmp_path / name, **OPTIONS)
    assert result.kept >= tiles
    assert SHARDS <= sum(coded) <= SHARDS + 1  # the other worker's shard may have been too late to be stored
    assert contents(result.path) == contents(whole.path)
    assert (result.tiles, result.bytes) == (whole.tiles, whole.bytes)
    assert verify(result.path, deep=True).ok
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, f"whole-{name}", "source.tif"])


@NAMES
def test_same_pixels_as_without_resume(name: str, source: Path, tmp_path: Path) -> None:
    plain = compress_raster(source, tmp_path / f"plain-{name}", **OPTIONS | {"resume": False})
    resumable = compress_raster(source, tmp_path / name, **OPTIONS)
    assert contents(plain.path) == contents(resumable.path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no kill -9")
def test_kill_9(source: Path, tmp_path: Path, coded: list[int]) -> None:
    name = "scene.ltchm"
    child = (
        "import os, signal, sys\nfrom ltchm_geo import compress_raster\n"
        "def progress(done, total):\n    if done == 4:\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "compress_raster(sys.argv[1], sys.argv[2], progress=progress, workers=1,\n"
        "                tile_size=128, shard_tiles=1, overviews=(2,), preview=True, resume=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", child, source, tmp_path / name], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    journal = tmp_path / f"{name}.part" / ".journal"
    with journal.open("a") as file:  # a power cut in the middle of a line
        file.write("0123456789abcdef 12")
    result = compress_raster(source, tmp_path / name, **OPTIONS)
    assert (result.kept, sum(coded)) == (4, SHARDS - 4)
    whole = compress_raster(source, tmp_path / f"whole-{name}", **OPTIONS)
    assert contents(result.path) == contents(whole.path)


@pytest.mark.parametrize(
    "change", ["touched", "pixels", "quality", "overviews", "damaged shard", "missing shard", "strange journal"]
)
def test_only_what_is_still_right_is_kept(change: str, source: Path, tmp_path: Path) -> None:
    path, options = tmp_path / "scene.ltchm", dict(OPTIONS)
    with pytest.raises(Stop):
        compress_raster(source, path, progress=stop_at(3), workers=1, **options)
    part, kept = path.with_name("scene.ltchm.part"), 0
    shards = [p for p in part.rglob("*") if p.is_file() and "c" in p.relative_to(part).parts]
    assert len(shards) == 3
    if change == "touched":
        os.utime(source, (1, 1))
    elif change == "pixels":
        write_tif(source, smooth(3, 128 * 2, 128 * 3, low=50))
    elif change == "quality":
        options["quality"] = 60
    elif change == "overviews":
        options["overviews"] = False
    elif change == "damaged shard":
        data, kept = shards[0].read_bytes(), 2
        shards[0].write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif change == "missing shard":
        shards[0].unlink()
        kept = 2
    else:
        (part / ".journal").write_bytes(b"\xff\x00 ../../etc\n" * 99)
    result = compress_raster(source, path, **options)
    assert result.kept == kept
    whole = compress_raster(source, tmp_path / "whole.ltchm", **options)
    assert contents(result.path) == contents(whole.path)


@NAMES
def test_failure_keeps_shards(name: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = _resumable_sink.ResumableSink.put, [0]

    def full(self: Any, key: str, data: bytes) -> None:
        calls[0] += 1
        if calls[0] > (8 if name.endswith("ltchm") else 20):
            with _resumable_sink.explained(self._path):
                raise OSError(errno.ENOSPC, "No space left on device")
        original(self, key, data)

    with monkeypatch.context() as patched, pytest.raises(DestinationError, match="disk full"):  # noqa: PT012
        patched.setattr(_resumable_sink.ResumableSink, "put", full)
        compress_raster(source, tmp_path / name, **OPTIONS)
    assert compress_raster(source, tmp_path / name, **OPTIONS).kept > 0


@NAMES
@pytest.mark.parametrize("first", [None, "x"])
def test_other_kind_of_run_takes_over(name: str, first: str | None, tmp_path: Path) -> None:
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[2]); import scenes as t\n"
        "writer = t.ContainerWriter(sys.argv[1], t.META, resume=sys.argv[3] or None)\n"
        "t.put_all(writer, t.SHARDS[:3]); os._exit(9)"
    )
    command = [sys.executable, "-c", code, tmp_path / name, Path(__file__).parent, first or ""]
    assert subprocess.run(command, check=False).returncode == 9
    with ContainerWriter(tmp_path / name, scenes.META, resume=None if first else "x") as writer:
        assert writer.stored == 0
        scenes.put_all(writer)
        writer.finish()
    assert verify(tmp_path / name).ok
    assert [p.name for p in tmp_path.iterdir()] == [name]


@NAMES
@pytest.mark.parametrize("more", [{}, {"verify": True}], ids=["plain", "verified"])
def test_finished_shards_are_not_thrown_away_unasked(
    name: str, more: dict[str, Any], source: Path, tmp_path: Path
) -> None:
    with pytest.raises(Stop):
        compress_raster(source, tmp_path / name, progress=stop_at(3), workers=1, **OPTIONS, **more)
    plain = OPTIONS | {"resume": False} | more
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DestinationExistsError, match=r"holds 3 finished shards .* --resume .* --overwrite"):
        compress_raster(source, tmp_path / name, **plain)
    assert sorted(tmp_path.rglob("*")) == before
    compress_raster(source, tmp_path / name, **plain, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, "source.tif"])


def test_somebodys_own_file_is_not_taken_for_one_being_checked(source: Path, tmp_path: Path) -> None:
    own = tmp_path / "scene.checking.ltchm"
    own.write_bytes(b"mine")
    with pytest.raises(DestinationExistsError, match="while it is checked: move it away"):
        compress_raster(source, tmp_path / "scene.ltchm", verify=True, overwrite=True, tile_size=128)
    assert own.read_bytes() == b"mine"
    (tmp_path / "scene.ltchm.lock").touch()  # what a run leaves that is killed
    compress_raster(source, tmp_path / "scene.ltchm", verify=True, tile_size=128)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scene.ltchm", "source.tif"]


def test_all_that_a_killed_run_left_is_discarded(tmp_path: Path) -> None:
    for name, files in {"own": ["photo.jpg"], "dead": [".lock", "zarr.json"], "empty": []}.items():
        part = tmp_path / f"{name}.zarr.part"
        part.mkdir()
        for file in files:
            (part / file).touch()
        discard_unfinished(tmp_path / f"{name}.zarr")
    assert [p.name for p in tmp_path.iterdir()] == ["own.zarr.part"]


def test_no_file_no_resuming(tmp_path: Path) -> None:
    import xarray as xr

    array = xr.DataArray(smooth(3, 256, 256), dims=("band", "y", "x"), name="source.tif")
    options = {"tile_size": 128, "shard_tiles": 1, "resume": True}
    with pytest.raises(Stop):
        compress_raster(array, tmp_path / "scene.ltchm", progress=stop_at(2), **options)
    assert compress_raster(array, tmp_path / "scene.ltchm", **options).kept == 0


def test_a_mosaic_of_a_mosaic_that_changes_begins_anew(source: Path, tmp_path: Path) -> None:
    """GDAL lists what a VRT names, but not what those name."""
    inner, outer = tmp_path / "inner.vrt", tmp_path / "outer.vrt"
    rasterio.shutil.copy(source, inner, driver="VRT")
    rasterio.shutil.copy(inner, outer, driver="VRT")
    outer.write_text(outer.read_text().replace("source.tif", "inner.vrt"))
    for changed, kept in ((False, 2), (True, 0)):
        with pytest.raises(Stop):
            compress_raster(outer, tmp_path / f"{changed}.ltchm", progress=stop_at(3), workers=1, **OPTIONS)
        if changed:
            write_tif(source, 255 - pixels_of(source))
        assert (compress_raster(outer, tmp_path / f"{changed}.ltchm", **OPTIONS).kept > 0) == (kept > 0)


@NAMES
def test_packing_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any, **options: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    def run() -> ContainerWriter:
        return ContainerWriter(tmp_path / name, scenes.META, resume="x")

    with run() as writer, monkeypatch.context() as patched:
        scenes.put_all(writer)
        patched.setattr("ltchm_geo._sink.check_free" if name.endswith("zarr") else "zipfile.ZipFile.writestr", fails)
        with pytest.raises(DestinationError, match="Input/output"):
            writer.finish()
    with run() as writer:
        assert writer.stored == 16
        assert writer.has_shard("mask", TileIndex(1, 1))
        with pytest.raises(UsageError, match="already"):
            scenes.put_plane(writer, "mask", TileIndex(0, 0), scenes.MASK)
        writer.finish()
    assert verify(tmp_path / name).ok


def test_two_at_once_and_discarding(tmp_path: Path) -> None:
    path = tmp_path / "scene.ltchm"
    discard_unfinished(path)
    with ContainerWriter(path, scenes.META, resume="x") as writer:
        scenes.put_all(writer, scenes.SHARDS[:1])
        for attempt in (lambda: discard_unfinished(path), lambda: ContainerWriter(path, scenes.META)):
            with pytest.raises(DestinationBusyError):
                attempt()
        with pytest.raises(DestinationBusyError):
            ContainerWriter(path, scenes.META, resume="x")
    with ContainerWriter(path, replace(scenes.META, level=3), resume="x") as writer:
        assert writer.stored == 0
    discard_unfinished(path)
    assert list(tmp_path.iterdir()) == []


def test_unpack_shard() -> None:
    chunks = {0: b"a", 3: b"bcd", 2: b""}
    packed = pack_shard(chunks, 4)
    assert unpack_shard(packed, 4, 3) == chunks
    for damaged in (packed[:-1], packed[:5], b"", bytes(np.frombuffer(packed, np.uint8) ^ 1)):
        with pytest.raises(CorruptTileError):
            unpack_shard(damaged, 4, 3)
    with pytest.raises(CorruptTileError):
        unpack_shard(packed, 4, 2)


@pytest.mark.parametrize("moment", ["empty", "discard"])
def test_killed_while_clearing_up(moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def kill(*_arguments: Any) -> None:
        raise Killed

    path = tmp_path / "scene.ltchm"
    with monkeypatch.context() as patch:
        patch.setattr(f"ltchm_geo._resumable_sink.{moment}", kill)
        writer = ContainerWriter(path, scenes.META, resume="x")
        scenes.put_all(writer)
        with pytest.raises(Killed):
            writer.finish()
        writer._sink._lock.close()  # as the end of a process does
    assert verify(path).ok
    assert len(list(tmp_path.iterdir())) == 2
    discard_unfinished(path)
    assert list(tmp_path.iterdir()) == [path]
