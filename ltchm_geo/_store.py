"""Reading bytes by key from a scene, be it a ZIP file or a folder. Knows nothing of what the bytes mean.

Members of the ZIP file are read with `os.pread` at offsets that are found once: many threads can read at the same time,
and a tile costs one system call, but for the first of its shard. For that, shards are stored as they are; the JSON
documents, which are read whole and would outweigh the pixels of a small scene, are deflated. Scenes in object stores
are `_object_store`'s.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple, Protocol

from ._inflate import RAW_DEFLATE, inflate
from ._random_access import Cursor, LocalFile, RandomAccess
from ._recognise import NO_ZIP
from .errors import CorruptContainerError, CorruptTileError, NotAContainerError, ObjectStoreError
from .location import Location, ObjectUrl, locate

__all__ = ["KEY", "DirectoryStore", "Store", "ZipStore", "exactly", "member_method", "open_store"]

MAX_MEMBERS = 1 << 20
_MAX_NAME = 255
# Plain segments of letters, digits, '_', '-' and inner dots: no absolute path, no "..", no backslash, no drive letter.
KEY = re.compile(r"(?!\.)[A-Za-z0-9_.-]+(?:/(?!\.)[A-Za-z0-9_.-]+)*")
_LOCAL_HEADER = struct.Struct("<4s4xH16xHH")  # magic, method, lengths of name and extra field
# The records at the end, the first two only with ZIP64: magic and size of the directory, magic and place of the first
# record, magic and size of the directory.
_END64, _LOCATOR, _END = struct.Struct("<4s36xQ8x"), struct.Struct("<4s4xQ4x"), struct.Struct("<4s8xI6x")
_MAX_DIRECTORY = 1 << 27
_MAX_DOCUMENT = 1 << 26  # of a document, deflated or not


def member_method(key: str) -> int:
    """How the ZIP file must hold a key: JSON documents deflated, everything else as it is."""
    return zipfile.ZIP_DEFLATED if key.endswith(".json") else zipfile.ZIP_STORED


class Store(Protocol):
    """Read-only bytes by key. Thread-safe. Errors name the key; the path is the caller's to add."""

    path: Location

    def __contains__(self, key: str) -> bool:
        """Whether the key is there."""

    def size(self, key: str) -> int:
        """Bytes under the key."""

    def stored_size(self, key: str) -> int:
        """Bytes that those take up: fewer where they are compressed."""

    def read(self, key: str, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset` on; CorruptContainerError when they are not there."""

    def directory(self) -> dict[str, tuple[int, int]] | None:
        """Size and CRC-32 of all keys; None where there is no such list."""

    def total_size(self) -> int | None:
        """Bytes the store takes up, or None where that is the sum over its keys."""

    def close(self) -> None:
        """Release the file; reading afterwards fails."""


def open_store(path: str | os.PathLike[str]) -> Store:
    """Open a scene for reading, whichever form it has."""
    path = locate(path)
    if isinstance(path, ObjectUrl):
        from ._object_store import open_object_store

        return open_object_store(path)
    # os.path says no, where Path raises, to names that the system cannot even look up.
    if os.path.isdir(path):
        return DirectoryStore(path)
    if not os.path.exists(path):
        raise NotAContainerError(f"{path}: no such file or folder")
    if not os.path.isfile(path):
        raise NotAContainerError(f"{path} is neither a file nor a folder")
    return ZipStore(path, LocalFile(path))


class DirectoryStore:
    """A scene kept as a folder; files are opened as they are read.

    Once another scene has taken the folder's name, reading fails: half of one and half of the other would be no scene.
    """

    def __init__(self, path: Path):
        self._folder = path
        self.path: Location = path
        self._identity = self._now()

    def __contains__(self, key: str) -> bool:
        found = self._stat(key)
        return found is not None and stat.S_ISREG(found.st_mode)

    def size(self, key: str) -> int:
        """See `Store.size`."""
        found = self._stat(key)
        if found is None:
            raise CorruptContainerError(f"{key} is missing")
        if not stat.S_ISREG(found.st_mode):
            raise CorruptContainerError(f"{key} is not a file")  # to open a pipe would take until somebody writes
        return found.st_size

    def stored_size(self, key: str) -> int:
        """See `Store.stored_size`."""
        return self.size(key)

    def read(self, key: str, offset: int, size: int) -> bytes:
        """See `Store.read`."""
        self.size(key)
        try:
            with self._file(key).open("rb") as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise CorruptContainerError(f"{key} cannot be read: {error.strerror}") from error
        self._check_name()
        return exactly(data, size, key)

    def directory(self) -> dict[str, tuple[int, int]] | None:
        """See `Store.directory`."""
        return None

    def total_size(self) -> int | None:
        """See `Store.total_size`."""
        return None

    def close(self) -> None:
        """See `Store.close`."""

    def _file(self, key: str) -> Path:
        if not KEY.fullmatch(key):
            raise CorruptContainerError(f"unsafe name {key!r}")
        return self._folder / key

    def _stat(self, key: str) -> os.stat_result | None:
        """What the system says about a key; None where there is no such file."""
        try:
            return self._file(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            self._check_name()
            return None
        except OSError as error:
            raise CorruptContainerError(f"{key} cannot be read: {error.strerror}") from error

    def _check_name(self) -> None:
        """The folder must still have its name, or what was read or missed says nothing about the scene."""
        if self._now() != self._identity:
            raise CorruptContainerError("the scene was replaced or removed while it was open: open it again")

    def _now(self) -> tuple[int, int] | None:
        """Which folder has the name at this moment."""
        try:
            found = self._folder.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


class _Member(NamedTuple):
    """Where a member's local header begins, its bytes in the file, and size and CRC-32 of what they stand for."""

    at: int
    stored: int
    size: int
    crc: int


class ZipStore:
    """A scene in one file, which it closes.

    Raises
    ------
    NotAContainerError
        When it is not a ZIP file at all.
    CorruptContainerError
        When it is cut short, or its directory is one that the writer cannot have made.
    """

    def __init__(self, path: Location, file: RandomAccess):
        self.path, self._file = path, file
        self._begins: dict[str, int] = {}  # where the data of members lie whose headers were looked at
        try:
            self._members = self._list_members()
        except BaseException:
            self._file.close()
            raise

    def _list_members(self) -> dict[str, _Member]:
        """All members, checked."""
        if self._file.pread(0, 4) != b"PK\x03\x04":
            raise NotAContainerError(f"{self.path} is not a compressed scene; `ltchm compress` makes one of a raster")
        self._check_directory_size()
        try:
            with zipfile.ZipFile(Cursor(self._file)) as archive:
                listed, end = archive.infolist(), archive.start_dir
        except ObjectStoreError:
            raise
        except NO_ZIP as error:
            raise self._corrupt(f"the file is cut short or was never finished ({error})") from error
        if len(listed) > MAX_MEMBERS:
            raise self._corrupt(f"{len(listed)} members, at most {MAX_MEMBERS} are allowed")
        members: dict[str, _Member] = {}
        free = 0  # members may not overlap: that is how a small file pretends to be huge
        for info in sorted(listed, key=lambda info: info.header_offset):
            name, at, stored = info.filename, info.header_offset, info.compress_size
            if len(name) > _MAX_NAME or not KEY.fullmatch(name) or info.orig_filename != name:
                raise self._corrupt(f"unsafe member name {name[:_MAX_NAME]!r}")
            if name in members:
                raise self._corrupt(f"two members are named {name}")
            self._check_method(info)
            if at < free or at + _LOCAL_HEADER.size + len(name) + stored > end:
                raise self._corrupt(f"{name} overlaps another member or lies outside the file")
            if not members and at:
                raise self._corrupt("something lies before its first member")
            free = at + _LOCAL_HEADER.size + len(name) + stored
            members[name] = _Member(at, stored, info.file_size, info.CRC)
        return members

    def _check_method(self, info: zipfile.ZipInfo) -> None:
        name, method = info.filename, member_method(info.filename)
        if info.flag_bits & 0x41:
            raise self._corrupt(f"{name} is encrypted")
        if info.compress_type != method:
            raise self._corrupt(f"{name} uses ZIP method {info.compress_type}; JSON must have 8, all else 0")
        if method == zipfile.ZIP_STORED and info.compress_size != info.file_size:
            raise self._corrupt(f"{name} is stored, but its two sizes differ")
        if method == zipfile.ZIP_DEFLATED and max(info.compress_size, info.file_size) > _MAX_DOCUMENT:
            raise self._corrupt(f"{name} is larger than the {_MAX_DOCUMENT} bytes allowed")

    def _check_directory_size(self) -> None:
        """Refuse, before zipfile builds an object for each member, a directory that no scene needs."""
        length = _END64.size + _LOCATOR.size + _END.size
        tail = self._file.pread(max(0, self._file.size - length), length).rjust(length, b"\0")
        magic, size = _END.unpack_from(tail, length - _END.size)
        if magic != b"PK\x05\x06":
            raise self._corrupt("the file is cut short, was never finished, or has something appended")
        magic, at = _LOCATOR.unpack_from(tail, _END64.size)
        if magic == b"PK\x06\x07":
            magic, size = _END64.unpack_from(tail)  # zipfile takes this size, whatever the last record says
            if magic != b"PK\x06\x06" or at != self._file.size - length:
                raise self._corrupt("its ZIP64 records are not where they should be")
        if size > _MAX_DIRECTORY:
            raise self._corrupt(f"its directory of {size} bytes is larger than the {_MAX_DIRECTORY} allowed")

    def __contains__(self, key: str) -> bool:
        return key in self._members

    def size(self, key: str) -> int:
        """See `Store.size`."""
        return self._member(key).size

    def stored_size(self, key: str) -> int:
        """See `Store.stored_size`."""
        return self._member(key).stored

    def read(self, key: str, offset: int, size: int) -> bytes:
        """See `Store.read`."""
        member = self._member(key)
        if offset < 0 or size < 0 or offset + size > member.size:
            raise CorruptContainerError(f"{key} has {member.size} bytes, {size} at {offset} were asked for")
        begin = self._begins.get(key)
        if begin is None:
            begin = self._begins[key] = self._data_offset(key, member)
        if member_method(key) == zipfile.ZIP_STORED:
            return exactly(self._file.pread(begin + offset, size), size, key)
        deflated = exactly(self._file.pread(begin, member.stored), member.stored, key)
        return _inflate_document(key, member, deflated)[offset : offset + size]

    def directory(self) -> dict[str, tuple[int, int]] | None:
        """See `Store.directory`."""
        return {key: (member.size, member.crc) for key, member in self._members.items()}

    def total_size(self) -> int | None:
        """See `Store.total_size`."""
        return self._file.size

    def close(self) -> None:
        """See `Store.close`."""
        self._file.close()

    def _member(self, key: str) -> _Member:
        try:
            return self._members[key]
        except KeyError:
            raise CorruptContainerError(f"{key} is missing") from None

    def _data_offset(self, key: str, member: _Member) -> int:
        # The writer leaves the extra field empty, so a member's data begins right behind its name. A file repacked by
        # other tools may have one: read its length, and check that this is the right header at all.
        fixed = self._file.pread(member.at, _LOCAL_HEADER.size + len(key))
        if len(fixed) == _LOCAL_HEADER.size + len(key):
            magic, method, name, extra = _LOCAL_HEADER.unpack_from(fixed)
            start = member.at + len(fixed) + extra
            if (
                magic == b"PK\x03\x04"
                and method == member_method(key)
                and name == len(key)
                and fixed[-name:] == key.encode()
                and start + member.stored <= self._file.size
            ):
                return int(start)
        raise CorruptContainerError(f"the header of {key} is damaged")

    def _corrupt(self, what: str) -> CorruptContainerError:
        return CorruptContainerError(f"{self.path}: {what}")


def _inflate_document(key: str, member: _Member, deflated: bytes) -> bytes:
    try:
        data = inflate(deflated, member.size, RAW_DEFLATE)
    except CorruptTileError as error:
        raise CorruptContainerError(f"{key}: {error}") from error
    if len(data) != member.size or zlib.crc32(data) != member.crc:
        raise CorruptContainerError(f"{key} does not hold the {member.size} bytes it should, or its checksum is wrong")
    return data


def exactly(data: bytes, size: int, key: str) -> bytes:
    if len(data) != size:
        raise CorruptContainerError(f"{key} is cut short, {len(data)} of {size} bytes are there")
    return data
