"""The runner against engines that do what engines should not."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from conftest import Fake, engine_python
from ltchm_qgis import engine

RESULT = "print(json.dumps({'event': 'result', 'value': 1}))"


def run(interpreter: str, **options):
    return engine.run(["info", "x"], interpreter=interpreter, **options)


def test_lines_from_any_chunks() -> None:
    text = "one\r\nzwei ä\n\nthree".encode()
    for size in (1, 2, 3, 100):
        splitter = engine.LineSplitter()
        lines = [line for i in range(0, len(text), size) for line in splitter.feed(text[i : i + size])]
        assert [*lines, *splitter.feed(b"\n")] == ["one", "zwei ä", "", "three"]


def test_endless_lines_are_dropped() -> None:
    splitter = engine.LineSplitter()
    for _ in range(40):
        assert splitter.feed(b"x" * (1 << 16)) == []
    assert splitter.feed(b"tail\nnext\n") == ["next"]


def test_real_engine_answers() -> None:
    result = engine.run(["about"], interpreter=engine_python())
    assert result["protocol"] == engine.PROTOCOL
    assert result["device"]


def test_progress_warnings_and_noise(fake: Fake) -> None:
    seen = []
    code = (
        "print('noise'); print('[1]'); print('{broken')\n"
        "print(json.dumps({'event': 'progress', 'done': 1, 'total': 4}))\n"
        "print(json.dumps({'event': 'warning', 'message': 'careful'}))\n" + RESULT
    )
    result = run(fake(code), progress=lambda *a: seen.append(a), warning=seen.append)
    assert result["value"] == 1
    assert seen == [(1, 4), "careful"]


def test_environment_is_scrubbed(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "PYTHONHOME", "GDAL_DATA", "PROJ_LIB", "LD_LIBRARY_PATH", "QT_PLUGIN_PATH"):
        monkeypatch.setenv(name, "/somewhere")
    monkeypatch.setenv("LTCHM_WEIGHTS", "/weights")
    environment = engine.clean_environment()
    assert environment["LTCHM_WEIGHTS"] == "/weights"
    assert "/somewhere" not in environment.values()


def test_no_engine_says_what_to_type() -> None:
    with pytest.raises(engine.EngineMissing, match=r"In a checkout of ltchm_geo:\n.* -m pip install \."):
        run("")


def test_python_without_the_package() -> None:
    with pytest.raises(engine.EngineMissing, match=r"/usr/bin/python3 -m pip install \."):
        run("/usr/bin/python3")


@pytest.mark.parametrize("path", ["/nowhere/python", "/etc/passwd", "/tmp", "bad\0name"])
def test_not_a_program(path: str) -> None:
    with pytest.raises(engine.EngineMissing, match="cannot be started"):
        run(path)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", r"crashed \(SIGSEGV\)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed, perhaps because memory ran out"),
        ("print('hello, I am something else')", "does not answer as the LTCHM engine does"),
        ("sys.stdout.buffer.write(os.urandom(1 << 20))", "does not answer"),
        ("sys.exit(3)", r"exit code 3"),
        (RESULT + "; sys.stdout.flush(); os.kill(os.getpid(), signal.SIGSEGV)", "crashed"),
        ("print(json.dumps({'event': 'error', 'type': 'X', 'message': 'disk full'})); sys.exit(1)", "^disk full$"),
    ],
)
def test_faults_are_one_message(fake: Fake, code: str, message: str) -> None:
    with pytest.raises(engine.EngineError, match=message) as caught:
        run(fake(code))
    assert "Traceback" not in str(caught.value)


def test_cancelling_asks_the_engine_to_stop(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_GRACE", 60.0)  # it is not killed
    ready, asked = tmp_path / "ready", tmp_path / "asked"
    code = f"""
