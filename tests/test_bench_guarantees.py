"""`ltchm bench guarantees`: which rasters it measures, and what it refuses before it begins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ltchm_geo.benchmark.codecs as codecs_module
import ltchm_geo.benchmark.guarantees as guarantees_module
from ltchm_geo.cli.main import main


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Rasters that were asked for; nothing is measured."""
    found: list[Path] = []

    def note(paths: list[Path], *_rest: Any) -> list[Any]:
        found.extend(paths)
        return []

    monkeypatch.setattr(guarantees_module, "measure_guarantees", note)
    return found


def test_every_geotiff_of_a_folder_is_measured(tmp_path: Path, measured: list[Path]) -> None:
    for name in ("a.tif", "b.TIF", "c.tiff", "d.png", "e.tif.aux.xml"):
        (tmp_path / name).touch()
    assert main(["bench", "guarantees", "--data", str(tmp_path)]) == 0
    assert [path.name for path in measured] == ["a.tif", "b.TIF", "c.tiff"]


def test_a_folder_without_any_is_refused(
    tmp_path: Path, measured: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").touch()
    assert main(["bench", "guarantees", "--data", str(tmp_path)]) == 2
    assert "has no GeoTIFFs (.tif, .tiff)" in capsys.readouterr().err


def test_figures_are_kept_and_not_lost(
    tmp_path: Path, measured: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.tif").touch()
    out = tmp_path / "out.json"
    arguments = ["bench", "guarantees", "--data", str(tmp_path), "--out", str(out)]
    assert main(arguments) == 0
    assert json.loads(out.read_text())["side"] == 768
    assert main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert len(measured) == 1
    assert main([*arguments, "--overwrite"]) == 0


def test_what_is_not_installed_is_named(
    tmp_path: Path, measured: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.tif").touch()
    monkeypatch.setattr(codecs_module, "find_spec", lambda name: None)
    assert main(["bench", "guarantees", "--data", str(tmp_path)]) == 2
    assert 'needs imagecodecs: pip install ".[bench]" in a checkout' in capsys.readouterr().err
    assert not measured
