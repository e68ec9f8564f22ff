"""What an archive has done so far, in an SQLite file that survives kill -9 and power cuts.

Every change of a scene's state is one transaction, on disk when the call returns. The file uses SQLite's rollback
journal, which unlike its write-ahead log works on network file systems; other programs may read while a run writes.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self, get_args

from .._sink import explained, lock_file
from ..errors import ArchiveError, DestinationBusyError

__all__ = ["Journal", "SceneRecord", "State"]

State = Literal["waiting", "running", "done", "failed", "skipped"]

SCHEMA_VERSION = 1
_APPLICATION = 0x4C544348  # "LTCH": tells a journal from other SQLite files
_SCHEMA = {
    "settings": "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "scenes": """CREATE TABLE scenes (
    result TEXT PRIMARY KEY,
    source TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    interruptions INTEGER NOT NULL,
    error TEXT,
    passing INTEGER NOT NULL,
    fingerprint TEXT,
    replaced TEXT,
    source_bytes INTEGER,
    raw_bytes INTEGER,
    bytes INTEGER,
    bpp REAL,
    psnr TEXT,
    max_error TEXT,
    seconds REAL,
    sha256 TEXT,
    verified INTEGER NOT NULL,
    finished TEXT
)""",
}
_WAIT_S = 30  # for a program that reads the journal just now


@dataclass(frozen=True)
class SceneRecord:
    """One scene of an archive.

    Attributes
    ----------
    result : str
        Path below the archive, with "/".
    source : str
        What it is made from.
    state : State
        "skipped" is a scene that is left alone on purpose; `error` says why.
    attempts, interruptions : int
        How often it was begun, and how often the process ended in the middle.
    error : str or None
        Of the last attempt, if that failed.
    passing : bool
        Whether that error may pass by itself.
    fingerprint : str or None
        State of the source when it was last begun (`ltchm_geo.fingerprint`).
    replaced : str or None
        What lay under the result's name when the scene was last begun.
    source_bytes, raw_bytes, bytes : int or None
        Size of the source's files, of the pixels uncompressed, of the result.
    bpp : float or None
        Bits per pixel position.
    psnr, max_error : tuple of float or None
        Per band, if measured.
    seconds : float or None
        Of the attempt that finished it.
    sha256 : str or None
        Of the result; of its manifest where the result is a folder.
    verified : bool
        Whether every tile was decoded after writing.
    finished : str or None
        When, in UTC.
    """

    result: str
    source: str
    state: State = "waiting"
    attempts: int = 0
    interruptions: int = 0
    error: str | None = None
    passing: bool = False
    fingerprint: str | None = None
    replaced: str | None = None
    source_bytes: int | None = None
    raw_bytes: int | None = None
    bytes: int | None = None
    bpp: float | None = None
    psnr: tuple[float, ...] | None = None
    max_error: tuple[float, ...] | None = None
    seconds: float | None = None
    sha256: str | None = None
    verified: bool = False
    finished: str | None = None

    @property
    def ratio(self) -> float | None:
        """raw_bytes / bytes."""
        return self.raw_bytes / self.bytes if self.raw_bytes and self.bytes else None


_COLUMNS = tuple(field.name for field in fields(SceneRecord))
_FLAGS, _LISTS = ("passing", "verified"), ("psnr", "max_error")
_INTEGERS, _REALS = ("attempts", "interruptions", "source_bytes", "raw_bytes", "bytes"), ("bpp", "seconds")


class Journal:
    """The journal of one archive, held by one process at a time. Safe to use from any number of threads.

    Parameters
    ----------
    path : Path
        Created if it is not there.
    archive : Path
        The archive, for messages.

    Raises
    ------
    DestinationBusyError
        Another process works on this archive.
    ArchiveError
        The file is damaged, or no journal, or one of a newer version.
    DestinationError
        It cannot be written.
    """

    def __init__(self, path: Path, archive: str):
        self._path, self._mutex = path, threading.Lock()
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock = lock_file(_lock_of(path), path)
            except DestinationBusyError as error:
                raise DestinationBusyError(f"another process works on the archive {archive}: wait for it") from error
        try:
            self._db = self._open()
        except BaseException:
            self._unlock()
            raise

    def _open(self) -> sqlite3.Connection:
        db = None
        try:
            db = sqlite3.connect(self._path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
            for pragma in ("trusted_schema = OFF", "journal_mode = DELETE", "synchronous = EXTRA"):
                db.execute(f"PRAGMA {pragma}")
            self._check_or_create(db)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if db is not None:
                db.close()
            raise self._damaged(str(error)) from error
        except ArchiveError:
            db.close()  # type: ignore[union-attr]  # raised once it is open
            raise
        return db

    def _check_or_create(self, db: sqlite3.Connection) -> None:
        (application,), (version,) = (db.execute(f"PRAGMA {p}").fetchone() for p in ("application_id", "user_version"))
        found = dict(db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
        if not found and application == version == 0:
            with _transaction(db):
                for statement in _SCHEMA.values():
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {_APPLICATION}")
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            return
        if application != _APPLICATION:
            raise ArchiveError(f"{self._path} is not a journal of an archive: choose another name with --journal")
        if version > SCHEMA_VERSION:
            raise ArchiveError(
                f"{self._path} is a journal of version {version}, newer than {SCHEMA_VERSION}: update ltchm_geo"
            )
        # A trigger or view in a journal from an unknown hand could do anything with what is written: there are none.
        if found != _SCHEMA:
            raise self._damaged("its tables are not those of a journal")
        if (report := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise self._damaged(report)

    def close(self) -> None:
        """Let other runs use the journal."""
        self._db.close()
        self._unlock()

    def _unlock(self) -> None:
        # Removed while it is still held: whoever opened it meanwhile sees that it is gone, and makes a new one.
        with contextlib.suppress(OSError):
            _lock_of(self._path).unlink()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def settings(self) -> dict[str, Any] | None:
        """What the archive is made with; None in a new journal."""
        found = self._query("SELECT value FROM settings WHERE name = 'compress'")
        try:
            settings = json.loads(found[0][0]) if found else None
        except (TypeError, ValueError) as error:
            raise self._damaged(f"its settings are not JSON: {error}") from error
        if settings is not None and not isinstance(settings, dict):
            raise self._damaged("its settings are not an object")
        return settings

    def scenes(self) -> list[SceneRecord]:
        """All scenes, by result."""
        rows = self._query(f"SELECT {', '.join(_COLUMNS)} FROM scenes ORDER BY result")
        return [self._record(row) for row in rows]

    def put(self, scenes: Iterable[SceneRecord], settings: Mapping[str, Any] | None = None) -> None:
        """Record the state of scenes, and what the archive is made with unless that stays; all of it or nothing."""
        marks = ", ".join("?" * len(_COLUMNS))
        try:
            with self._mutex, _transaction(self._db):
                if settings is not None:
                    text = json.dumps(settings, sort_keys=True)
                    self._db.execute("INSERT OR REPLACE INTO settings VALUES ('compress', ?)", (text,))
                statement = f"INSERT OR REPLACE INTO scenes ({', '.join(_COLUMNS)}) VALUES ({marks})"
                self._db.executemany(statement, map(_row, scenes))
        except sqlite3.Error as error:
            raise ArchiveError(f"the journal {self._path} cannot be written: {error}") from error

    def _query(self, statement: str) -> list[tuple[Any, ...]]:
        try:
            with self._mutex:
                return self._db.execute(statement).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise self._damaged(str(error)) from error

    def _record(self, row: tuple[Any, ...]) -> SceneRecord:
        try:
            found = dict(zip(_COLUMNS, row, strict=True))
            _check(found)
            found |= {name: bool(found[name]) for name in _FLAGS}
            found |= {name: _list(found[name]) for name in _LISTS}
            return SceneRecord(**found)
        except (TypeError, ValueError) as error:
            raise self._damaged(f"the entry of {row[0]!r} makes no sense: {error}") from error

    def _damaged(self, what: str) -> ArchiveError:
        return ArchiveError(
            f"the journal {self._path} is damaged ({what}): remove it and start with --overwrite, which makes all anew"
        )


def _lock_of(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


class _transaction:
    """All or nothing, and on disk at the end."""

    def __init__(self, db: sqlite3.Connection):
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")


def _row(scene: SceneRecord) -> tuple[Any, ...]:
    found = {name: getattr(scene, name) for name in _COLUMNS}
    for name in _LISTS:
        found[name] = None if found[name] is None else json.dumps([repr(float(value)) for value in found[name]])
    return tuple(found.values())


def _list(value: Any) -> tuple[float, ...] | None:
    return None if value is None else tuple(float(item) for item in json.loads(value))


def _check(found: Mapping[str, Any]) -> None:
    """ValueError unless the values are of their types, and the result lies below the archive."""
    place = PurePosixPath(found["result"])
    if place.is_absolute() or ".." in place.parts or not place.name or (os.name == "nt" and "\\" in found["result"]):
        raise ValueError("its result lies outside the archive")
    if found["state"] not in get_args(State):
        raise ValueError(f"state {found['state']!r}")
    for name, value in found.items():
        kind = int if name in (*_INTEGERS, *_FLAGS) else float if name in _REALS else str
        if value is not None and not isinstance(value, kind):
            raise ValueError(f"{name} is {value!r}")
        if isinstance(value, int | float) and value < 0:
            raise ValueError(f"{name} is {value}")
