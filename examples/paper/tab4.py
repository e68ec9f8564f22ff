"""Tab. 4: what DAM and HPHAM add, in parameters and in BD-rate.

    python examples/paper/tab4.py [RESULTS]

Parameters are counted at the paper's width. BD-rates are of narrow networks after few steps, all on the same data,
steps, optimizer and crops (benchmarks/recipes/equal-*.toml), rate estimated as the paper does.
"""

from __future__ import annotations

from pathlib import Path

import click

from ltchm_geo.benchmark.complexity import count_table
from ltchm_geo.benchmark.paper import paper_table
from ltchm_geo.benchmark.report import StoredResults
from ltchm_geo.benchmark.report_document import Table, number
from ltchm_geo.benchmark.report_tables import equal_budget_tables


def parameters() -> str:
    """Parameters, and the paper's BD-rate and BD-PSNR beside them."""
    header = ["", "paper: M", "ours by thop: M", "ours, exact: M", "paper: BD-rate (%)", "paper: BD-PSNR (dB)"]
    rows = []
    for row, printed in zip(count_table(4).rows, paper_table(4)["rows"], strict=True):
        figures = (row.paper.parameters_m, row.thop.parameters_m, row.exact.parameters_m)
        bd = number(printed["bd_rate"], 2, sign=True), number(printed["bd_psnr"], 2, sign=True)
        rows.append([row.name, *(number(value) for value in figures), *bd])
    return Table(header, rows).markdown()


def equal_budget(results: Path) -> str:
    """Every comparison at equal budget that is stored."""
    tables = equal_budget_tables(StoredResults.load(results).training)
    missing = (
        "No comparison at equal budget is stored: train benchmarks/recipes/equal-*.toml, then ltchm bench checkpoint."
    )
    return "\n\n".join(f"{title}\n\n{table.markdown()}" for title, table in tables) or missing


@click.command()
@click.argument("results", type=click.Path(exists=True, path_type=Path), default=Path("benchmarks/results"))
def main(results: Path) -> None:
    """Print both tables."""
    print(f"{parameters()}\n\n{equal_budget(results)}")


if __name__ == "__main__":
    main()
