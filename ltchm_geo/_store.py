"""Reading bytes by key from a scene, be it a ZIP_STORED file or a folder. Knows nothing of what the bytes mean.

Members of the ZIP file are read with `os.pread` at offsets taken from its directory once: many threads can read at the
same time, and a tile costs one system call.
"""

from __future__ import annotations

import os
import re
import struct
import threading
import zipfile
from pathlib import Path
from typing import Protocol

from .errors import CorruptContainerError, NotAContainerError

__all__ = ["KEY", "DirectoryStore", "Store", "ZipStore", "open_store"]

MAX_MEMBERS = 1 << 20
_MAX_NAME = 255
# Plain segments of letters, digits, '_', '-' and inner dots: no absolute path, no "..", no backslash, no drive letter.
KEY = re.compile(r"(?!\.)[A-Za-z0-9_.-]+(?:/(?!\.)[A-Za-z0-9_.-]+)*")
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_END, _END64 = struct.Struct("<4s8xI6x"), struct.Struct("<4s36xQ8x")  # of either, the magic and the directory's size
_MAX_DIRECTORY = 1 << 27


class Store(Protocol):
    """Read-only bytes by key. Thread-safe. Errors name the key; the path is the caller's to add."""

    path: Path

    def __contains__(self, key: str) -> bool:
        """Whether the key is there."""

    def size(self, key: str) -> int:
        """Bytes stored under the key."""

    def read(self, key: str, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset` on; CorruptContainerError when they are not there."""

    def keys(self) -> set[str] | None:
        """All keys, or None where listing them is not cheap."""

    def total_size(self) -> int | None:
        """Bytes the store takes up, or None where that is the sum over its keys."""

    def close(self) -> None:
        """Release the file; reading afterwards fails."""


def open_store(path: str | os.PathLike[str]) -> Store:
    """Open a scene for reading, whichever form it has."""
    path = Path(path)
    if path.is_dir():
        return DirectoryStore(path)
    if not path.exists():
        raise NotAContainerError(f"{path}: no such file or folder")
    return ZipStore(path)


class DirectoryStore:
    """A scene kept as a folder; files are opened as they are read."""

    def __init__(self, path: Path):
        self.path = path

    def __contains__(self, key: str) -> bool:
        return self._file(key).is_file()

    def size(self, key: str) -> int:
        """See `Store.size`."""
        try:
            return self._file(key).stat().st_size
        except OSError as error:
            raise CorruptContainerError(f"{key} is missing: {error.strerror}") from error

    def read(self, key: str, offset: int, size: int) -> bytes:
        """See `Store.read`."""
        try:
            with self._file(key).open("rb") as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise CorruptContainerError(f"{key} cannot be read: {error.strerror}") from error
        return _exactly(data, size, key)

    def keys(self) -> set[str] | None:
        """See `Store.keys`."""
        return None

    def total_size(self) -> int | None:
        """See `Store.total_size`."""
        return None

    def close(self) -> None:
        """See `Store.close`."""

    def _file(self, key: str) -> Path:
        if not KEY.fullmatch(key):
            raise CorruptContainerError(f"unsafe name {key!r}")
        return self.path / key


class ZipStore:
    """A scene in one file whose members are stored, never deflated.

    Raises
    ------
    NotAContainerError
        When it is not a ZIP file at all.
    CorruptContainerError
        When it is cut short, or its directory is one that the writer cannot have made.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise NotAContainerError(f"{path} cannot be read: {error.strerror}") from error
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            self._ranges = self._directory()
        except BaseException:
            self._file.close()
            raise

    def _directory(self) -> dict[str, tuple[int, int]]:
        """Header offset and size of each member, checked."""
        if self._pread(0, 4) != b"PK\x03\x04":
            raise NotAContainerError(f"{self.path} is not a compressed scene")
        self._check_directory_size()
        try:
            with zipfile.ZipFile(self._file) as archive:
                members, end = archive.infolist(), archive.start_dir
        except (zipfile.BadZipFile, OSError, ValueError, struct.error, NotImplementedError, OverflowError) as error:
            raise self._corrupt(f"the file is cut short or was never finished ({error})") from error
        if len(members) > MAX_MEMBERS:
            raise self._corrupt(f"{len(members)} members, at most {MAX_MEMBERS} are allowed")
        ranges: dict[str, tuple[int, int]] = {}
        free = 0  # members may not overlap: that is how a small file pretends to be huge
        for member in sorted(members, key=lambda m: m.header_offset):
            name, at, size = member.filename, member.header_offset, member.file_size
            if len(name) > _MAX_NAME or not KEY.fullmatch(name) or member.orig_filename != name:
                raise self._corrupt(f"unsafe member name {name[:_MAX_NAME]!r}")
            if name in ranges:
                raise self._corrupt(f"two members are named {name}")
            if member.compress_type != zipfile.ZIP_STORED or member.compress_size != size or member.flag_bits & 0x41:
                raise self._corrupt(f"{name} is compressed or encrypted; members must be stored as they are")
            if at < free or at + _LOCAL_HEADER.size + len(name) + size > end:
                raise self._corrupt(f"{name} overlaps another member or lies outside the file")
            free = at + _LOCAL_HEADER.size + len(name) + size
            ranges[name] = (at, size)
        return ranges

    def _check_directory_size(self) -> None:
        """Refuse, before zipfile builds an object for each member, a directory that no scene needs."""
        tail = self._pread(max(0, self._size - 98), 98)  # the records "end64" (56), "locator" (20) and "end" (22)
        if tail[-22:-18] != b"PK\x05\x06":
            raise self._corrupt("the file is cut short, was never finished, or has something appended")
        size = _END.unpack(tail[-22:])[1]
        if size == 2**32 - 1 and len(tail) == 98 and tail[-42:-38] == b"PK\x06\x07":
            size = _END64.unpack(tail[:56])[1]
        if size > _MAX_DIRECTORY:
            raise self._corrupt(f"its directory of {size} bytes is larger than the {_MAX_DIRECTORY} allowed")

    def __contains__(self, key: str) -> bool:
        return key in self._ranges

    def size(self, key: str) -> int:
        """See `Store.size`."""
        return self._range(key)[1]

    def read(self, key: str, offset: int, size: int) -> bytes:
        """See `Store.read`."""
        header, total = self._range(key)
        if offset < 0 or size < 0 or offset + size > total:
            raise CorruptContainerError(f"{key} has {total} bytes, {size} at {offset} were asked for")
        return _exactly(self._pread(self._data_offset(key, header, total) + offset, size), size, key)

    def keys(self) -> set[str] | None:
        """See `Store.keys`."""
        return set(self._ranges)

    def total_size(self) -> int | None:
        """See `Store.total_size`."""
        return self._size

    def close(self) -> None:
        """See `Store.close`."""
        self._file.close()

    def _range(self, key: str) -> tuple[int, int]:
        try:
            return self._ranges[key]
        except KeyError:
            raise CorruptContainerError(f"{key} is missing") from None

    def _data_offset(self, key: str, header: int, size: int) -> int:
        # The writer leaves the extra field empty, so a member's data begins right behind its name. A file repacked by
        # other tools may have one: read its length, and check that this is the right header at all.
        fixed = self._pread(header, _LOCAL_HEADER.size + len(key))
        if len(fixed) == _LOCAL_HEADER.size + len(key):
            magic, name, extra = _LOCAL_HEADER.unpack_from(fixed)
            start = header + len(fixed) + extra
            if (
                magic == b"PK\x03\x04"
                and name == len(key)
                and fixed[-name:] == key.encode()
                and start + size <= self._size
            ):
                return int(start)
        raise CorruptContainerError(f"the header of {key} is damaged")

    def _pread(self, offset: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), size, offset)
        with self._lock:  # Windows
            self._file.seek(offset)
            return self._file.read(size)

    def _corrupt(self, what: str) -> CorruptContainerError:
        return CorruptContainerError(f"{self.path}: {what}")


def _exactly(data: bytes, size: int, key: str) -> bytes:
    if len(data) != size:
        raise CorruptContainerError(f"{key} is cut short, {len(data)} of {size} bytes are there")
    return data
