"""Files read at any place, from many threads at once."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path
from typing import Protocol

from .errors import CorruptContainerError, NotAContainerError

__all__ = ["Cursor", "LocalFile", "RandomAccess"]


class RandomAccess(Protocol):
    """A file to be read at any place from any thread."""

    size: int

    def pread(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on, fewer where the file ends."""

    def close(self) -> None:
        """Release it; reading afterwards fails."""


class LocalFile:
    """A file of the local file system; see `RandomAccess`."""

    def __init__(self, path: Path):
        self._lock = threading.Lock()
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise NotAContainerError(f"{path} cannot be read: {error.strerror}") from error
        self.size = os.fstat(self._file.fileno()).st_size

    def pread(self, offset: int, size: int) -> bytes:
        """See `RandomAccess.pread`. Raises `CorruptContainerError` where the disk fails."""
        pieces = []
        try:
            # One call may give less than there is: after a signal, from a network, or because it is over 2 GiB.
            while size > 0 and (piece := self._read(offset, size)):
                pieces.append(piece)
                offset, size = offset + len(piece), size - len(piece)
        except OSError as error:
            raise CorruptContainerError(f"the file cannot be read: {error.strerror or error}") from error
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read(self, offset: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), size, offset)
        with self._lock:  # Windows
            self._file.seek(offset)
            return self._file.read(size)

    def close(self) -> None:
        """See `RandomAccess.close`."""
        self._file.close()


class Cursor(io.RawIOBase):
    """A file with a position, as zipfile wants one."""

    def __init__(self, file: RandomAccess):
        self._file, self._at = file, 0

    def seekable(self) -> bool:
        """Always."""
        return True

    def readable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        if start + offset < 0:
            raise OSError("a position before the file")
        self._at = start + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """From the position on."""
        left = max(0, self._file.size - self._at)
        data = self._file.pread(self._at, left if size is None or size < 0 else min(size, left))
        self._at += len(data)
        return data
