"""Figs. 6-11: PSNR, MS-SSIM, LPIPS and VIFp against bits per pixel.

    python examples/paper/figs6_11.py curves.html [RESULTS] [--dataset NAME]...

Prints the points and writes the curves as a page. LPIPS and VIFp are there for results that were measured with
`ltchm bench rd --metrics psnr,ms-ssim,lpips,vifp`.
"""

from __future__ import annotations

from pathlib import Path

import click

from ltchm_geo.benchmark.report import StoredResults
from ltchm_geo.benchmark.report_document import Section, Table, number, to_markdown
from ltchm_geo.benchmark.report_html import to_html
from ltchm_geo.benchmark.report_plots import METRIC_AXES
from ltchm_geo.benchmark.report_rd import Comparison, compare, curves_section

TITLE = "Figs. 6-11: rate and distortion"


def points(comparison: Comparison) -> Table:
    """Mean over the images at every setting."""
    rows = []
    for result in comparison.results:
        curves = {metric: dict(result.averaged(metric)) for metric in METRIC_AXES}
        for rate in curves["psnr"]:
            rows.append(
                [result.label, number(rate, 3), *(number(curves[metric].get(rate), 3) for metric in METRIC_AXES)]
            )
    return Table(["codec", "bpp", *METRIC_AXES.values()], rows)


@click.command()
@click.argument("page", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("results", type=click.Path(exists=True, path_type=Path), default=Path("benchmarks/results"))
@click.option("--dataset", "datasets", multiple=True, default=("eval-rgb-tiles", "eval-rgb"), show_default=True)
def main(page: Path, results: Path, datasets: tuple[str, ...]) -> None:
    """Write PAGE and print the points as Markdown."""
    stored = StoredResults.load(results).rd
    if missing := set(datasets) - {result.dataset for result in stored}:
        raise click.ClickException(f"no results of {', '.join(sorted(missing))}; ltchm bench rd makes them")
    comparisons = compare([result for result in stored if result.dataset in datasets])
    page.write_text(to_html(TITLE, [curves_section(comparisons)]), encoding="utf-8")
    print(to_markdown(TITLE, [Section(comparison.dataset, [points(comparison)]) for comparison in comparisons]))


if __name__ == "__main__":
    main()
