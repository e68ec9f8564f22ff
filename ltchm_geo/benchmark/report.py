"""The report: every stored result as one HTML page and as a Markdown file.

::

    benchmarks/results/rd/DATASET/CODEC.json          ltchm bench rd
    benchmarks/results/training/DATASET/NAME.json     ltchm bench checkpoint
    benchmarks/results/complexity/NAME.json           ltchm bench complexity
    benchmarks/results/speed/NAME.json                ltchm bench speed

What has not been measured is named, with the command that would.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltchm_geo._json import loads
from ltchm_geo.benchmark.report_document import Block, Paragraph, Pictures, Section, Table
from ltchm_geo.benchmark.report_rd import compare, curves_section, images_section, summary_section
from ltchm_geo.benchmark.report_tables import about_section, complexity_section, speed_section, training_section
from ltchm_geo.benchmark.results import RdResult, load_results
from ltchm_geo.errors import UsageError

__all__ = ["TITLE", "StoredResults", "report_sections"]

TITLE = "ltchm_geo: benchmarks"

_DATASETS = ("eval-rgb", "eval-rgb-tiles", "bundled", "eval-wide")
_REPEAT = "ltchm bench rd --dataset bundled\nltchm bench report --overwrite"


@dataclass(frozen=True)
class StoredResults:
    """All that is stored.

    Attributes
    ----------
    rd, training : see `results`
    complexity, speed : JSON by name of the file
    """

    rd: tuple[RdResult, ...]
    training: tuple[RdResult, ...]
    complexity: dict[str, dict[str, Any]]
    speed: dict[str, dict[str, Any]]

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> StoredResults:
        """Read a folder of results; parts that are not there are empty.

        Raises
        ------
        UsageError
            If there is nothing at all, or a file is not what its folder says.
        """
        root = Path(folder)
        found = cls(
            tuple(sorted(load_results(root / "rd"), key=lambda result: _rank(result.dataset))),
            tuple(load_results(root / "training")),
            _tables(root / "complexity", {"title", "about"}),
            _tables(root / "speed", {"about", "scene", "codec", "network", "systems"}),
        )
        if not (found.rd or found.training or found.complexity or found.speed):
            raise UsageError(
                f"{root} holds no results; make some: ltchm bench rd --dataset bundled --out {root / 'rd'}"
            )
        return found


def report_sections(stored: StoredResults, crops: Sequence[Pictures] = ()) -> list[Section]:
    """The whole report as a document.

    Parameters
    ----------
    stored : what to report
    crops : pictures, see `report_crops`
    """
    comparisons = compare(stored.rd)
    sections = []
    if comparisons:
        sections += [summary_section(comparisons), curves_section(comparisons)]
    if crops:
        sections.append(Section("Crops", crops))
    if stored.training:
        sections.append(training_section(stored.training, stored.rd))
    if stored.speed:
        sections.append(speed_section(stored.speed))
    if stored.complexity:
        sections.append(complexity_section(stored.complexity))
    if comparisons:
        sections.append(images_section(comparisons))
    missing = _missing(stored, bool(crops))
    return [*sections, *([missing] if missing else []), _about(stored)]


def _missing(stored: StoredResults, crops: bool) -> Section | None:
    """What could be measured and was not."""
    from ltchm_geo.benchmark.codecs import LTCHM, NAMES

    rows = []
    for dataset in dict.fromkeys((*_DATASETS, *(result.dataset for result in stored.rd))):
        there = {
            LTCHM if "model" in result.about else result.codec for result in stored.rd if result.dataset == dataset
        }
        absent = [name for name in NAMES if name not in there]
        if absent:
            what = ", ".join(absent) if there else "everything"
            rows.append([f"rate and distortion on {dataset}", what, f"ltchm bench rd --dataset {dataset}"])
    for name, there_is, command in (
        ("architectures at equal budget", stored.training, "ltchm bench checkpoint"),
        ("complexity", stored.complexity, "ltchm bench complexity --out benchmarks/results/complexity"),
        ("speed", stored.speed, "ltchm bench speed --out benchmarks/results/speed/NAME.json"),
        ("crops", crops, "ltchm bench report --crops bundled --overwrite"),
    ):
        if not there_is:
            rows.append([name, "everything", command])
    if not rows:
        return None
    blocks: list[Block] = [
        Paragraph("Encoders that were not installed, data that was not there, or work still to do."),
        Table(["result", "missing", "command"], rows, frozenset({1, 2})),
    ]
    return Section("Not measured", blocks)


def _about(stored: StoredResults) -> Section:
    measured = [(f"{result.dataset}: {result.label}", result.about) for result in (*stored.rd, *stored.training)]
    for kind in ("complexity", "speed"):
        measured += [(f"{kind}: {name}", found["about"]) for name, found in getattr(stored, kind).items()]
    return about_section(measured, _REPEAT)


def _tables(folder: Path, required: set[str]) -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            data = loads(path.read_bytes())
            if not isinstance(data, dict) or required - data.keys():
                raise ValueError(f"lacks {', '.join(sorted(required))}")
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} is not a result of ltchm bench {folder.name}: {error}") from error
        found[path.stem] = data
    return found


def _rank(dataset: str) -> int:
    return _DATASETS.index(dataset) if dataset in _DATASETS else len(_DATASETS)
