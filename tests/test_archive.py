"""Many scenes: what is made, kept, tried again, given up; and that a run can end at any moment."""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rasters import smooth, write_tif

from ltchm_geo import compress_raster, info, verify
from ltchm_geo.archive import ArchiveEvent, ArchiveReport, compress_many, plan_many, work
from ltchm_geo.archive import run as archive_run
from ltchm_geo.archive.journal import Journal
from ltchm_geo.errors import (
    ArchiveError,
    ClusterError,
    DestinationBusyError,
    DestinationError,
    DestinationExistsError,
    SourceReadError,
    UsageError,
    VerificationError,
)
from ltchm_geo.settings import CompressSettings

SETTINGS = CompressSettings(tile_size=128, shard_tiles=1, workers=1)

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three scenes of one, two and one shards."""
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    write_tif(folder / "a.tif", smooth(1, 100, 120))
    write_tif(folder / "b.tif", smooth(3, 100, 200))
    write_tif(folder / "sub" / "c.tif", smooth(1, 64, 64, "uint16", 100, 3000))
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def run(images: Path, out: Path, settings: CompressSettings = SETTINGS, **options: Any) -> ArchiveReport:
    return compress_many([images], out, settings, **{"retry_wait": 0.0, **options})


def states(report: ArchiveReport) -> dict[str, str]:
    return {scene.result: scene.state for scene in report.scenes}


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.ltchm")}


DONE = {"a.ltchm": "done", "b.ltchm": "done", "sub/c.ltchm": "done"}


# --- what comes out --------------------------------------------------------------------------------------------------


def test_archive(images: Path, out: Path, tmp_path: Path) -> None:
    report = run(images, out, replace(SETTINGS, measure=True), scenes=2)
    assert (states(report), report.ok, report.made) == (DONE, True, 3)
    for scene in report.scenes:
        alone = compress_raster(
            scene.source,
            tmp_path / "alone.ltchm",
            tile_size=128,
            shard_tiles=1,
            overwrite=True,
            measure=True,
            resume=True,
        )
        assert (out / scene.result).read_bytes() == alone.path.read_bytes()
        assert (scene.bytes, scene.raw_bytes, scene.psnr) == (alone.bytes, alone.raw_bytes, alone.psnr)
        assert (scene.attempts, scene.interruptions, scene.error) == (1, 0, None)
    assert sorted(os.listdir(out)) == ["a.ltchm", "b.ltchm", "journal.sqlite", "manifest.csv", "manifest.json", "sub"]

    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["counts"] == {"done": 3}
    assert manifest["settings"]["tile_size"] == 128
    with (out / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, entry, scene in zip(rows, manifest["scenes"], report.scenes, strict=True):
        assert row["result"] == entry["result"] == scene.result
        assert row["sha256"] == entry["sha256"] == work.Target.of(out).digest(scene.result)
        assert int(row["bytes"]) == entry["bytes"] == (out / scene.result).stat().st_size
        assert len(row["psnr"].split()) == len(entry["psnr"])


def test_folders(images: Path, out: Path) -> None:
    report = run(images, out, folders=True, include=["a.tif"])
    assert list(states(report).items()) == [("a.zarr", "done")]
    assert verify(out / "a.zarr").ok
    assert run(images, out, folders=True, include=["a.tif"], check=True).made == 0
    (out / "a.zarr" / "ltchm-manifest.json").write_bytes(b"{}")
    assert run(images, out, folders=True, include=["a.tif"], check=True).made == 1
    assert verify(out / "a.zarr").ok


def test_events(images: Path, out: Path) -> None:
    events: list[ArchiveEvent] = []
    run(images, out, on_event=events.append)
    told = [(e.kind, e.scene.result, e.done, e.total) for e in events if e.scene.result == "b.ltchm"]
    assert told == [
        ("begin", "b.ltchm", 1, 3),
        ("tiles", "b.ltchm", 0, 2),
        ("tiles", "b.ltchm", 1, 2),
        ("tiles", "b.ltchm", 2, 2),
        ("end", "b.ltchm", 2, 3),
    ]


# --- again -----------------------------------------------------------------------------------------------------------


def test_again(images: Path, out: Path) -> None:
    before = run(images, out)
    assert run(images, out).made == 0
    write_tif(images / "a.tif", smooth(1, 100, 120, low=90))  # changed
    write_tif(images / "new.tif", smooth(1, 50, 50))
    (images / "b.tif").unlink()  # archived, so it may go
    old = files(out)
    report = run(images, out)
    assert states(report) == {**DONE, "new.ltchm": "done"}
    assert report.made == 2
    now = files(out)
    assert {name for name in old if old[name] != now[name]} == {"a.ltchm"}
    (out / "sub" / "c.ltchm").unlink()  # lost
    (out / "b.ltchm").write_bytes(b"")  # damaged, but there is nothing left to make it from
    assert (run(images, out).made, (out / "sub" / "c.ltchm").read_bytes()) == (1, old["sub/c.ltchm"])
    assert [scene.attempts for scene in before.scenes] == [1, 1, 1]


def test_check_finds_rotten_bits(images: Path, out: Path) -> None:
    run(images, out)
    sound = (out / "a.ltchm").read_bytes()
    (out / "a.ltchm").write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    assert run(images, out).made == 0
    report = run(images, out, check=True)
    assert (report.made, (out / "a.ltchm").read_bytes()) == (1, sound)


def test_other_settings(images: Path, out: Path) -> None:
    run(images, out)
    before = files(out)
    with pytest.raises(UsageError, match=r"begun with quality 50 \(now 20\): use the same settings, --restart"):
        run(images, out, replace(SETTINGS, quality=20))
    assert files(out) == before
    assert run(images, out, replace(SETTINGS, workers=2, measure=True)).made == 0  # how, not what
    assert run(images, out, replace(SETTINGS, quality=50)).made == 0  # the default, said
    report = run(images, out, replace(SETTINGS, quality=20), restart=True)
    assert (report.made, states(report)) == (3, DONE)
    assert all(files(out)[name] != before[name] for name in before)
    assert run(images, out, replace(SETTINGS, quality=20)).made == 0


def test_settings_that_came_later(images: Path, out: Path) -> None:
    """A journal of a version without a setting goes on with its default; one of a newer version is refused."""
    run(images, out)
    with Journal(out / "journal.sqlite", str(out)) as book:
        before = book.settings()
        assert before is not None
        book.put([], {name: value for name, value in before.items() if name not in ("decorrelate", "seamless")})
    assert run(images, out).made == 0
    with Journal(out / "journal.sqlite", str(out)) as book:
        book.put([], {name: value for name, value in before.items() if name != "decorrelate"})
    with pytest.raises(UsageError, match=r"begun with decorrelate True \(now False\): use the same"):
        run(images, out, replace(SETTINGS, decorrelate=False))
    with Journal(out / "journal.sqlite", str(out)) as book:
        book.put([], before | {"holography": True})
    with pytest.raises(ArchiveError, match=r"unknown settings: holography\): update ltchm_geo, or use --restart"):
        run(images, out)
    assert run(images, out, restart=True).made == 3


@pytest.mark.parametrize("options", [{"folders": True}, {"keep_suffix": True}, {"base": ".."}], ids=str)
def test_other_names_for_the_same_sources(
    options: dict[str, Any], images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images)
    run(images, out)
    before = files(out)
    for restart in (False, True):
        with pytest.raises(UsageError, match=r"a\.tif is in this archive as a\.ltchm and would now become .*: arrange"):
            run(images, out, restart=restart, **options)
    assert files(out) == before
    assert not list(out.glob("*.zarr"))


def test_slips(images: Path, out: Path) -> None:
    with pytest.raises(UsageError, match="no dict"):
        compress_many([images], out, {"quality": 40})  # type: ignore[arg-type]
    assert compress_many(str(images), out, SETTINGS).made == 3  # one name is one source, not letters


def test_other_source_for_a_result(images: Path, out: Path) -> None:
    run(images, out)
    other = images.with_name("other")
    shutil.copytree(images, other)
    with pytest.raises(UsageError, match=r"a\.ltchm was made from .*images/a\.tif, not from .*other/a\.tif"):
        run(other, out)
    assert run(other, out, restart=True).made == 3


@pytest.mark.parametrize("reason", ["restart", "size", "check"])
def test_what_is_to_be_made_anew_is_not_taken_for_finished(reason: str, images: Path, out: Path) -> None:
    """Of a scene that was interrupted once, what lies there may be the work of a process that died; not this."""
    run(images, out, include=["a.tif"])
    interrupt(out, state="done")
    sound = (out / "a.ltchm").read_bytes()
    settings, options = SETTINGS, {}
    if reason == "restart":
        settings, options = replace(SETTINGS, quality=20), {"restart": True}
    elif reason == "size":
        compress_raster(images / "a.tif", out / "a.ltchm", quality=20, tile_size=128, shard_tiles=1, overwrite=True)
    else:
        (out / "a.ltchm").write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
        options = {"check": True}
    report = run(images, out, settings, include=["a.tif"], **options)
    assert (states(report), report.made) == ({"a.ltchm": "done"}, 1)
    assert info(out / "a.ltchm").meta.level == settings.level
    assert ((out / "a.ltchm").read_bytes() == sound) == (reason != "restart")


def interrupt(out: Path, **changes: Any) -> None:
    """Let the journal remember that a process died over the first scene."""
    with Journal(out / "journal.sqlite", str(out)) as book:
        book.put([replace(book.scenes()[0], interruptions=1, **changes)])


@pytest.mark.parametrize("name", ["manifest.json", "manifest.csv", "collection.json", "sub/c.stac.json"])
def test_documents_that_are_not_ours_stay(name: str, images: Path, out: Path) -> None:
    (out / "sub").mkdir(parents=True)
    (out / name).write_text('{"type": "Collection", "properties": {}}')
    for attempt in (run, lambda *args, **options: plan_many([args[0]], args[1], SETTINGS, **options)):
        with pytest.raises(DestinationExistsError, match="no archive wrote it: move it"):
            attempt(images, out, stac=True)
    assert sorted(p.name for p in out.rglob("*") if p.is_file()) == [Path(name).name]
    if "manifest" not in name:
        assert run(images, out).ok  # without STAC it is in nobody's way
    assert run(images, out, replace(SETTINGS, overwrite=True), stac=True).ok
    assert run(images, out, stac=True).ok  # now they are ours


def test_what_is_not_ours_stays(images: Path, out: Path) -> None:
    out.mkdir()
    (out / "a.ltchm").write_bytes(b"precious")
    for _ in range(2):
        report = run(images, out)
        assert states(report) == {**DONE, "a.ltchm": "skipped"}
        assert "exists" in (report.scenes[0].error or "")
        assert (out / "a.ltchm").read_bytes() == b"precious"
    report = run(images, out, replace(SETTINGS, overwrite=True))
    assert (states(report), report.made, verify(out / "a.ltchm").ok) == (DONE, 1, True)


# --- errors ----------------------------------------------------------------------------------------------------------


def test_bad_rasters(images: Path, out: Path) -> None:
    (images / "bad.tif").write_text("no raster")
    write_tif(images / "classes.tif", smooth(1, 9, 9), photometric="PALETTE")
    shutil.move(compress_raster(images / "a.tif", images / "b.ltchm", tile_size=128).path, images / "scene.tif")
    report = run(images, out)
    assert states(report) == {**DONE, "bad.ltchm": "failed", "classes.ltchm": "failed", "scene.ltchm": "skipped"}
    assert not report.ok
    assert [(scene.attempts, scene.passing) for scene in report.failed] == [(1, False)] * 2
    assert "not a raster" in (report.failed[0].error or "")
    assert files(out).keys() == DONE.keys()
    assert run(images, out).failed[0].attempts == 1  # given up
    assert run(images, out, retry_failed=True).failed[0].attempts == 2
    write_tif(images / "bad.tif", smooth(1, 50, 50))  # mended
    assert states(run(images, out))["bad.ltchm"] == "done"


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Let the first attempts at a scene fail; returns the names of what is tried."""

    def install(name: str, error: Callable[[], Exception], times: int) -> list[str]:
        original, tried = work.compress_scene, []

        def compress(source: Any, path: Any, settings: Any, **options: Any) -> Any:
            tried.append(path.name)
            if path.name == name and tried.count(name) <= times:
                raise error()
            return original(source, path, settings, **options)

        monkeypatch.setattr(work, "compress_scene", compress)
        return tried

    return install


