"""Figs. 12-14: crops of decoded images side by side, at nearly the same rate.

    python examples/paper/figs12_14.py crops.html [--dataset bundled] [--bpp 0.5] [--codecs ltchm,openjpeg97,avif]

Codes the images now, as real files. Prints rate and PSNR and writes the pictures as a page.
"""

from __future__ import annotations

from pathlib import Path

import click

from ltchm_geo.benchmark.codecs import codec
from ltchm_geo.benchmark.dataset import open_dataset
from ltchm_geo.benchmark.report_crops import make_crops
from ltchm_geo.benchmark.report_document import Section, to_markdown
from ltchm_geo.benchmark.report_html import to_html

TITLE = "Figs. 12-14: crops"


@click.command()
@click.argument("page", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--dataset", default="bundled", show_default=True)
@click.option("--bpp", default=0.5, show_default=True)
@click.option("--codecs", default="ltchm,openjpeg97,avif,hevc,vvc", show_default=True)
@click.option("--model", default=None, help="Weights, by tag or hash.")
def main(page: Path, dataset: str, bpp: float, codecs: str, model: str | None) -> None:
    """Write PAGE and print the captions as Markdown."""
    chosen = [codec(name, model=model) for name in codecs.split(",")]
    for missing in (one for one in chosen if one.missing()):
        click.echo(f"left out: {missing.name} {missing.missing()}", err=True)
    crops = make_crops(open_dataset(dataset), [one for one in chosen if not one.missing()], bpp=bpp)
    page.write_text(to_html(TITLE, [Section("Crops", crops)]), encoding="utf-8")
    print(to_markdown(TITLE, [Section("Crops", crops)]))


if __name__ == "__main__":
    main()
