"""Tab. 3: BD-rate against JPEG2000, the paper's figures beside what is stored here.

    python examples/paper/tab3.py [RESULTS]

The paper's images (DOTA, UC-Merced and Gaofen at 256 x 256) cannot be redistributed; ours are benchmarks/datasets. HEVC
stands for BPG. "Ours" are real files by the shipped weights. Rows with a number of steps are checkpoints that were
trained at equal budget: narrow networks, few steps, and an estimated rate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ltchm_geo.benchmark.paper import paper_table
from ltchm_geo.benchmark.report import StoredResults
from ltchm_geo.benchmark.report_document import Table, number
from ltchm_geo.benchmark.report_plots import is_ours
from ltchm_geo.benchmark.results import ANCHORS, RdResult, summarise

SAME = {"BPG": "hevc", "AVIF": "avif", "WebP": "webp"}
PAPER_SETS = {"dota": "DOTA", "uc_merced": "UC-Merced", "gaofen": "Gaofen"}
OUR_SETS = ("eval-rgb-tiles", "eval-rgb", "bundled")


def table(results: Path) -> str:
    """The table as Markdown."""
    stored = StoredResults.load(results)
    rd = (*stored.rd, *stored.training)
    header = ["BD-rate (%)", *(f"paper: {name}" for name in PAPER_SETS.values())]
    header += [f"{dataset}, to {anchor}" for dataset in OUR_SETS for anchor in ANCHORS]
    rows = []
    for entry in paper_table(3)["rows"]:
        printed = [number(entry[name]["bd_rate"], 1, sign=True) for name in PAPER_SETS]
        found = [result for result in rd if _is_row(result, entry)]
        for label in dict.fromkeys(result.label for result in found) or ["-"]:
            name = entry["name"] if label == "-" else f"{entry['name']}: {label}"
            ours = [_pair(rd, label, dataset, anchor) for dataset in OUR_SETS for anchor in ANCHORS]
            rows.append([name, *printed, *ours])
    return Table(header, rows).markdown()


def _is_row(result: RdResult, entry: dict[str, Any]) -> bool:
    if "checkpoint" in result.about:
        return bool(result.about["checkpoint"]["recipe"]["architecture"] == entry.get("architecture"))
    return entry["name"] == "Ours" if is_ours(result) else result.codec == SAME.get(entry["name"])


def _pair(rd: tuple[RdResult, ...], label: str, dataset: str, anchor: str) -> str:
    """Averaged curve / mean of the images; "-" where it was not measured."""
    group = [result for result in rd if result.dataset == dataset and (result.codec == anchor or result.label == label)]
    found = [row for row in summarise(group, anchor) if row.label == label]
    return f"{number(found[0].bd_rate, 1, True)} / {number(found[0].bd_rate_per_image, 1, True)}" if found else "-"


@click.command()
@click.argument("results", type=click.Path(exists=True, path_type=Path), default=Path("benchmarks/results"))
def main(results: Path) -> None:
    """Print the table."""
    print(table(results))


if __name__ == "__main__":
    main()