@pytest.mark.parametrize(
    "error",
    [
        lambda: SourceReadError("cannot read rows"),
        lambda: DestinationError("input/output error"),
        lambda: OSError(errno.ETIMEDOUT, "timed out"),
    ],
)
def test_retries(error: Callable[[], Exception], images: Path, out: Path, failing: Callable[..., list[str]]) -> None:
    tried = failing("b.ltchm", error, 2)
    events: list[ArchiveEvent] = []
    report = run(images, out, on_event=events.append)
    assert (states(report), tried) == (DONE, ["a.ltchm", *["b.ltchm"] * 3, "c.ltchm"])
    said = [(e.scene.result, e.scene.state, e.scene.passing) for e in events if e.kind == "retry"]
    assert said == [("b.ltchm", "failed", True)] * 2
    assert (report.scenes[1].attempts, report.scenes[1].error) == (3, None)


def test_retries_end(images: Path, out: Path, failing: Callable[..., list[str]]) -> None:
    tried = failing("b.ltchm", lambda: SourceReadError("cannot read rows"), 3)
    report = run(images, out, retries=1)
    assert states(report) == {**DONE, "b.ltchm": "failed"}
    assert (report.failed[0].passing, tried.count("b.ltchm")) == (True, 2)
    assert states(run(images, out, retries=1)) == DONE  # what may have passed is tried in the next run


