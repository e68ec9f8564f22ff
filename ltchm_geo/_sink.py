"""Writing bytes by key so that the final name only ever shows a complete scene.

Everything goes to ``<destination>.part``, which is locked while a process writes it, synced to disk, and then renamed.
A process that dies leaves only the ``.part``; the next run with the same destination takes it over.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

from ._store import member_method
from .errors import DestinationBusyError, DestinationError, DestinationExistsError

__all__ = ["DirectorySink", "Sink", "ZipSink", "check_destination", "explained", "is_folder", "open_sink", "write_file"]

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same content gives the same file, whenever it is written
_LOCK_NAME = ".lock"
_MARKER = "zarr.json"


class Sink(Protocol):
    """Write-once bytes by key. `put` may be called from many threads."""

    def put(self, key: str, data: bytes) -> None:
        """Store a new key."""

    def commit(self) -> None:
        """Sync to disk and give the scene its final name."""

    def abort(self) -> None:
        """Remove everything written. Does nothing after `commit`."""


def open_sink(destination: str | os.PathLike[str], overwrite: bool) -> Sink:
    """Begin to write a scene: a folder when the name ends in ``.zarr``, a single file otherwise.

    Raises
    ------
    DestinationExistsError, DestinationBusyError, DestinationError
    """
    path = Path(destination)
    check_destination(path, overwrite)
    with explained(path):
        return DirectorySink(path, overwrite) if is_folder(path) else ZipSink(path, overwrite)


def check_destination(path: Path, overwrite: bool) -> None:
    """Raise what `open_sink` would for a destination that exists or lies in no folder; writes nothing."""
    with explained(path):
        if not path.parent.is_dir():
            raise DestinationError(f"cannot write {path}: the folder {path.parent} does not exist")
        _check_free(path, is_folder(path), overwrite)


def is_folder(path: Path) -> bool:
    """Whether a scene of this name is a folder, by its suffix ``.zarr``."""
    return path.suffix.lower() == ".zarr"


def _check_free(path: Path, folder: bool, overwrite: bool) -> None:
    if not path.exists():
        return
    if not overwrite:
        raise DestinationExistsError(f"{path} exists; remove it, choose another name, or ask to overwrite")
    if path.is_dir() != folder:
        kind = "a file" if folder else "a folder"
        raise DestinationExistsError(f"{path} is {kind}; choose another name")
    # Overwriting a folder deletes it whole: only ever do that to something that is a Zarr store.
    if folder and not (path / _MARKER).is_file() and any(path.iterdir()):
        raise DestinationExistsError(
            f"{path} is a folder but not a scene and will not be replaced; choose another name"
        )


def write_file(path: Path, data: bytes, overwrite: bool) -> None:
    """Write a small file, which has its name only when it is complete. Raises as `open_sink` does."""
    check_destination(path, overwrite)
    part = path.with_name(path.name + ".part")
    try:
        with explained(path):
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn operating system errors into ones that say what to do."""
    try:
        yield
    except DestinationError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DestinationError(f"cannot write {path}: disk full; free some space or write elsewhere") from error
        raise DestinationError(f"cannot write {path}: {error.strerror or error}") from error


class ZipSink:
    """A single file; members follow each other in the order of `put`."""

    def __init__(self, path: Path, overwrite: bool):
        self._path, self._overwrite = path, overwrite
        self._part = path.with_name(path.name + ".part")
        if self._part.is_dir():
            raise DestinationError(f"cannot write {path}: {self._part} is a folder; remove it")
        self._file = _lock_file(self._part, path)
        self._file.truncate(0)
        self._archive = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED, allowZip64=True)
        self._mutex = threading.Lock()
        self._open = True

    def put(self, key: str, data: bytes) -> None:
        """See `Sink.put`."""
        info = zipfile.ZipInfo(key, _EPOCH)
        info.create_system, info.external_attr = 3, 0o644 << 16
        with self._mutex, explained(self._path):
            self._archive.writestr(info, data, member_method(key), compresslevel=9)

    def commit(self) -> None:
        """See `Sink.commit`."""
        with self._mutex, explained(self._path):
            self._archive.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            _check_free(self._path, False, self._overwrite)
            _replace_locked(self._part, self._path, self._file)
            self._open = False
            _sync_folder(self._path.parent)

    def abort(self) -> None:
        """See `Sink.abort`."""
        if not self._open:
            return
        self._open = False
        # The file is thrown away: that its last buffers no longer fit on a full disk does not matter any more.
        with contextlib.suppress(OSError, ValueError):
            self._archive.close()
        _discard(self._part, self._file)


