"""Writing bytes by key so that the final name only ever shows a complete scene.

Everything goes to ``<destination>.part``, which is locked while a process writes it, synced to disk, and then renamed.
A process that dies leaves only the ``.part``; the next run with the same destination takes it over, and keeps what is
in it if both runs are resumable (`_resumable_sink`).
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import shutil
import tempfile
import threading
import warnings
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Protocol

from ._recognise import ROOT_KEY
from ._store import member_method
from .errors import DestinationBusyError, DestinationError, DestinationExistsError, ObjectStoreError, UsageError
from .location import Location, ObjectUrl, locate

__all__ = [
    "JOURNAL_NAME",
    "LOCK_NAME",
    "DirectorySink",
    "Sink",
    "ZipSink",
    "add_member",
    "check_destination",
    "check_free",
    "checking_place",
    "claimed",
    "discard",
    "empty",
    "explained",
    "is_folder",
    "is_left_over",
    "lock_file",
    "open_sink",
    "part_of",
    "refuse_suffix",
    "remove_scene",
    "replacing",
    "scratch_for",
    "sync_file",
    "sync_folder",
    "take_place",
    "write_file",
]

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same content gives the same file, whenever it is written
LOCK_NAME, JOURNAL_NAME = ".lock", ".journal"  # the latter is `_resumable_sink`'s
_REPLACED = ".old-"  # and something unique; what a folder is called once it is to be replaced


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
    path = locate(destination)
    check_destination(path, overwrite)
    with explained(path):
        if isinstance(path, ObjectUrl):
            from ._object_sink import ObjectSink

            return ObjectSink(path, overwrite)
        return DirectorySink(path, overwrite) if is_folder(path) else ZipSink(path, overwrite)


def check_destination(path: Location, overwrite: bool) -> None:
    """Raise what `open_sink` would for a destination that exists or lies in no folder; writes nothing.

    Warns of a folder that a killed run was replacing.
    """
    if isinstance(path, ObjectUrl):
        from ._object_sink import check_object_destination

        check_object_destination(path, overwrite)
        return
    with explained(path):
        if not path.parent.is_dir():
            raise DestinationError(f"cannot write {path}: the folder {path.parent} does not exist")
        check_free(path, is_folder(path), overwrite)
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise DestinationError(f"cannot write {path}: no permission to write in {path.parent}")
        if is_folder(path):
            for replaced in path.parent.glob(f"{glob.escape(path.name)}{_REPLACED}*"):
                advice = "remove it" if path.exists() else "give it its name back, or remove it"
                warnings.warn(f"{replaced} is what {path.name} was before a run was killed: {advice}", stacklevel=2)


def refuse_suffix(path: Location, suffixes: Collection[str], what: str, right: str) -> None:
    """UsageError for a name that says that the file is something else than what is about to be written."""
    if path.suffix.lower() in suffixes:
        name = f"{path.stem}{right}"
        raise UsageError(f"{path} would hold {what} under the name of another kind of file: call it {name}, say")


def is_folder(path: Location) -> bool:
    """Whether a scene of this name is a folder, by its suffix ``.zarr``."""
    return path.suffix.lower() == ".zarr"


def scratch_for(path: Location) -> Path:
    """A local name in whose folder lies what a scene needs while it is written: beside the scene, where it can be."""
    return Path(tempfile.gettempdir(), path.name) if isinstance(path, ObjectUrl) else path


def part_of(path: Path) -> Path:
    """Where a file or scene lies until it is complete."""
    return path.with_name(path.name + ".part")


def checking_place(path: Path) -> Path:
    """Where a scene lies while it is checked, between its `.part` and its name."""
    return path.with_name(f"{path.stem}.checking{path.suffix}")


def check_free(path: Path, folder: bool, overwrite: bool) -> None:
    if not os.path.lexists(path):  # a link to nowhere is something, too
        return
    if path.is_dir() != folder:
        kind = "a file" if folder else "a folder"
        raise DestinationExistsError(f"{path} is {kind}; choose another name")
    if not overwrite:
        raise DestinationExistsError(f"{path} exists: give another name, or replace it by --overwrite (overwrite=True)")
    # Overwriting a folder deletes it whole: only ever do that to something that is a Zarr store.
    if folder and not (path / ROOT_KEY).is_file() and any(path.iterdir()):
        raise DestinationExistsError(
            f"{path} is a folder but not a scene and will not be replaced; choose another name"
        )


def remove_scene(path: Location) -> None:
    """Remove a scene, file or folder or objects; nothing where there is none. DestinationError if that fails."""
    with explained(path):
        if isinstance(path, ObjectUrl):
            from ._object_sink import remove_objects

            remove_objects(path)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_file(path: Path, data: bytes, overwrite: bool) -> None:
    """Write a small file, which has its name only when it is complete. Raises as `open_sink` does."""
    check_destination(path, overwrite)
    with explained(path), replacing(path) as part:
        part.write_bytes(data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write a file under, which becomes `path` on the disk once the block is done; removed if it fails."""
    part = part_of(path)
    try:
        yield part
        sync_file(part)
        take_place(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def explained(path: Location) -> Iterator[None]:
    """Turn operating system errors into ones that say what to do."""
    try:
        yield
    except DestinationError:
        raise
    except ObjectStoreError as error:
        raise DestinationError(f"cannot write {error}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DestinationError(f"cannot write {path}: disk full; free some space or write elsewhere") from error
        raise DestinationError(f"cannot write {path}: {error.strerror or error}") from error


class ZipSink:
    """A single file; members follow each other in the order of `put`."""

    def __init__(self, path: Path, overwrite: bool):
        self._path, self._overwrite = path, overwrite
        self._part = part_of(path)
        if self._part.is_dir():
            if not is_left_over(self._part):
                raise DestinationError(f"cannot write {path}: {self._part} is a folder; remove it")
            discard(self._part, lock_file(self._part / LOCK_NAME, path))
        self._file = lock_file(self._part, path)
        self._file.truncate(0)
        self._archive = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED, allowZip64=True)
        self._mutex = threading.Lock()
        self._open = True

    def put(self, key: str, data: bytes) -> None:
        """See `Sink.put`."""
        with self._mutex, explained(self._path):
            add_member(self._archive, key, data)

    def commit(self) -> None:
        """See `Sink.commit`."""
        with self._mutex, explained(self._path):
            self._archive.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            check_free(self._path, False, self._overwrite)
            take_place(self._part, self._path, self._file)
            self._open = False

    def abort(self) -> None:
        """See `Sink.abort`."""
        if not self._open:
            return
        self._open = False
        # The file is thrown away: that its last buffers no longer fit on a full disk does not matter any more.
        with contextlib.suppress(OSError, ValueError):
            self._archive.close()
        discard(self._part, self._file)


def add_member(archive: zipfile.ZipFile, key: str, data: bytes) -> None:
    """Append a key to the single file, the same bytes whenever and wherever it is done."""
    info = zipfile.ZipInfo(key, _EPOCH)
    info.create_system, info.external_attr = 3, 0o644 << 16
    archive.writestr(info, data, member_method(key), compresslevel=9)


class DirectorySink:
    """A folder; each key becomes a file, written beside its place and renamed."""

    def __init__(self, path: Path, overwrite: bool):
        self._path, self._overwrite = path, overwrite
        self._part = part_of(path)
        if self._part.exists() and not is_left_over(self._part):
            raise DestinationError(f"cannot write {path}: {self._part} is in the way; remove it")
        self._part.mkdir(exist_ok=True)
        self._lock = lock_file(self._part / LOCK_NAME, path)
        self._open = True
        try:
            self._take_over()
        except BaseException:
            self._lock.close()
            raise

    def _take_over(self) -> None:
        """Remove what an earlier run left."""
        empty(self._part, {LOCK_NAME})

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
                sync_folder(Path(folder))
            check_free(self._path, True, self._overwrite)
            # The lock moves along and goes last: as long as the .part has its name, no other run may clear it.
            try:
                take_place(self._part, self._path, self._lock)
                self._open = False
            finally:
                for name in (JOURNAL_NAME, LOCK_NAME):
                    (self._path / name).unlink(missing_ok=True)

    def abort(self) -> None:
        """See `Sink.abort`."""
        if not self._open:
            return
        self._open = False
        discard(self._part, self._lock)


def is_left_over(part: Path) -> bool:
    """Whether a folder is what a run left that was killed, and not somebody's own."""
    if not part.is_dir():
        return False
    names = set(os.listdir(part))
    return not names or not names.isdisjoint({LOCK_NAME, JOURNAL_NAME, ROOT_KEY})


# --- locks and the file system ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """For the time of a block, let no other run make `path` by way of files beside it. Leaves nothing.

    Yields whether a run was killed in such a block, and may have left such files.

    Raises
    ------
    DestinationBusyError, DestinationError
    """
    name = path.with_name(path.name + ".lock")
    left_behind = os.path.lexists(name)
    with explained(path):
        lock = lock_file(name, path)
    try:
        yield left_behind
    finally:
        discard(name, lock)


def lock_file(lock: Path, destination: Path) -> IO[bytes]:
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


def take_place(part: Path, path: Path, lock: IO[bytes] | None = None) -> None:
    """Give a finished file or folder its name, in place of what has it, and let nothing undo that.

    `lock`, on the file or in the folder, is held until then, where the system can rename what is open, and closed.
    """
    if lock is not None and os.name == "nt":
        lock.close()
    if path.is_dir():
        _replace_folder(part, path)
    else:
        os.replace(part, path)
    if lock is not None:
        lock.close()
    sync_folder(path.parent)


def _replace_folder(part: Path, path: Path) -> None:
    replaced = path.with_name(f"{path.name}{_REPLACED}{secrets.token_hex(4)}")
    path.rename(replaced)
    try:
        os.replace(part, path)
    except BaseException:
        replaced.rename(path)
        raise
    try:
        # What a link leads to is somebody's own.
        replaced.unlink() if replaced.is_symlink() else shutil.rmtree(replaced)
    except OSError as error:
        reason = error.strerror or error
        warnings.warn(
            f"{path} is complete, but what it replaced cannot be removed: {replaced} ({reason})", stacklevel=2
        )


def discard(part: Path, lock: IO[bytes]) -> None:
    """Remove an unfinished .part, still holding the lock where the system can remove what is open."""
    # Called while another error is on its way to the user. What cannot be removed (or flushed: the disk may be full)
    # is worthless anyway and the next run clears it, so it must not hide that error.
    if os.name == "nt":
        with contextlib.suppress(OSError):
            lock.close()
    with contextlib.suppress(OSError):
        empty(part, {LOCK_NAME})  # by which the next run would know the folder, should this one be killed now
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    with contextlib.suppress(OSError):
        lock.close()


def empty(folder: Path, keep: set[str]) -> None:
    """Remove what is in a folder, if it is one."""
    for child in folder.iterdir() if folder.is_dir() else ():
        if child.name not in keep:
            shutil.rmtree(child) if child.is_dir() else child.unlink()


def sync_file(path: Path) -> None:
    """Have a closed file on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut; Windows has no such call and needs none."""
    if os.name == "nt" or not os.access(folder, os.R_OK):  # one may write in a folder that one may not list
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
