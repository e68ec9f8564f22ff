"""`rio ltchm`."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import rasterio
from click.testing import CliRunner, Result
from rasterio.rio.main import main_group
from rasters import COAST, pixels_of, same

import ltchm_geo
from ltchm_geo.cli import main


def rio(*arguments: object) -> Result:
    return CliRunner().invoke(main_group, ["ltchm", *map(str, arguments)])


def test_it_is_registered() -> None:
    found = {point.name: point.value for point in entry_points(group="rasterio.rio_plugins")}
    assert found["ltchm"] == "ltchm_geo.cli.rio:ltchm"


def test_help() -> None:
    shown = rio("--help")
    assert shown.exit_code == 0
    assert all(f"  {name} " in shown.output for name in ("compress", "decompress", "info"))
    assert "--quality" in rio("compress", "--help").output
    assert "train" not in shown.output


@pytest.mark.usefixtures("tiny")
def test_there_and_back(tmp_path: Path) -> None:
    scene, back = tmp_path / "a.ltchm", tmp_path / "back.tif"
    assert rio("compress", COAST, scene, "--quality", "30", "-q").exit_code == 0
    shown = rio("info", scene, "--json")
    assert json.loads(shown.output.splitlines()[-1])["event"] == "result"
    assert rio("decompress", scene, back, "-q").exit_code == 0
    with rasterio.open(back) as restored, rasterio.open(COAST) as source:
        assert (restored.crs, restored.transform) == (source.crs, source.transform)
    assert same(back, ltchm_geo.decompress_raster(scene, tmp_path / "b.tif").path)
    assert pixels_of(back).shape == pixels_of(COAST).shape


def test_errors_are_one_line(tmp_path: Path) -> None:
    failed = rio("info", COAST)
    assert failed.exit_code == 2
    assert failed.output.startswith("ltchm: error: ")
    assert len(failed.output.splitlines()) == 1
    assert rio("compress", COAST, "--quality", "0").exit_code == 2


def test_the_same_commands(capsys: pytest.CaptureFixture[str]) -> None:
    failed = rio("info", "missing.ltchm")
    assert main.main(["info", "missing.ltchm"]) == failed.exit_code
    assert capsys.readouterr().err == failed.output


def test_rio_starts_without_us() -> None:
    """rio imports every plugin whenever it starts."""
    code = "import sys, ltchm_geo.cli.rio; print(*{'torch', 'rasterio', 'numpy', 'zarr'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
