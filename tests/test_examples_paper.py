"""The scripts of examples/paper run, on small results and the first rows of the paper's tables."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image as Picture

from ltchm_geo.benchmark import complexity
from ltchm_geo.benchmark.dataset import Image
from ltchm_geo.benchmark.paper import paper_table
from ltchm_geo.benchmark.results import RdPoint, RdResult

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = ("figs12_14", "figs6_11", "refresh", "tab3", "tab4", "tab5", "tab6")

Script = Callable[[str], ModuleType]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    """Imports a script by name, as `python examples/paper/NAME.py` would."""
    monkeypatch.syspath_prepend(EXAMPLES / "paper")
    yield importlib.import_module
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.fixture
def first_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of one row: counting and running whole networks takes its time."""

    def shortened(number: int) -> dict[str, Any]:
        return {**paper_table(number), "rows": paper_table(number)["rows"][:1], "also": []}

    monkeypatch.setattr(complexity, "paper_table", shortened)


def run(module: ModuleType, *arguments: str | Path) -> str:
    result = CliRunner().invoke(module.main, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def store(folder: Path, codec: str, factor: float, **about: Any) -> None:
    points = tuple(
        RdPoint("a", str(q), 1000, 0.1 * factor * 2**q, 25.0 + 3 * q, None, None, None, 9.0, 1.0, 1.0) for q in range(5)
    )
    kind = "training" if "checkpoint" in about else "rd"
    RdResult(codec, codec.upper(), "eval-rgb-tiles", points, about).save(folder / kind)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """JPEG 2000, "BPG" at 70 % of its rate, LTCHM at 60 %, and a checkpoint of Cheng2020 at 90 %."""
    folder = tmp_path / "results"
    store(folder, "openjpeg53", 1.0)
    store(folder, "hevc", 0.7)
    store(folder, "tag", 0.6, model={"tag": "tag"})
    for name, factor, architecture in (("cheng", 0.9, "cheng2020-attn"), ("base", 1.0, "ltchm-neither")):
        store(folder, name, factor, checkpoint={"step": 5, "recipe": {"architecture": architecture}})
    return folder


def cells(printed: str, start: str) -> list[str]:
    line = next(line for line in printed.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_tab3(script: Script, results: Path) -> None:
    printed = run(script("tab3"), results)
    assert cells(printed, "BPG: HEVC")[1:5] == ["-43.3", "-33.7", "-28.9", "-30.0 / -30.0"]
    assert cells(printed, "Ours: TAG")[1:6] == ["-72.7", "-69.5", "-75.2", "-40.0 / -40.0", "-"]
    assert cells(printed, "Cheng2020: CHENG")[4] == "-10.0 / -10.0"
    assert cells(printed, "AVIF")[4] == "-"


def test_tab4(script: Script, results: Path, first_row: None, monkeypatch: pytest.MonkeyPatch) -> None:
    module = script("tab4")
    monkeypatch.setattr(module, "paper_table", complexity.paper_table)
    printed = run(module, results)
    assert cells(printed, "baseline ")[1:3] == ["7.43", "7.43"]
    assert cells(printed, "cheng ")[1:4] == ["cheng2020-attn", "-10.00", "-10.00"]


def test_tab5(script: Script, first_row: None) -> None:
    printed = run(script("tab5"))
    assert cells(printed, "SWAtten")[2:4] == ["102.27", "0.78"]


def test_tab6(script: Script, first_row: None, monkeypatch: pytest.MonkeyPatch) -> None:
    module = script("tab6")
    monkeypatch.setattr(module, "paper_table", complexity.paper_table)
    printed = run(module, "--rounds", "1", "--device", "cpu")
    counted, timed = (line for line in printed.splitlines() if line.startswith("| Cheng2020"))
    assert "27.41" in counted
    assert "0.078" in timed


def test_curves(script: Script, results: Path, tmp_path: Path) -> None:
    page = tmp_path / "curves.html"
    printed = run(script("figs6_11"), page, results, "--dataset", "eval-rgb-tiles")
    assert cells(printed, "HEVC")[1:3] == ["0.070", "25.000"]
    assert page.read_text().count("<svg") == 1  # PSNR alone was measured, and there is no 9/7 to compare with
    missing = CliRunner().invoke(script("figs6_11").main, [str(page), str(results), "--dataset", "eval-rgb"])
    assert missing.exit_code == 1
    assert "no results of eval-rgb" in missing.output


def test_crops(script: Script, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    pixels = Image("crop", EXAMPLES / "data" / "farmland_rgbn.tif", (1, 2, 3), (64, 64, 96, 96)).load()
    Picture.fromarray(pixels.transpose(1, 2, 0)).save(pictures / "field.png")
    page = tmp_path / "crops.html"
    printed = run(script("figs12_14"), page, "--dataset", pictures, "--bpp", "1.2", "--codecs", "jpeg,webp")
    for codec in ("JPEG 4:2:0", "WebP"):
        rate, psnr = cells(printed, codec)[1].split(" bpp, ")
        assert float(rate) == pytest.approx(1.2, rel=0.1)
        assert float(psnr.split()[0]) > 25
    assert page.read_text().count('src="data:image/webp') == 3


def test_refresh(script: Script, results: Path) -> None:
    module = script("refresh")
    text = "before\n<!-- results:tab3 -->\nold\n<!-- /results:tab3 -->\nafter\n"
    once = module.refresh(text, results)
    assert "old" not in once
    assert cells(once, "Ours: TAG")[4] == "-40.0 / -40.0"
    assert once.startswith("before\n")
    assert once.endswith("\nafter\n")
    assert module.refresh(once, results) == once
    with pytest.raises(Exception, match="unknown block 'tab9'"):
        module.refresh(text.replace("tab3", "tab9"), results)


def test_blocks_of_the_document_are_known(script: Script) -> None:
    text = (EXAMPLES.parent / "docs" / "paper.md").read_text(encoding="utf-8")
    names = {line.split(":")[1].split()[0] for line in text.splitlines() if line.startswith("<!-- results:")}
    assert names == set(script("refresh").BLOCKS)
