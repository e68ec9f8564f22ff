"""A sink whose unfinished scene is worth keeping: what one run stored, the next one finds.

Both forms of a scene are written as a folder ``<destination>.part`` with one file per key, and a journal that lists
size and SHA-256 of every key once its bytes are on disk. A run that dies, or is stopped, leaves that folder; the next
one keeps what is there as the journal says, provided it makes the same scene of the same source. A single file is
packed from the folder at the end, in the order in which a run without a break writes it, so that its bytes do not tell
which run stored what.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from ._sink import (
    JOURNAL_NAME,
    LOCK_NAME,
    DirectorySink,
    add_member,
    check_destination,
    check_free,
    discard,
    empty,
    explained,
    is_folder,
    is_left_over,
    lock_file,
    part_of,
    sync_folder,
    take_place,
)
from ._store import KEY
from .errors import DestinationExistsError
from .manifest import Record

__all__ = ["ResumableSink", "discard_unfinished", "open_resumable_sink", "refuse_unfinished"]

_PACKED_NAME = ".packed"
_SHARD = re.compile(r"\d+/(g\d+|alpha|mask)/c/")


def open_resumable_sink(
    destination: str | os.PathLike[str], overwrite: bool, identity: str, order: Sequence[str]
) -> ResumableSink:
    """Begin to write a scene, or continue; see `ResumableSink`.

    Raises
    ------
    DestinationExistsError, DestinationBusyError, DestinationError
    """
    path = Path(destination)
    check_destination(path, overwrite)
    with explained(path):
        return ResumableSink(path, overwrite, identity, order)


def discard_unfinished(path: Path) -> None:
    """Remove the folder that an unfinished run left of the scene `path`; does nothing if there is none.

    Raises
    ------
    DestinationBusyError
        Another process is writing it.
    """
    part = part_of(path)
    if is_left_over(part):
        with explained(path):
            _discard_staged(part, lock_file(part / LOCK_NAME, path))


def refuse_unfinished(path: Path) -> None:
    """DestinationExistsError where a run that is not going on from it would remove what an earlier one stored."""
    part = part_of(path)
    with explained(path):
        journal = part / JOURNAL_NAME
        lines = journal.read_text("utf-8", "replace").splitlines() if journal.is_file() else []
    if shards := sum(_SHARD.match(_key(line)) is not None for line in lines):
        raise DestinationExistsError(
            f"{part} holds {shards} finished shards of a run that did not end: go on from them with --resume "
            "(resume=True), or discard them with --overwrite (overwrite=True)"
        )


class ResumableSink(DirectorySink):
    """See `Sink`; but `abort` leaves what was stored to the next run.

    Parameters
    ----------
    path : Path
        ``*.zarr`` becomes a folder, anything else a single file.
    overwrite : bool
    identity : str
        One line that stands for source, settings and weights. What a run with another one left is removed.
    order : sequence of str
        The keys of a single file as they are to follow each other.

    Attributes
    ----------
    kept : dict of str to Record
        What earlier runs stored completely.
    """

    def __init__(self, path: Path, overwrite: bool, identity: str, order: Sequence[str]):
        self._order = order
        self._identity, self._mutex = identity, threading.Lock()
        self.kept: dict[str, Record] = {}
        if (part := part_of(path)).is_file() and not is_folder(path):  # of a run that was not resumable
            discard(part, lock_file(part, path))
        super().__init__(path, overwrite)

    def _take_over(self) -> None:
        journal = self._part / JOURNAL_NAME
        if journal.is_file():
            self.kept = dict(_sound_keys(self._part, journal.read_text("utf-8", "replace").split("\n"), self._identity))
        self._remove_others()
        # Written anew rather than continued: a run that died may have left half a line at its end.
        fresh = journal.with_name(f"{JOURNAL_NAME}.new")
        lines = [self._identity, *(_line(key, record) for key, record in self.kept.items())]
        self._journal = fresh.open("w", encoding="utf-8", newline="\n")
        self._note(*lines)
        os.replace(fresh, journal)
        sync_folder(self._part)

    def _remove_others(self) -> None:
        keep = {LOCK_NAME, JOURNAL_NAME, *self.kept}
        for folder, _, names in os.walk(self._part, topdown=False):
            for name in names:
                file = Path(folder, name)
                if file.relative_to(self._part).as_posix() not in keep:
                    file.unlink()
            if not os.listdir(folder):
                os.rmdir(folder)

    def _note(self, *lines: str) -> None:
        self._journal.writelines(f"{line}\n" for line in lines)
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def put(self, key: str, data: bytes) -> None:
        """See `Sink.put`. What was kept and is the same is not stored again."""
        record = Record.of(data)
        if self.kept.get(key) != record:
            super().put(key, data)
            with self._mutex, explained(self._path):
                self._note(_line(key, record))

    def read(self, key: str) -> bytes:
        """What is stored under a key."""
        with explained(self._path):
            return (self._part / key).read_bytes()

    def commit(self) -> None:
        """See `Sink.commit`."""
        self._journal.close()
        if is_folder(self._path):
            super().commit()
            return
        with explained(self._path):
            packed = self._part / _PACKED_NAME
            with packed.open("wb") as file:
                self._pack(file)
                file.flush()
                os.fsync(file.fileno())
            check_free(self._path, False, self._overwrite)
            take_place(packed, self._path)
            self._open = False
        _discard_staged(self._part, self._lock)

    def _pack(self, file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for key in (key for key in self._order if (self._part / key).is_file()):
                add_member(archive, key, self.read(key))

    def abort(self) -> None:
        """Leave what was stored to the next run."""
        if self._open:
            self._open = False
            self._journal.close()
            self._lock.close()


def _discard_staged(part: Path, lock: IO[bytes]) -> None:
    """`discard`, with the journal last: a run that is killed meanwhile leaves what the next one knows as its own."""
    with contextlib.suppress(OSError):  # as in `discard`
        empty(part, {JOURNAL_NAME, LOCK_NAME})
        (part / JOURNAL_NAME).unlink()
    discard(part, lock)


def _line(key: str, record: Record) -> str:
    return f"{record.checksum} {record.size} {key}"


def _key(line: str) -> str:
    return line.rpartition(" ")[2]


def _sound_keys(part: Path, journal: list[str], identity: str) -> Iterator[tuple[str, Record]]:
    """The keys that the journal names and the folder holds, with the bytes that the journal means."""
    if journal[0] != identity:
        return
    noted = {_key(line): line for line in journal[1:]}  # the last word on a key counts
    for key, line in noted.items():
        file = part / key
        if KEY.fullmatch(key) and file.is_file():
            record = Record.of(file.read_bytes())
            if line == _line(key, record):
                yield key, record