def test_no_retries_for_what_will_not_pass(images: Path, out: Path, failing: Callable[..., list[str]]) -> None:
    tried = failing("b.ltchm", lambda: ZeroDivisionError("a bug"), 9)
    report = run(images, out)
    assert (report.failed[0].error, tried.count("b.ltchm")) == ("ZeroDivisionError: a bug", 1)
    with (out / "manifest.csv").open(newline="") as file:
        row = list(csv.DictReader(file))[1]
    assert (row["state"], row["error"], row["bytes"], row["sha256"]) == ("failed", "ZeroDivisionError: a bug", "", "")


def test_what_cannot_be_measured_is_made_again(images: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = work.measure_scene, []

    def measure(source: Any, path: Path, *args: Any) -> Any:
        calls.append(path.name)
        if len(calls) == 1:
            raise SourceReadError("cannot read rows")
        return original(source, path, *args)

    monkeypatch.setattr(work, "measure_scene", measure)
    report = run(images, out, replace(SETTINGS, measure=True), include=["a.tif"])
    assert (states(report), report.scenes[0].attempts) == ({"a.ltchm": "done"}, 2)
    assert report.scenes[0].psnr is not None


def test_fail_fast_lets_scenes_in_work_end(images: Path, out: Path, failing: Callable[..., list[str]]) -> None:
    failing("a.ltchm", lambda: ZeroDivisionError("a bug"), 1)
    both, failed = threading.Barrier(2), threading.Event()

    def wait(event: ArchiveEvent) -> None:
        if event.kind == "begin" and event.scene.result != "sub/c.ltchm":
            both.wait(30)
        if event.kind == "end" and event.scene.result == "a.ltchm":
            failed.set()
        if event.kind == "tiles" and event.done == 1:
            assert failed.wait(30)

    report = run(images, out, fail_fast=True, scenes=2, on_event=wait)
    assert states(report) == {"a.ltchm": "failed", "b.ltchm": "done", "sub/c.ltchm": "waiting"}


def test_fail_fast(images: Path, out: Path, failing: Callable[..., list[str]]) -> None:
    failing("a.ltchm", lambda: ZeroDivisionError("a bug"), 1)
    report = run(images, out, fail_fast=True)
    assert states(report) == {**dict.fromkeys(DONE, "waiting"), "a.ltchm": "failed"}


def test_source_that_changes_meanwhile(images: Path, out: Path) -> None:
    def touch(event: ArchiveEvent) -> None:
        if event.kind == "tiles" and event.scene.result == "a.ltchm" and event.scene.attempts == 1 and event.done:
            os.utime(images / "a.tif", (1, 1))

    report = run(images, out, on_event=touch)
    assert states(report) == DONE
    assert report.scenes[0].attempts == 2
    assert run(images, out).made == 0


def test_verify(images: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, looked_at = work.verify_scene, []

    def verify_scene(source: Any, path: Path, settings: CompressSettings) -> None:
        looked_at.append(path.name)
        if looked_at == ["a.ltchm", "b.ltchm"]:
            raise VerificationError("does not read back")
        original(source, path, settings)

    monkeypatch.setattr(work, "verify_scene", verify_scene)
    report = run(images, out, replace(SETTINGS, verify=True))
    assert (states(report), all(scene.verified for scene in report.scenes)) == (DONE, True)
    assert looked_at == ["a.ltchm", "b.ltchm", "b.ltchm", "c.ltchm"]
    assert [scene.attempts for scene in report.scenes] == [1, 2, 1]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EIO, "input/output error"), MemoryError(), RuntimeError("a bug"), KeyboardInterrupt()],
    ids=repr,
)
@pytest.mark.parametrize("step", ["verify_scene", "digest"])
def test_what_could_not_be_looked_at_does_not_stay(
    step: str, error: BaseException, images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    settings = replace(SETTINGS, verify=True)
    ends = contextlib.nullcontext() if isinstance(error, Exception) else pytest.raises(type(error))
    with monkeypatch.context() as patched, ends:
        patched.setattr(work if step == "verify_scene" else work.Target, step, fail)
        report = run(images, out, settings, include=["a.tif"])
        assert states(report) == {"a.ltchm": "failed"}
    assert files(out) == {}
    report = run(images, out, settings, include=["a.tif"], retry_failed=True)
    assert (states(report), report.scenes[0].verified) == ({"a.ltchm": "done"}, True)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("a bug")], ids=repr)
