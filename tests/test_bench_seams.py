"""`ltchm bench seams`: figures and pictures of real files, with and without sight of the neighbours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rasters import pixels_of, smooth, write_tif

from ltchm_geo.benchmark.output import save_json
from ltchm_geo.cli.main import cli, main


@pytest.mark.usefixtures("tiny")
def test_figures_and_pictures(tmp_path: Path) -> None:
    images, pictures, out = tmp_path / "images", tmp_path / "pictures", tmp_path / "out.json"
    images.mkdir()
    noise = np.random.default_rng(1).integers(0, 50, (3, 360, 520))
    write_tif(images / "a.tif", (smooth(3, 360, 520, low=10, high=180) + noise).astype(np.uint8))
    options = ["--dataset", str(images), "--quality", "1,60", "--pictures", str(pictures), "--out", str(out)]
    run = CliRunner().invoke(cli, ["bench", "seams", *options])
    assert run.exit_code == 0, run.output
    assert run.stdout.count("->") == 8
    points = json.loads(out.read_text())["points"]
    assert [(p["image"], p["quality"], p["seamless"]) for p in points] == [
        ("a", quality, seamless) for quality in (1, 60) for seamless in (False, True)
    ]
    assert all(p["bpp"] > 0 and p["visibility"] > 0 and p["step"] > 0 for p in points)
    assert points[0]["step"] != points[1]["step"]
    assert pixels_of(pictures / "a-q60.png").shape == (3, 384, 3 * 384 + 2 * 8)
    again = CliRunner().invoke(cli, ["bench", "seams", *options])
    assert again.exit_code == 2
    assert "--overwrite" in again.output


def test_images_without_a_border_are_refused_before_anything_is_coded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = tmp_path / "images", tmp_path / "out.json"
    images.mkdir()
    write_tif(images / "large.tif", smooth(1, 257, 60).astype(np.uint8))
    write_tif(images / "small.tif", smooth(1, 256, 60).astype(np.uint8))
    assert main(["bench", "seams", "--dataset", str(images), "--model", "none", "--out", str(out)]) == 2
    assert "no tiles meet in small: leave out" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.usefixtures("tiny")
def test_a_strip_has_borders_but_no_place_to_show(tmp_path: Path) -> None:
    images, pictures, out = tmp_path / "images", tmp_path / "pictures", tmp_path / "out.json"
    images.mkdir()
    write_tif(images / "strip.tif", smooth(1, 258, 40).astype(np.uint8))
    options = ["--dataset", str(images), "--quality", "1", "--pictures", str(pictures), "--out", str(out)]
    assert main(["bench", "seams", "--quiet", *options]) == 0
    assert not list(pictures.iterdir())
    assert {point["step"] for point in json.loads(out.read_text())["points"]} == {"NaN"}


def test_kept_figures_may_be_no_numbers(tmp_path: Path) -> None:
    save_json(tmp_path / "a.json", {"rows": [{"step": float("nan"), "psnr": float("inf"), "bpp": 0.5}]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"rows": [{"step": "NaN", "psnr": "Infinity", "bpp": 0.5}]}
