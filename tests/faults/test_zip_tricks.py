"""Archives that mean one thing to one program and another to the next, or that lie about themselves.

Overlaps, duplicates, unsafe names, methods, encryption, bombs and truncation are `test_container`'s.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from decodable import pixels, write_decodable
from rasters import pixels_of

import ltchm_geo
from ltchm_geo import _store
from ltchm_geo._store import member_method
from ltchm_geo.container import MANIFEST_KEY, ContainerReader
from ltchm_geo.errors import ContainerError, CorruptContainerError, NotAContainerError, SourceError

END = struct.Struct("<4s4xHHIIH")  # magic, members on this disk and in all, size and offset of the directory, comment


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_decodable(tmp_path / "scene.ltchm")


def end(data: bytearray, **changes: int) -> None:
    """Change the record at the end of the archive."""
    names = ("magic", "here", "all", "size", "offset", "comment")
    fields = dict(zip(names, END.unpack(data[-22:]), strict=True)) | changes
    data[-22:] = END.pack(*fields.values())


def directory(data: bytes) -> int:
    return int(END.unpack(data[-22:])[4])


def as_zip64(data: bytearray, size: int, offset: int, members: int) -> None:
    """Append ZIP64 records that say this, and let the old record point to them."""
    at = len(data) - 22
    record = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, members, members, size, offset)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, at, 1)
    data[at:at] = record + locator
    end(data, here=0xFFFF, all=0xFFFF, size=0xFFFFFFFF, offset=0xFFFFFFFF)


TRICKS: dict[str, Callable[[bytearray], None]] = {
    "junk before it": lambda d: d.__setitem__(slice(0, 0), b"#!/bin/sh\n"),
    "another archive before it": lambda d: d.__setitem__(slice(0, 0), bytes(d)),
    "another archive behind it": lambda d: d.extend(bytes(d)),
    "a comment": lambda d: (end(d, comment=3), d.extend(b"abc"))[0],
    "a comment that holds an end": lambda d: (end(d, comment=22), d.extend(d[-22:]))[0],
    "directory beyond the file": lambda d: end(d, offset=len(d)),
    "directory far beyond the file": lambda d: end(d, offset=2**32 - 2),
    "directory of no size": lambda d: end(d, size=0),
    "directory that begins too early": lambda d: end(d, offset=0, size=len(d) - 22),
    "too few members": lambda d: end(d, size=directory(d) // 100),
    "ZIP64 of 2^63 bytes": lambda d: as_zip64(d, 2**63, directory(d), 9),
    "ZIP64 beyond the file": lambda d: as_zip64(d, 1000, 2**62, 9),
    "ZIP64 of 2^40 members": lambda d: as_zip64(d, 2**27 - 1, directory(d), 2**40),
    "a directory inside a member": lambda d: end(d, offset=40, size=46),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_refused(trick: str, scene: Path) -> None:
    data = bytearray(scene.read_bytes())
    TRICKS[trick](data)
    scene.write_bytes(data)
    with pytest.raises(ContainerError) as caught:
        ContainerReader(scene)
    assert "\n" not in str(caught.value)


def test_a_zip64_that_tells_the_truth(scene: Path) -> None:
    data = bytearray(scene.read_bytes())
    _, _, members, size, offset, _ = END.unpack(data[-22:])
    as_zip64(data, size, offset, members)
    scene.write_bytes(data)
    assert ltchm_geo.verify(scene, deep=True).ok


def test_a_zip64_directory_counts_whatever_the_old_record_says(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(scene.read_bytes())
    _, _, members, size, offset, _ = END.unpack(data[-22:])
    monkeypatch.setattr(_store, "_MAX_DIRECTORY", size - 1)
    as_zip64(data, size, offset, members)
    end(data, size=100)
    scene.write_bytes(data)
    with pytest.raises(CorruptContainerError, match="larger than"):
        ContainerReader(scene)


def test_zip64_records_elsewhere(scene: Path) -> None:
    """Some releases of Python read the one that is pointed to, others the one before the end."""
    data = bytearray(scene.read_bytes())
    _, _, members, size, offset, _ = END.unpack(data[-22:])
    as_zip64(data, size, offset, members)
    data[-34:-26] = (len(data) - 99).to_bytes(8, "little")
    scene.write_bytes(data)
    with pytest.raises(CorruptContainerError, match="ZIP64"):
        ContainerReader(scene)


def test_a_zip_of_the_future_is_no_raster(tmp_path: Path) -> None:
    """zipfile does not know how to read it, and says so in its own way."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"a")
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 6] = 99
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"a\.zip"):
        ltchm_geo.compare_rasters(path, path)


