from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from scenes import META, SHARDS, payload, put_all, write

from ltchm_geo import _sink
from ltchm_geo.container import ContainerReader, ContainerWriter
from ltchm_geo.errors import (
    ContainerError,
    DestinationBusyError,
    DestinationError,
    DestinationExistsError,
    UsageError,
)


@pytest.fixture(params=["scene.ltchm", "scene.zarr"])
def scene(request, tmp_path) -> Path:
    return write(tmp_path / request.param)


def test_existing_destination(scene):
    before = {p: p.read_bytes() for p in [scene, *scene.rglob("*")] if p.is_file()}
    with pytest.raises(DestinationExistsError, match="overwrite"):
        write(scene)
    assert before == {p: p.read_bytes() for p in [scene, *scene.rglob("*")] if p.is_file()}
    write(scene, overwrite=True, meta=replace(META, level=7))
    with ContainerReader(scene) as reader:
        assert reader.meta.level == 7
    assert [p.name for p in scene.parent.iterdir()] == [scene.name]


def test_overwriting_never_deletes_what_is_no_scene(tmp_path):
    folder = tmp_path / "photos.zarr"
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(DestinationExistsError, match="not a scene"):
        write(folder, overwrite=True)
    assert (folder / "holiday.jpg").exists()
    with pytest.raises(DestinationExistsError, match="folder"):
        write(tmp_path / "photos.zarr" / "..", overwrite=True)


def test_unusable_destination(tmp_path):
    with pytest.raises(DestinationError, match="does not exist"):
        write(tmp_path / "no" / "scene.ltchm")
    for name in ("scene.ltchm", "other.zarr"):
        own = tmp_path / f"{name}.part" / "photo.jpg"
        own.parent.mkdir()
        own.write_bytes(b"mine")
        for resume in (None, "x"):
            with pytest.raises(DestinationError, match=r"remove it|in the way"):
                ContainerWriter(tmp_path / name, META, resume=resume)
        assert own.read_bytes() == b"mine"
    (tmp_path / "scene.zarr.part").write_bytes(b"")
    with pytest.raises(DestinationError, match="remove it"):
        write(tmp_path / "scene.zarr")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DestinationError, match="cannot write"):
            write(tmp_path / "scene.ltchm")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("name", ["scene.ltchm", "scene.zarr"])
@pytest.mark.parametrize("existed", [False, True])
def test_failure_leaves_nothing_and_keeps_the_old(tmp_path, name, existed):
    path = tmp_path / name
    if existed:
        write(path, meta=replace(META, level=1))
    with pytest.raises(RuntimeError, match="stop"), ContainerWriter(path, META, overwrite=True) as writer:  # noqa: PT012
        put_all(writer, SHARDS[:2])
        raise RuntimeError("stop")
    assert [p.name for p in tmp_path.iterdir()] == [name] * existed
    if existed:
        with ContainerReader(path) as reader:
            assert reader.meta.level == 1


@pytest.mark.parametrize("name", ["scene.ltchm", "scene.zarr"])
def test_leaving_without_finish_discards(tmp_path, name):
    with ContainerWriter(tmp_path / name, META) as writer:
        put_all(writer)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["scene.ltchm", "scene.zarr"])
def test_disk_full(tmp_path, monkeypatch, name):
    real, left = os.fsync, [0]

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    def full_soon(descriptor):
        left[0] += 1
        return full() if left[0] > 5 else real(descriptor)

    with pytest.raises(DestinationError, match="disk full"), ContainerWriter(tmp_path / name, META) as writer:  # noqa: PT012
        put_all(writer, SHARDS[:1])
        if name.endswith("zarr"):
            monkeypatch.setattr(_sink.os, "fsync", full_soon)
        else:
            monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
        put_all(writer, SHARDS[1:])
    assert list(tmp_path.iterdir()) == []


def test_disk_full_at_the_very_end(tmp_path, monkeypatch):
    """What is still in the buffer then, the directory, does not fit: told when it is flushed, and again on closing."""

    class Disk(io.FileIO):
        full = False

        def write(self, data):
            if self.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    monkeypatch.setattr(_sink, "lock_file", lambda path, _: io.BufferedRandom(Disk(path, "x+")))
    with pytest.raises(DestinationError, match="disk full"), ContainerWriter(tmp_path / "a.ltchm", META) as writer:  # noqa: PT012
        put_all(writer)
        monkeypatch.setattr(Disk, "full", True)
        writer.finish()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["scene.ltchm", "scene.zarr"])