class DirectorySink:
    """A folder; each key becomes a file, written beside its place and renamed."""

    def __init__(self, path: Path, overwrite: bool):
        self._path, self._overwrite = path, overwrite
        self._part = path.with_name(path.name + ".part")
        if self._part.exists() and not self._part.is_dir():
            raise DestinationError(f"cannot write {path}: {self._part} is in the way; remove it")
        self._part.mkdir(exist_ok=True)
        self._lock = _lock_file(self._part / _LOCK_NAME, path)
        for left_over in self._part.iterdir():
            if left_over.name != _LOCK_NAME:
                shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()
        self._open = True

    def put(self, key: str, data: bytes) -> None:
        """See `Sink.put`."""
        with explained(self._path):
            target = self._part / key
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{threading.get_ident()}")
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)

    def commit(self) -> None:
        """See `Sink.commit`."""
        with explained(self._path):
            for folder, _, _ in os.walk(self._part):
                _sync_folder(Path(folder))
            _check_free(self._path, True, self._overwrite)
            replaced = self._path.with_name(f"{self._path.name}.old-{os.getpid()}")
            if self._path.exists():
                self._path.rename(replaced)  # fails rather than touch a folder that has this name already
            # The lock moves along and goes last: as long as the .part has its name, no other run may clear it.
            _replace_locked(self._part, self._path, self._lock)
            self._open = False
            (self._path / _LOCK_NAME).unlink()
            if replaced.exists():
                shutil.rmtree(replaced)
            _sync_folder(self._path.parent)

    def abort(self) -> None:
        """See `Sink.abort`."""
        if not self._open:
            return
        self._open = False
        _discard(self._part, self._lock)


# --- locks and the file system ---------------------------------------------------------------------------------------


def _lock_file(lock: Path, destination: Path) -> IO[bytes]:
    """Open `lock`, created if need be, and hold an exclusive lock on it until it is closed."""
    while True:
        file = os.fdopen(os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b")
        try:
            _lock_exclusively(file, lock)
            # Another run may have finished and renamed this very file between our opening and our locking it.
            if os.path.lexists(lock) and os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
                return file
        except BlockingIOError as error:
            file.close()
            raise DestinationBusyError(
                f"another process is writing {destination}; wait for it or choose another name"
            ) from error
        except BaseException:
            file.close()
            raise
        file.close()


def _lock_exclusively(file: IO[bytes], lock: Path) -> None:
    if os.name == "nt":
        import msvcrt

        file.seek(1 << 40)  # far behind the data: on Windows a locked range cannot be read
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except PermissionError as error:
            raise BlockingIOError(str(error)) from error
        finally:
            file.seek(0)
    else:
        import fcntl

        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError as error:  # some network and cluster file systems have no locks; writing there is still wanted
            warnings.warn(f"{lock} cannot be locked ({error}): do not write it twice at once", stacklevel=2)


def _replace_locked(part: Path, path: Path, lock: IO[bytes]) -> None:
    """Rename while holding the lock, where the system can rename what is open."""
    if os.name == "nt":
        lock.close()
    os.replace(part, path)
    lock.close()


def _discard(part: Path, lock: IO[bytes]) -> None:
    """Remove an unfinished .part, still holding the lock where the system can remove what is open."""
    # Called while another error is on its way to the user. What cannot be removed (or flushed: the disk may be full)
    # is worthless anyway and the next run clears it, so it must not hide that error.
    if os.name == "nt":
        with contextlib.suppress(OSError):
            lock.close()
    with contextlib.suppress(OSError):
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    with contextlib.suppress(OSError):
        lock.close()


def _sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
