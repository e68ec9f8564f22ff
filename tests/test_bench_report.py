"""The report of stored results: numbers, escaping, what is missing; and matching of rates for crops."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from ltchm_geo.benchmark.codecs import codec
from ltchm_geo.benchmark.dataset import open_dataset
from ltchm_geo.benchmark.report import StoredResults, report_sections
from ltchm_geo.benchmark.report_crops import make_crops, match_rate
from ltchm_geo.benchmark.report_document import Folded, Paragraph, Section, Table, to_markdown
from ltchm_geo.benchmark.report_html import to_html
from ltchm_geo.benchmark.report_plots import rate_curves
from ltchm_geo.benchmark.report_rd import compare, images_section, summary_table
from ltchm_geo.benchmark.report_tables import equal_budget_tables, training_section
from ltchm_geo.benchmark.results import RdPoint, RdResult
from ltchm_geo.cli.main import main
from ltchm_geo.errors import UsageError
from ltchm_geo.metrics import bd_rate

VOID = {"meta", "img", "br", "path", "use"}
HOSTILE = '<script>alert("x")</script> | *a* _b_ $c'


def result(codec: str, factor: float, label: str = "", images: tuple[str, ...] = ("a", "b"), **about: Any) -> RdResult:
    """A codec that needs `factor` times the rate of the anchor at every quality."""
    points = tuple(
        RdPoint(
            image=image,
            setting=str(step),
            bytes=round(1000 * factor * 2**step),
            bpp=0.1 * factor * 2**step * (1 + index),
            psnr=25.0 + 3 * step - index,
            ms_ssim=0.9 + 0.02 * step,
            lpips=None,
            vifp=None,
            max_error=20.0,
            encode_s=0.5,
            decode_s=0.25,
        )
        for index, image in enumerate(images)
        for step in range(5)
    )
    return RdResult(codec, label or codec, "pictures", points, {"date": "2026-01-01", "versions": {"x": "1"}, **about})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of five codecs, one with a hostile name, on one data set; complexity and speed."""
    folder = tmp_path_factory.mktemp("results")
    model = {"model": {"tag": "test"}}
    for one in (
        result("openjpeg53", 1.0, "five"),
        result("openjpeg97", 0.8, "nine"),
        result("vvc", 0.5, HOSTILE),
        result("test", 0.6, "LTCHM (test)", **model),
        lossless(),
    ):
        one.save(folder / "rd")
    figure = {"gmacs": 1.25, "parameters_m": None}
    row = {"name": "DAM", "paper": figure, "thop": figure, "exact": figure, "published": figure}
    tables = {
        "complexity/tab5": {
            "title": "Tab. 5",
            "about": {},
            "rows": [{**row, "mismatches": {"MACs by thop": -0.085}, "note": "poolings"}],
        },
        "speed/cpu": speed(),
    }
    for name, content in tables.items():
        path = folder / f"{name}.json"
        path.parent.mkdir()
        path.write_text(json.dumps(content))
    return folder


def lossless() -> RdResult:
    one = result("cog-zstd", 10.0, "ZSTD")
    return replace(
        one, points=tuple(replace(p, psnr=float("inf"), ms_ssim=1.0) for p in one.points if p.setting == "0")
    )


def speed() -> dict[str, Any]:
    seconds = {"median": 2.0, "min": 1.0, "max": 4.0, "cpu": 0.5}
    verb = {
        "seconds": seconds,
        "mpx_s": {"median": 0.5, "min": 0.25, "max": 1.0},
        "stages": {"network": 3.0, "read": 0.5, "write": 0.5},
        "speedup_over_baseline": 0.125,
    }
    about = {"hardware": {"gpu": None, "cpu": "a CPU", "cores": 2}, "load_average": [1.0, 2.0], "quality": 50}
    return {
        "about": about,
        "scene": {"source": "farm.tif", "side": 1000},
        "codec": [{"label": "ours", "case": {}, "pixels": 1000000, "encode": verb, "decode": verb}],
        "network": [],
        "systems": [{"architecture": "ltchm", "device": "cpu", "threads": 1, "encode": seconds, "decode": seconds}],
    }