def test_two_writers(tmp_path, name):
    path = tmp_path / name
    with ContainerWriter(path, META) as first:
        put_all(first)
        with pytest.raises(DestinationBusyError, match="another process"):
            ContainerWriter(path, META)
        first.finish()
    with ContainerReader(path) as reader:
        assert reader.verify() == []
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
@pytest.mark.parametrize("name", ["scene.ltchm", "scene.zarr"])
def test_links(tmp_path, name):
    """The link is replaced; what it leads to stays."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    original, link = write(elsewhere / name, meta=replace(META, level=1)), tmp_path / name
    link.symlink_to(original)
    write(link, overwrite=True)
    for path, level in ((link, META.level), (original, 1)):
        with ContainerReader(path) as reader:
            assert reader.meta.level == level
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["elsewhere", name])
    dangling = tmp_path / f"to-nowhere-{name}"
    dangling.symlink_to(tmp_path / "nowhere")
    with pytest.raises(DestinationExistsError):
        write(dangling)


@pytest.mark.parametrize("name", ["scene.ltchm", "scene.zarr"])
def test_destination_that_appears_meanwhile(tmp_path, name):
    path, other = tmp_path / name, write(tmp_path / f"other-{name}", meta=replace(META, level=1))
    with pytest.raises(DestinationExistsError), ContainerWriter(path, META) as writer:  # noqa: PT012
        put_all(writer)
        shutil.move(other, path)
        writer.finish()
    with ContainerReader(path) as reader:
        assert reader.meta.level == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="no kill -9")
@pytest.mark.parametrize("name", ["scene.ltchm", "scene.zarr"])
def test_kill_9(tmp_path, name):
    path = tmp_path / name
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[2]); import scenes as t\n"
        "writer = t.ContainerWriter(sys.argv[1], t.META); t.put_all(writer, t.SHARDS[:3])\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"ready\n"
        with pytest.raises(DestinationBusyError):
            ContainerWriter(path, META)
        child.send_signal(signal.SIGKILL)
    assert [p.name for p in tmp_path.iterdir()] == [name + ".part"]
    with pytest.raises(ContainerError):
        ContainerReader(tmp_path / (name + ".part"))
    write(path)
    with ContainerReader(path) as reader:
        assert reader.verify() == []
    assert list(tmp_path.iterdir()) == [path]


def test_writer_takes_whole_shards_only(tmp_path):
    grid = META.grid
    with ContainerWriter(tmp_path / "a.ltchm", META) as writer:
        chunks = {grid.slot(t): payload("g0", t) for t in grid.tiles_in_shard(SHARDS[0])}
        with pytest.raises(UsageError, match="needs slots"):
            writer.put_shard("g0", SHARDS[0], {0: b"x"})
        with pytest.raises(UsageError, match="needs slots"):
            writer.put_shard("g0", SHARDS[3], chunks)
        with pytest.raises(UsageError, match="no array"):
            writer.put_shard("g9", SHARDS[0], chunks)
        with pytest.raises(UsageError, match="allowed"):
            writer.put_shard("g0", SHARDS[0], {**chunks, 0: bytes(10**6)})
        writer.put_shard("g0", SHARDS[0], chunks)
        with pytest.raises(UsageError, match="already"):
            writer.put_shard("g0", SHARDS[0], chunks)
        with pytest.raises(UsageError, match="15 of 16"):
            writer.finish()
    assert list(tmp_path.iterdir()) == []


def test_oversized_description(tmp_path, monkeypatch):
    monkeypatch.setattr("ltchm_geo.scene_writer.MAX_JSON", 500)
    with pytest.raises(UsageError, match="too large"):
        ContainerWriter(tmp_path / "a.ltchm", META)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="other locks")
def test_file_system_without_locks(tmp_path, monkeypatch):
    import fcntl

    def unsupported(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.warns(UserWarning, match="cannot be locked"):
        write(tmp_path / "scene.ltchm")


@pytest.mark.parametrize("name", ["scene.ltchm", "scene.zarr"])
def test_the_old_is_put_back_where_the_new_cannot_take_its_place(tmp_path, monkeypatch, name):
    path = write(tmp_path / name, meta=replace(META, level=1))
    real = os.replace

    def fails(one, other):
        if Path(other) == path:
            raise OSError(errno.EIO, "Input/output error")
        real(one, other)

    with monkeypatch.context() as patched:
        patched.setattr(_sink.os, "replace", fails)
        with pytest.raises(DestinationError, match="Input/output"):
            write(path, overwrite=True)
    assert list(tmp_path.iterdir()) == [path]
    with ContainerReader(path) as reader:
        assert reader.meta.level == 1


def test_what_cannot_be_removed_is_told_and_no_failure(tmp_path, monkeypatch):
    path = write(tmp_path / "scene.zarr", meta=replace(META, level=1))
    real = shutil.rmtree

    def fails(folder, *args, **keywords):
        if ".old-" in str(folder):
            raise OSError(errno.EBUSY, "Device or resource busy")
        real(folder, *args, **keywords)

    monkeypatch.setattr(_sink.shutil, "rmtree", fails)
    with pytest.warns(UserWarning, match=r"is complete, but .*\.old-\w+ \(Device or resource busy\)"):
        write(path, overwrite=True)
    monkeypatch.undo()
    with ContainerReader(path) as reader:
        assert reader.meta.level == META.level
    with pytest.warns(UserWarning, match=r"\.old-\w+ is what scene\.zarr was before a run was killed: remove it"):
        write(path, overwrite=True)
    shutil.rmtree(path)
    with pytest.warns(UserWarning, match="give it its name back"):
        write(path)


def test_a_folder_is_no_place_for_a_file_whatever_is_asked_for(tmp_path):
    for overwrite in (False, True):
        with pytest.raises(DestinationExistsError, match="is a folder; choose another name"):
            write(tmp_path, overwrite=overwrite)