def test_finished_work_that_cannot_be_looked_at_is_made_anew(
    error: Exception, images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a process left it that died before it told the journal."""
    run(images, out, include=["a.tif"])
    interrupt(out, state="running", finished=None, replaced=None)
    original, looks = work.verify_scene, []

    def verify_scene(*args: Any) -> None:
        looks.append(args)
        if len(looks) == 1:
            raise error
        original(*args)

    monkeypatch.setattr(work, "verify_scene", verify_scene)
    report = run(images, out, replace(SETTINGS, verify=True), include=["a.tif"])
    assert (states(report), len(looks), report.scenes[0].attempts) == ({"a.ltchm": "done"}, 2, 2)


@pytest.mark.parametrize("aim", [{"lossless": True}, {"max_error": 2.0}], ids=str)
def test_other_aims(aim: dict[str, Any], images: Path, out: Path) -> None:
    report = run(images, out, replace(SETTINGS, **aim, verify=True), include=["b.tif"], stac=True)
    assert list(states(report).items()) == [("b.ltchm", "done")]
    assert not list(out.rglob("*.part"))
    assert not list(out.rglob("*checking*"))


def test_missing_weights_stop_everything(images: Path, out: Path) -> None:
    from ltchm_geo.errors import WeightsNotFoundError

    with pytest.raises(WeightsNotFoundError):
        run(images, out, replace(SETTINGS, model="no-such"))
    with pytest.raises(UsageError, match="begun with model"):
        run(images, out)
    report = run(images, out, restart=True)
    assert (states(report), [scene.attempts for scene in report.scenes]) == (DONE, [2, 1, 1])


def test_cluster(images: Path, out: Path, tmp_path: Path, tiny: Path) -> None:
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster, Client(cluster) as client:
        report = run(images, out, client=client, scenes=2)
    assert states(report) == DONE
    run(images, tmp_path / "threads")
    assert files(out) == files(tmp_path / "threads")


def test_cluster_that_is_gone(images: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise ClusterError("the cluster is gone")

    client = SimpleNamespace(status="closed")
    monkeypatch.setattr(archive_run, "_connected", lambda _: contextlib.nullcontext(client))
    with monkeypatch.context() as patched, pytest.raises(ClusterError):  # noqa: PT012
        patched.setattr(work, "compress_scene", gone)
        run(images, out, client="tcp://nowhere:1")
    entries = json.loads((out / "manifest.json").read_text())["scenes"]
    assert [(entry["state"], entry["attempts"]) for entry in entries] == [
        ("waiting", 1),
        ("waiting", 0),
        ("waiting", 0),
    ]


# --- the disk --------------------------------------------------------------------------------------------------------

Usage = namedtuple("Usage", "total used free")


def test_nearly_full_disk(images: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [10**9]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, free[0]))

    def fill(event: ArchiveEvent) -> None:
        if event.kind == "end" and event.scene.result == "a.ltchm":
            free[0] = 1000 + 10_000  # less than overviews and shards of the next scene may take

    with pytest.raises(ArchiveError, match=r"nearly full: .*b\.tif may need .* run the same command again"):
        run(images, out, reserve=1000, on_event=fill)
    manifest = json.loads((out / "manifest.json").read_text())
    assert {entry["result"]: entry["state"] for entry in manifest["scenes"]} == {
        **dict.fromkeys(DONE, "waiting"),
        "a.ltchm": "done",
    }
    free[0] = 10**9
    assert (run(images, out).made, len(files(out))) == (2, 3)


def test_full_disk_keeps_shards(images: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ltchm_geo._resumable_sink import ResumableSink
    from ltchm_geo._sink import explained

    original, shards = ResumableSink.put, []

    def put(self: Any, key: str, data: bytes) -> None:
        if "/c/" in key and "b.ltchm" in str(self._path):
            shards.append(key)
            if len(shards) > 1:
                with explained(self._path):
                    raise OSError(errno.ENOSPC, "No space left on device")
        original(self, key, data)

    with monkeypatch.context() as patched, pytest.raises(DestinationError, match="disk full"):  # noqa: PT012
        patched.setattr(ResumableSink, "put", put)
        run(images, out)
    kept = [p for p in (out / "b.ltchm.part").rglob("*") if p.is_file() and "c" in p.parts]
    assert len(kept) == 1
    assert (states(run(images, out)), len(list(out.rglob("*.part")))) == (DONE, 0)


# --- ends without warning --------------------------------------------------------------------------------------------


@pytest.fixture
def whole(images: Path, tmp_path: Path) -> dict[str, bytes]:
    """What an undisturbed run makes."""
    run(images, tmp_path / "whole")
    return files(tmp_path / "whole")


def test_stopped(images: Path, out: Path, whole: dict[str, bytes]) -> None:
    def stop(event: ArchiveEvent) -> None:
        if event.kind == "tiles" and event.scene.result == "b.ltchm" and event.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(images, out, on_event=stop)
    assert list(files(out)) == ["a.ltchm"]
    assert (out / "b.ltchm.part").is_dir()
    report = run(images, out)
    assert (report.made, states(report), files(out)) == (2, DONE, whole)
    assert not list(out.rglob("*.part"))


def test_stopping_lets_scenes_in_work_keep_their_shards(images: Path, out: Path, whole: dict[str, bytes]) -> None:
    at_work = threading.Barrier(2)

    def stop(event: ArchiveEvent) -> None:
        if event.kind == "tiles" and event.done == 0:
            at_work.wait(30)
            if event.scene.result == "a.ltchm":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(images, out, on_event=stop, scenes=2, exclude=["c.tif"])
    journal = json.loads((out / "manifest.json").read_text())["scenes"]
    assert {entry["state"] for entry in journal} <= {"running", "waiting", "done"}
    assert files(out) | whole == whole
    assert (states(run(images, out)), files(out)) == (DONE, whole)


CHILD = """
import os, signal, sys
from ltchm_geo.archive import compress_many
from ltchm_geo.settings import CompressSettings

def on_event(event):
    if f"{event.kind} {event.scene.result} {event.done}" == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)

