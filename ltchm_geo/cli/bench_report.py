"""`ltchm bench report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ltchm_geo.cli.bench_options import data_option, results_option
from ltchm_geo.cli.options import Reporter, device_option, json_option, overwrite_option, quiet_option

if TYPE_CHECKING:
    from ltchm_geo.benchmark.codecs import Codec
    from ltchm_geo.benchmark.report_document import Pictures


@click.command(
    short_help="One page and one table of all stored results.",
    epilog="""
    \b
    Examples:
      ltchm bench report --overwrite
      ltchm bench report --crops bundled --overwrite
      ltchm bench report my-results --out my-report
    """,
)
@click.argument(
    "results", type=click.Path(exists=True, file_okay=False, path_type=Path), default=Path("benchmarks/results")
)
@results_option("benchmarks", "Folder for report.html and report.md.")
@click.option(
    "--crops",
    metavar="DATASET",
    help="Show crops of this data set, coded now. Only bundled holds images that may be passed on.",
)
@data_option
@click.option(
    "--bpp",
    default=0.5,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    metavar="BPP",
    help="Rate of the crops.",
)
@click.option(
    "--codecs",
    default="ltchm,openjpeg97,avif,vvc",
    show_default=True,
    metavar="NAME,...",
    help="Codecs of the crops.",
)
@click.option("-m", "--model", metavar="NAME", help="Weights for ltchm, by tag, SHA-256 or path.")
@device_option
@overwrite_option
@json_option
@quiet_option
def report(
    results: Path,
    out: Path,
    crops: str | None,
    data: Path | None,
    bpp: float,
    codecs: str,
    model: str | None,
    device: str,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write all that is stored in RESULTS as DIR/report.html, which needs no other file, and DIR/report.md.

    Who needs how many bytes at equal quality, curves, speed, complexity, training, image by image; versions, commands
    and hardware. What was not measured is named. RESULTS is benchmarks/results unless given.
    """
    from ltchm_geo._sink import check_destination, write_file
    from ltchm_geo.benchmark.codecs import codec
    from ltchm_geo.benchmark.dataset import open_dataset
    from ltchm_geo.benchmark.report import TITLE, StoredResults, report_sections
    from ltchm_geo.benchmark.report_crops import make_crops
    from ltchm_geo.benchmark.report_document import to_markdown
    from ltchm_geo.benchmark.report_html import to_html

    reporter = Reporter(as_json, quiet)
    page, table = out / "report.html", out / "report.md"
    out.mkdir(parents=True, exist_ok=True)
    for path in (page, table):
        check_destination(path, overwrite)
    stored = StoredResults.load(results)
    pictures: list[Pictures] = []
    if crops is not None:
        chosen = _present([codec(name.strip(), model=model, device=device) for name in codecs.split(",")], reporter)
        with reporter.progress("crops") as progress:
            pictures = make_crops(open_dataset(crops, data), chosen, bpp=bpp, stored=stored.rd, progress=progress)
    sections = report_sections(stored, pictures)
    write_file(page, to_html(TITLE, sections).encode(), overwrite)
    write_file(table, to_markdown(TITLE, sections).encode(), overwrite)
    reporter.result({"html": page, "markdown": table}, f"wrote {page} and {table}")


def _present(codecs: list[Codec], reporter: Reporter) -> list[Codec]:
    """Those that can run here; the others are named."""
    for one in codecs:
        if reason := one.missing():
            reporter.warn(f"no crops of {one.name}: {reason}")
    return [one for one in codecs if one.missing() is None]
