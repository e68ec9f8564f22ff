"""`ltchm bench seams`."""

from __future__ import annotations

from pathlib import Path

import click

from ltchm_geo.cli.bench_options import data_option, dataset_option, replace_file_option
from ltchm_geo.cli.options import Reporter, device_option, json_option, model_option, parse_numbers, quiet_option


@click.command(
    short_help="Whether one can see where tiles meet.",
    epilog="""
    \b
    Examples:
      ltchm bench seams
      ltchm bench seams --dataset images/ --quality 1,50 --pictures seams/
      ltchm bench seams --dataset eval-rgb --data images/ --out seams.json
    """,
)
@dataset_option
@data_option
@click.option(
    "--quality",
    default="1,25,50",
    show_default=True,
    callback=parse_numbers,
    metavar="Q,...",
    help="Qualities to code at, 1 to 100.",
)
@click.option(
    "--pictures",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write pictures of a place where four tiles meet: original, without and with the remedy.",
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Keep the figures as JSON."
)
@replace_file_option
@model_option
@device_option
@json_option
@quiet_option
def seams(
    dataset: str,
    data: Path | None,
    quality: tuple[int, ...],
    pictures: Path | None,
    out: Path | None,
    overwrite: bool,
    model: str | None,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compress whole images with tiles that see their neighbours, and with tiles that do not, and compare.

    Seam visibility is the energy of the error's jumps across tile borders over that at other multiples of 16 pixels;
    the step is its visible part, free of single pixels' errors. Both are 1 where nobody can see a seam.
    """
    from ltchm_geo._sink import check_destination
    from ltchm_geo.benchmark.dataset import open_dataset
    from ltchm_geo.benchmark.output import save_json
    from ltchm_geo.benchmark.seams import measure_seams

    if out is not None:
        check_destination(out, overwrite)
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
    reporter, images = Reporter(as_json, quiet), open_dataset(dataset, data)
    with reporter.progress("measuring") as progress:
        found = measure_seams(images, quality, model=model, device=device, pictures=pictures, progress=progress)
    if out is not None:
        save_json(out, found.to_dict())
    reporter.result(found.to_dict(), found.markdown())
