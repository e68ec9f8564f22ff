"""The journal: what it keeps, who may have it, and what it does not believe."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ltchm_geo.archive.journal import Journal, SceneRecord
from ltchm_geo.errors import ArchiveError, DestinationBusyError

FULL = SceneRecord(
    "a/b.ltchm",
    "/data/ä.tif",
    "done",
    attempts=2,
    interruptions=1,
    error=None,
    fingerprint="[]",
    replaced="1 2 3",
    source_bytes=10,
    raw_bytes=2**40,
    bytes=7,
    bpp=0.125,
    psnr=(30.5, math.inf),
    max_error=(3.0, 0.0),
    seconds=1.5,
    sha256="ab" * 32,
    verified=True,
    finished="2024-01-02T03:04:05+00:00",
)
OTHER = SceneRecord("c.ltchm", "c.tif")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Journal(tmp_path / "journal.sqlite", "archive") as journal:
        journal.put([FULL, OTHER], {"quality": 3})
    return tmp_path / "journal.sqlite"


def test_what_was_put(path: Path) -> None:
    with Journal(path, "archive") as journal:
        assert journal.scenes() == [FULL, OTHER]
        assert journal.settings() == {"quality": 3}
        changed = replace(OTHER, state="failed", error="no", passing=True)
        journal.put([changed])
        assert journal.scenes() == [FULL, changed]
    assert os.listdir(path.parent) == [path.name]


def test_all_or_nothing(path: Path) -> None:
    with Journal(path, "archive") as journal:
        with pytest.raises(ArchiveError, match="cannot be written"):
            journal.put([replace(OTHER, attempts=9), replace(FULL, source=None)], {"quality": 4})  # type: ignore[arg-type]
        assert (journal.scenes(), journal.settings()) == ([FULL, OTHER], {"quality": 3})


def test_one_process_at_a_time(path: Path) -> None:
    with Journal(path, "archive"), pytest.raises(DestinationBusyError, match="works on the archive archive"):
        Journal(path, "archive")
    Journal(path, "archive").close()


def test_readable_while_in_use(path: Path) -> None:
    with Journal(path, "archive") as journal:
        journal.put([OTHER])
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        assert db.execute("SELECT count(*) FROM scenes").fetchone() == (2,)
        db.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no kill -9")
def test_kill_9(path: Path) -> None:
    code = (
        "import itertools, sys\nfrom pathlib import Path\n"
        "from ltchm_geo.archive.journal import Journal, SceneRecord\n"
        "journal = Journal(Path(sys.argv[1]), 'x')\n"
        "for n in itertools.count():\n"
        "    journal.put([SceneRecord(f'{n}.ltchm', 's', attempts=n), SceneRecord(f'{n}-b.ltchm', 's')])\n"
        "    print(n, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = [int(child.stdout.readline()) for _ in range(20)]
        child.send_signal(signal.SIGKILL)
    with Journal(path, "archive") as journal:
        names = {scene.result for scene in journal.scenes()}
    assert {f"{n}.ltchm" for n in said} | {f"{n}-b.ltchm" for n in said} <= names
    assert len(names) % 2 == 0  # each pair whole or not at all


def sql(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("PRAGMA user_version = 99", "version 99"),
        ("PRAGMA application_id = 5", "not a journal"),
        ("DROP TABLE settings", "tables are not those"),
        ("CREATE TABLE more (x)", "tables are not those"),
        ("CREATE TRIGGER t AFTER UPDATE ON scenes BEGIN DELETE FROM scenes; END", "tables are not those"),
        ("UPDATE scenes SET result = '../../etc/passwd' WHERE state = 'done'", "outside the archive"),
        ("UPDATE scenes SET result = '/etc/passwd' WHERE state = 'done'", "outside the archive"),
        ("UPDATE scenes SET state = 'maybe'", "state 'maybe'"),
        ("UPDATE scenes SET attempts = -1", "attempts is -1"),
        ("UPDATE scenes SET bytes = 'many'", "bytes is 'many'"),
        ("UPDATE scenes SET psnr = '[1'", "makes no sense"),
        ("UPDATE scenes SET psnr = '{\"a\": 1}'", "makes no sense"),
        ("UPDATE scenes SET source = x'ff'", "source is b"),
        ("UPDATE settings SET value = '[]'", "not an object"),
        ("UPDATE settings SET value = '{'", "not JSON"),
    ],
)
def test_hostile_journal(path: Path, statement: str, words: str) -> None:
    sql(path, statement)
    with pytest.raises(ArchiveError, match=words), Journal(path, "archive") as journal:  # noqa: PT012
        journal.scenes()
        journal.settings()
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("keep", [100, 5000, 9000])
def test_damaged_file(path: Path, keep: int) -> None:
    data = bytearray(path.read_bytes())
    data[keep:] = bytes(len(data) - keep)
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="damaged"), Journal(path, "archive") as journal:
        journal.scenes()


def test_other_file(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_text("no database at all, " * 99)
    with pytest.raises(ArchiveError, match="damaged"):
        Journal(tmp_path / "journal.sqlite", "archive")
    sql(tmp_path / "other.sqlite", "CREATE TABLE t (x)")
    with pytest.raises(ArchiveError, match="not a journal"):
        Journal(tmp_path / "other.sqlite", "archive")