class Pipe(io.RawIOBase):
    """Somewhere to write that cannot go back: zipfile then puts sizes behind the members."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self.data += data  # type: ignore[operator]
        return len(data)  # type: ignore[arg-type]


def repack(scene: Path, change: Callable[[zipfile.ZipInfo], None] = lambda info: None) -> None:
    pipe = Pipe()
    with zipfile.ZipFile(scene) as old, zipfile.ZipFile(pipe, "w") as new:
        for name in old.namelist():
            info = zipfile.ZipInfo(name)
            info.compress_type = member_method(name)
            change(info)
            new.writestr(info, old.read(name))
    scene.write_bytes(pipe.data)


def test_sizes_behind_the_members(scene: Path) -> None:
    """The directory says them as well, and it alone counts."""
    repack(scene)
    assert (pixels() == pixels_of(ltchm_geo.decompress_raster(scene, scene.with_suffix(".tif")).path)).all()


def test_members_that_call_themselves_links(scene: Path, tmp_path: Path) -> None:
    """Nothing is ever unpacked: a member is bytes, whatever its attributes say."""

    def link(info: zipfile.ZipInfo) -> None:
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16

    repack(scene, link)
    before = set(tmp_path.iterdir())
    assert ltchm_geo.verify(scene, deep=True).ok
    assert set(tmp_path.iterdir()) == before


def test_a_folder_of_links_and_pipes(tmp_path: Path) -> None:
    """A link to nowhere is a missing file, and so is a pipe: nothing waits for it."""
    scene = write_decodable(tmp_path / "scene.zarr")
    shard = scene / "0" / "g0" / "c" / "0" / "0" / "0"
    for replace in (lambda: shard.symlink_to(tmp_path / "nowhere"), lambda: os.mkfifo(shard)):
        shard.unlink()
        replace()
        assert not ltchm_geo.verify(scene, deep=True).ok
    (scene / "zarr.json").unlink()
    os.mkfifo(scene / "zarr.json")
    with pytest.raises(CorruptContainerError, match="description"):
        ContainerReader(scene)
    os.mkfifo(tmp_path / "a.ltchm")
    with pytest.raises(NotAContainerError, match="neither a file nor a folder"):
        ContainerReader(tmp_path / "a.ltchm")


def test_a_pipe_for_a_preview(tmp_path: Path) -> None:
    scene = write_decodable(tmp_path / "scene.zarr")
    manifest = json.loads((scene / MANIFEST_KEY).read_bytes())
    manifest["files"]["preview.jpg"] = {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    (scene / MANIFEST_KEY).write_bytes(json.dumps(manifest).encode())
    os.mkfifo(scene / "preview.jpg")
    with ContainerReader(scene) as reader:
        with pytest.raises(CorruptContainerError, match="not a file"):
            reader.preview()
        assert [(problem.key, problem.message) for problem in reader.verify()] == [
            ("preview.jpg", "preview.jpg is not a file")
        ]


def test_a_folder_that_may_not_be_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, real = write_decodable(tmp_path / "scene.zarr"), Path.stat

    def denied(self: Path, **options: bool) -> os.stat_result:
        if self.parent == scene:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(self, **options)

    monkeypatch.setattr(Path, "stat", denied)
    with pytest.raises(CorruptContainerError, match=r"scene\.zarr: zarr\.json cannot be read: Permission denied"):
        ContainerReader(scene)