class Reader(HTMLParser):
    """Checks that tags close, and keeps cells and links."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action", "data")]
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def page(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    out = tmp_path_factory.mktemp("out")
    arguments = ["bench", "report", str(folder), "--out", str(out)]
    assert main(arguments) == 0
    assert main(arguments) == 2  # nothing is overwritten unasked
    return (out / "report.html").read_text(), (out / "report.md").read_text()


def test_page_stands_alone(page: tuple[str, str]) -> None:
    reader = read(page[0])
    assert reader.links
    assert all(link.startswith(("#", "data:")) for link in reader.links), reader.links
    assert not reader.tags & {"script", "link", "iframe", "object"}
    assert not re.search(r"url\((?!['\"]?#)|@import", page[0])


def test_page_has_the_numbers(page: tuple[str, str], folder: Path) -> None:
    rows = {row[0]: row for row in reversed(read(page[0]).rows) if row}  # reversed: the first of a name stays
    ours = rows["LTCHM (test)"]
    assert ours[1] == "-40.0 / -40.0"
    assert ours[2] == "-25.0 / -25.0"
    assert ours[-1] == "2"
    assert rows["five"][1] == "+0.0 / +0.0"
    assert rows["ZSTD"][1] == "- / -"
    assert ["DAM", "1.25", "-", "1.25", "-", "1.25", "-", "1.25", "-"] in read(page[0]).rows
    assert ["DAM", "MACs by thop -8.5%", "poolings"] in read(page[0]).rows
    assert rows["ours"] == ["ours", "0.5 (0.25-1)", "2", "0.125", "75%", "0%", "0%", "0%", "25%"]
    assert rows["ltchm"][3:5] == ["2 (1-4)", "0.5"]
    assert "needs 37.5 % less than JPEG 2000 9/7" in page[0]
    assert "LTCHM (test) 25.0 % less, place 2 of 4" in page[0]


def test_markdown_has_the_same_numbers(page: tuple[str, str]) -> None:
    lines = [line for line in page[1].splitlines() if line.startswith("| **LTCHM (test)**")]
    assert "**-40.0 / -40.0**" in lines[0]


def test_hostile_names_are_text(page: tuple[str, str]) -> None:
    html, markdown = page
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert any(HOSTILE in cell for row in read(html).rows for cell in row)
    assert "<script>" not in markdown.replace("\\<", "")
    hostile = [line for line in markdown.splitlines() if "script" in line and line.startswith("| ")]
    columns = {len(re.findall(r"(?<!\\)\|", line)) for line in hostile[:1]}
    assert columns == {
        len(re.findall(r"(?<!\\)\|", next(li for li in markdown.splitlines() if li.startswith("| codec"))))
    }


def test_missing_parts_are_named(page: tuple[str, str]) -> None:
    rows = {row[0]: row for row in read(page[0]).rows if row}
    assert rows["rate and distortion on eval-rgb"][1] == "everything"
    there = rows["rate and distortion on pictures"][1].split(", ")
    assert "avif" in there
    assert not set(there) & {"vvc", "openjpeg53", "ltchm"}
    assert rows["architectures at equal budget"][1] == "everything"
    assert "complexity" not in rows


def test_versions_are_listed(page: tuple[str, str]) -> None:
    rows = {row[0]: row for row in read(page[0]).rows if row}
    assert rows["pictures: five"][1] == "2026-01-01"
    assert rows["pictures: five"][4] == "x 1"


def test_codecs_with_fewer_images_come_last(folder: Path) -> None:
    better = result("hevc", 0.1, images=("a",))
    found = compare([*StoredResults.load(folder).rd, better])[0]
    assert not found.same_images
    assert [r.codec for r in found.results][-2:] == ["hevc", "cog-zstd"]
    html = to_html("t", report_sections(StoredResults((*found.results,), (), {}, {})))
    assert "PSNR of a" in html
    assert "same number of images" in html


def test_images_are_compared_as_the_summary_is() -> None:
    ours = result("test", 0.6, "ours")
    useless = replace(ours.points[-1], setting="99", bpp=99.0, psnr=ours.points[-1].psnr - 1)
    best = replace(ours.points[4], setting="98", bpp=ours.points[4].bpp * 0.9)
    found = compare([result("openjpeg97", 1.0), replace(ours, points=(*ours.points, useless, best))])
    (table,) = images_section(found).blocks[0].blocks
    (row,) = [row for row in found[0].rows["openjpeg97"] if row.codec == "test"]
    rates = [float(cells[1]) for cells in table.rows]
    assert len(rates) == 2
    assert rates[0] < rates[1] == -40.0  # of the first image one setting is better
    assert sum(rates) / 2 == pytest.approx(row.bd_rate_per_image, abs=0.05)


def test_the_images_of_both_anchors_are_counted() -> None:
    five = result("openjpeg53", 1.0)
    beyond = tuple(replace(p, psnr=p.psnr + 90) if p.image == "b" else p for p in five.points)
    (found,) = compare([replace(five, points=beyond), result("openjpeg97", 0.8), result("test", 0.6, "ours")])
    table = summary_table(found)
    assert {row[0]: row[-1] for row in table.rows} == {"ours": "1 / 2", "openjpeg97": "1 / 2", "openjpeg53": "2 / 1"}


def test_plots_are_valid_and_named(folder: Path) -> None:
    results = StoredResults.load(folder).rd
    drawn = ElementTree.fromstring(rate_curves(results))
    texts = ["".join(node.itertext()).strip() for node in drawn.iter() if node.tag.endswith("text")]
    assert {"five", "nine", "LTCHM (test)", HOSTILE} <= set(texts)
    assert "ZSTD" not in texts


def test_empty_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no results"):
        StoredResults.load(tmp_path)
    (tmp_path / "speed").mkdir()
    (tmp_path / "speed" / "x.json").write_text('{"about": {}}')
    with pytest.raises(UsageError, match=r"x\.json is not a result of ltchm bench speed"):
        StoredResults.load(tmp_path)


def test_markdown_folds_and_escapes() -> None:
    text = to_markdown("a_b", [Section("s", [Folded("more", [Table(("x", "y"), (("a|b", "1"),))]), Paragraph("<b>")])])
    assert text.startswith("# a\\_b\n")
    assert "<details><summary>more</summary>" in text
    assert "a\\|b" in text
    assert "\\<b\\>" in text


# --- training --------------------------------------------------------------------------------------------------------


def checkpoint(name: str, factor: float, architecture: str, step: int = 100, lr: float = 1e-3) -> RdResult:
    recipe = {
        "architecture": architecture,
        "model": {},
        "options": {"n": 1} if "ltchm" not in architecture else {},
        "lr": lr,
    }
    return result(name, factor, checkpoint={"step": step, "recipe": recipe})


def test_equal_budgets_are_compared_with_the_baseline() -> None:
    full, base = checkpoint("full", 0.9, "ltchm"), checkpoint("base", 1.0, "ltchm-neither")
    other = checkpoint("other", 0.5, "cheng2020-attn", lr=1e-4)  # another recipe: not equal
    ((title, table),) = equal_budget_tables([full, base, other])
    assert "100 steps" in title
    assert "against ltchm-neither" in title
    assert [row[0] for row in table.rows] == ["full", "base"]
    assert table.rows[0][2:4] == ["-10.00", "-10.00"]


def test_training_curve() -> None:
    runs = [checkpoint("early", 1.2, "ltchm"), checkpoint("late", 0.9, "ltchm", step=200)]
    section = training_section(runs, [result("openjpeg97", 1.0)])
    assert "BD-rate to JPEG 2000 9/7" in to_html("t", [section])
    assert "over training" in to_markdown("t", [section])


# --- crops -----------------------------------------------------------------------------------------------------------


class Exponential:
    """A codec whose size falls exponentially with its setting, and which loses nothing."""

    name, label, excess = "exponential", "Exponential", 0

    def __init__(self) -> None:
        self.coded: list[str] = []

    def missing(self) -> str | None:
        return None

    def refuses(self, dtype: np.dtype[Any], bands: int) -> str | None:
        return None

    def settings(self, dtype: np.dtype[Any]) -> tuple[str, ...]:
        return ("0", "50")

    def encode(self, pixels: np.ndarray[Any, Any], setting: str) -> tuple[bytes, ...]:
        self.coded.append(setting)
        self._pixels = pixels
        return (bytes(round(pixels[0].size * 2 ** (-int(setting) / 10))),)

    def decode(self, files: tuple[bytes, ...], shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Any:
        return self._pixels

    def about(self) -> dict[str, Any]:
        return {}


def test_rates_are_matched() -> None:
    pixels = np.zeros((3, 64, 64), np.uint8)
    codec = Exponential()
    assert match_rate(codec, pixels, 2.0).setting == "20"
    assert codec.coded == ["0", "50", "20"]
    known = Exponential()
    assert match_rate(known, pixels, 2.0, {"10": 4.0, "30": 1.0}).setting == "20"
    assert known.coded == ["20"]
    assert match_rate(Exponential(), pixels, 100.0).setting == "0"  # as near as it gets


def test_crops_show_the_most_detailed_square(tmp_path: Path) -> None:
    pixels = np.full((96, 96, 3), 7, np.uint8)
    pixels[64:, 32:64] = np.random.default_rng(1).integers(0, 255, (32, 32, 3))
    Picture.fromarray(pixels).save(tmp_path / "a.png")
    (found,) = make_crops(open_dataset(tmp_path), [Exponential()], bpp=2.0, side=32)
    assert "row 64, column 32" in found.title
    assert [item.title for item in found.items] == ["original", "Exponential"]
    assert found.items[1].caption == "2.000 bpp, inf dB (whole image)"
    path = tmp_path / "crop.webp"
    path.write_bytes(found.items[1].data)
    with Picture.open(path) as crop:
        np.testing.assert_array_equal(np.asarray(crop.convert("RGB")), pixels[64:, 32:64])


def test_codecs_of_one_rate_have_no_crops(tmp_path: Path) -> None:
    Picture.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match="cog-zstd has no setting for its rate: leave it out"):
        make_crops(open_dataset(tmp_path), [Exponential(), codec("cog-zstd")])


def test_synthetic_codecs_are_what_they_say() -> None:
    assert bd_rate(result("x", 1.0).curve("a"), result("y", 0.6).curve("a")) == pytest.approx(-40)
