"""`ltchm archive`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rasters import smooth, write_tif

from ltchm_geo.cli.main import main

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "images"
    folder.mkdir()
    write_tif(folder / "a.tif", smooth(1, 100, 120))
    write_tif(folder / "b.tif", smooth(3, 100, 200))
    return folder


ARGUMENTS = ["archive", "images", "out", "--tile-size", "128"]


def test_for_people(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ARGUMENTS, "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert "2 to make" in shown.out
    assert not Path("out").exists()
    assert main(ARGUMENTS) == 0
    shown = capsys.readouterr()
    assert "2 done" in shown.out
    assert "[1/2] a.ltchm: " in shown.err
    assert "[2/2] b.ltchm: " in shown.err
    assert main([*ARGUMENTS, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_for_programs(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (images / "bad.tif").write_text("no raster")
    assert main([*ARGUMENTS, "--json", "--stac"]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["event"] == "result"
    assert lines[-1]["counts"] == {"done": 2, "failed": 1}
    ended = [line for line in lines if line["event"] == "scene" and line["kind"] == "end"]
    assert [line["state"] for line in ended] == ["done", "done", "failed"]
    assert {"event": "progress", "done": 3, "total": 3} in lines
    assert any(line["event"] == "warning" and "bad.tif: failed: " in line["message"] for line in lines)
    assert main([*ARGUMENTS, "--dry-run", "--json", "--exclude", "bad.tif"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["counts"] == {"keep": 2}


def test_table_of_failures(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (images / "bad.tif").write_text("no raster")
    assert main([*ARGUMENTS, "--exclude", "[ab].tif"]) == 1
    shown = capsys.readouterr().out
    assert "failed     attempts  error" in shown
    assert "bad.ltchm         1  " in shown


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--quality", "7"], "begun with quality"),
        (["--quality", "7", "--lambda", "300"], "give one of them"),
        (["--include", "*.jp2"], "no rasters there"),
    ],
)
def test_refused(more: list[str], message: str, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ARGUMENTS, "--exclude", "b.tif"]) == 0
    assert main([*ARGUMENTS, *more]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c(images: Path) -> None:
    for copy in range(40):
        write_tif(images / f"c{copy}.tif", smooth(3, 256, 256))
    program = "import sys; from ltchm_geo.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, *ARGUMENTS]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        assert child.stderr.readline().startswith("[1/42] a.ltchm")
        child.send_signal(signal.SIGINT)
        said = child.stderr.read()
    assert child.returncode == 130
    assert "nothing is lost: run the same command again to go on" in said
    manifest = json.loads(Path("out/manifest.json").read_text())
    assert set(manifest["counts"]) <= {"done", "waiting"}
    assert manifest["counts"]["done"] >= 1


def test_bars(images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    assert main(ARGUMENTS) == 0
    assert "2 done" in capsys.readouterr().out