signal.signal(signal.SIGTERM, lambda *_: (open({str(asked)!r}, "w").close(), os._exit(0)))
open({str(ready)!r}, "w").close()
time.sleep(600)"""
    with pytest.raises(engine.EngineCancelled):
        run(fake(code), cancelled=ready.exists)
    assert asked.exists()


def test_engines_are_asked_to_stop_before_any_is_waited_for(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_GRACE", 60.0)
    code = f"""
mine, other = ({str(tmp_path)!r} + "/" + name for name in sys.argv[1:3])
def leave(*_):
    open(mine + ".asked", "w").close()
    while not os.path.exists(other + ".asked"):
        time.sleep(0.01)
    os._exit(0)
signal.signal(signal.SIGTERM, leave)
print(flush=True)
time.sleep(600)"""
    interpreter = fake(code)
    pair = [engine.start([interpreter, *names]) for names in (("a", "b"), ("b", "a"))]
    for process in pair:
        process.stdout.readline()
    engine.stop(*pair)
    assert [process.returncode for process in pair] == [0, 0]


@pytest.mark.parametrize(("protocol", "advice"), [(0, "Update the engine"), (2, "Update this plugin")])
def test_another_protocol_is_told(fake: Fake, protocol: int, advice: str) -> None:
    event = {"event": "result", "version": "9", "protocol": protocol}  # what else it holds nobody knows
    with pytest.raises(engine.EngineError, match=advice):
        run(fake(f"print(json.dumps({event!r}))"))


def test_an_engine_that_will_not_stop_is_killed(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_GRACE", 0.3)
    pid, part = tmp_path / "pid", tmp_path / "out.ltchm.part"
    code = f"""
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open({str(part)!r}, "w").write("half")
open({str(pid)!r}, "w").write(str(os.getpid()))
time.sleep(60)"""
    with pytest.raises(engine.EngineCancelled):
        run(fake(code), cancelled=lambda: pid.exists() and pid.read_text() != "", writes=str(tmp_path / "out.ltchm"))
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert not part.exists()


def test_cancelled_too_late_is_done(fake: Fake, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    code = (
        f"signal.signal(signal.SIGTERM, signal.SIG_IGN); open({str(marker)!r}, 'w').close(); time.sleep(0.3)\n{RESULT}"
    )
    assert run(fake(code), cancelled=marker.exists)["value"] == 1


WRITTEN = "print(json.dumps({'event': 'written', 'path': 'out.ltchm', 'psnr': None}), flush=True)"


def test_cancelled_while_measuring_is_written(fake: Fake) -> None:
    began = time.monotonic()
    found = run(fake(f"{WRITTEN}\ntime.sleep(60)"), cancelled=lambda: time.monotonic() - began > 1)
    assert (found["path"], found["psnr"]) == ("out.ltchm", None)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed"),
        ("print(json.dumps({'event': 'error', 'type': 'X', 'message': 'cannot read'})); sys.exit(1)", "cannot read"),
    ],
)
def test_a_failure_while_measuring_is_a_warning(fake: Fake, end: str, reason: str) -> None:
    warnings: list[str] = []
    found = run(fake(f"{WRITTEN}\n{end}"), warning=warnings.append)
    assert found["path"] == "out.ltchm"
    (text,) = warnings
    assert "is complete" in text
    assert reason in text


def test_output_closed_early_does_not_hang(fake: Fake) -> None:
    began = time.monotonic()
    with pytest.raises(engine.EngineCancelled):
        run(fake("os.close(1); os.close(2); time.sleep(60)"), cancelled=lambda: time.monotonic() - began > 0.5)


def test_a_crash_leaves_no_partial_file(fake: Fake, tmp_path: Path) -> None:
    part = tmp_path / "out.zarr.part"
    code = f"os.makedirs({str(part)!r} + '/g0'); os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(engine.EngineError):
        run(fake(code), writes=str(tmp_path / "out.zarr"))
    assert not part.exists()


def test_isolated_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ltchm_geo.py").write_text("raise SystemExit(99)")
    monkeypatch.chdir(tmp_path)
    command = engine.command_line(engine_python(), ["about"])
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