settings = CompressSettings(tile_size=128, shard_tiles=1, workers=1)
if sys.argv[3] == "finished":
    import ltchm_geo.archive.work as work
    original = work.compress_scene
    def compress(source, path, *args, **options):
        result = original(source, path, *args, **options)
        if path.name == "b.ltchm":
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    work.compress_scene = compress
compress_many([sys.argv[1]], sys.argv[2], settings, on_event=on_event)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no kill -9")
@pytest.mark.parametrize(("moment", "made"), [("tiles b.ltchm 1", 2), ("finished", 2)])
def test_kill_9(
    moment: str, made: int, images: Path, out: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.run([sys.executable, "-c", CHILD, images, out, moment], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    coded: list[str] = []
    original = work.compress_scene

    def compress(source: Any, path: Any, *args: Any, **options: Any) -> Any:
        result = original(source, path, *args, **options)
        coded.append(f"{path.name} {result.kept}")
        return result

    monkeypatch.setattr(work, "compress_scene", compress)
    report = run(images, out)
    assert (report.made, states(report), files(out)) == (made, DONE, whole)
    # Its finished shard was kept; or the scene was complete, and only the journal did not know.
    assert coded == (["c.ltchm 0", "b.ltchm 1"] if moment != "finished" else ["c.ltchm 0"])
    assert report.scenes[1].interruptions == 1
    assert report.scenes[1].sha256 == work.Target.of(out).digest("b.ltchm")
    assert not list(out.rglob("*.part"))


def test_two_runs(images: Path, out: Path) -> None:
    def another(event: ArchiveEvent) -> None:
        with pytest.raises(DestinationBusyError, match="another process works on the archive"):
            run(images, out)

    assert run(images, out, on_event=another).ok


# --- before the work -------------------------------------------------------------------------------------------------


def test_dry_run(images: Path, out: Path, tmp_path: Path) -> None:
    (images / "bad.tif").write_text("no raster")
    plan = plan_many([images], out, CompressSettings(tile_size=128))
    assert plan.counts == {"make": 3, "refuse": 1}
    assert (plan.raw_bytes, plan.fits) == (100 * 120 + 3 * 100 * 200 + 64 * 64 * 2, True)
    assert sorted(os.listdir(tmp_path)) == ["images"]
    report = compress_many([images], out, CompressSettings(tile_size=128))
    assert plan.bytes is not None
    assert abs(plan.bytes / report.bytes - 1) < 0.4  # such small scenes are mostly descriptions
    plan = plan_many([images], out, CompressSettings(tile_size=128))
    assert plan.counts == {"keep": 4}
    assert plan.bytes is None
    with pytest.raises(UsageError, match="begun with"):
        plan_many([images], out, CompressSettings(tile_size=256))
    (out / "new.ltchm").write_bytes(b"precious")
    write_tif(images / "new.tif", smooth(1, 50, 50))
    plan = plan_many([images], out, CompressSettings(tile_size=128))
    assert [scene.reason for scene in plan.scenes if scene.action == "refuse"] == [
        "exists, and is none of this archive: --overwrite replaces it"
    ]


def test_dry_run_refuses_what_the_run_would(images: Path, out: Path) -> None:
    settings = replace(SETTINGS, max_error=(4.0, 4.0, 4.0))
    plan = plan_many([images], out, settings)
    assert [(scene.result, scene.action) for scene in plan.scenes] == [
        ("a.ltchm", "refuse"),
        ("b.ltchm", "make"),
        ("sub/c.ltchm", "refuse"),
    ]
    assert plan.scenes[0].reason == "max_error has 3 numbers for 1 bands: give one, or one per band"
    report = run(images, out, settings)
    assert [(scene.state, scene.error) for scene in report.failed] == [("failed", plan.scenes[0].reason)] * 2
    (out / "sub" / "c.ltchm").write_bytes(b"precious")
    run(images, out, settings, retry_failed=True)  # notes what lies there
    assert plan_many([images], out, settings, retry_failed=True).counts == {"keep": 1, "refuse": 2}


def test_nothing_begins_when_names_collide(images: Path, out: Path) -> None:
    shutil.copy(images / "a.tif", images / "a.jp2")
    with pytest.raises(UsageError, match="would both become"):
        run(images, out)
    assert not out.exists()


def test_bad_arguments(images: Path, out: Path) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        run(images, out, scenes=0)
    with pytest.raises(UsageError, match="where the journal is to be"):
        compress_many([images], "s3://bucket/archive", SETTINGS)
    with pytest.raises(DestinationError, match="not a folder"):
        run(images, images / "a.tif")
