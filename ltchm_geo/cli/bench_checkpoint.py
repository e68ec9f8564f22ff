"""`ltchm bench checkpoint`."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import click

from ltchm_geo.cli import text
from ltchm_geo.cli.bench_options import data_option, dataset_option, results_option
from ltchm_geo.cli.options import Reporter, device_option, json_option, overwrite_option, quiet_option


@click.command(
    short_help="Estimated rate and distortion of a training checkpoint.",
    epilog="""
    \b
    Examples:
      ltchm bench checkpoint run/final.safetensors --dataset eval-rgb-tiles --data DIR
      ltchm bench checkpoint run/final.safetensors --name equal-cheng2020 --level 0 --level 64
    """,
)
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@dataset_option
@data_option
@click.option(
    "--level",
    "levels",
    multiple=True,
    default=range(0, 113, 16),
    type=click.IntRange(0, 112),
    metavar="N",
    help="Quality level, 0 to 112; may be repeated. Default: every 16th.",
)
@click.option("--name", metavar="NAME", help="Name of the result. Default: the architecture.")
@results_option("benchmarks/results/training")
@device_option
@overwrite_option
@json_option
@quiet_option
def checkpoint(
    checkpoint: Path,
    dataset: str,
    data: Path | None,
    levels: tuple[int, ...],
    name: str | None,
    out: Path,
    device: str,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Estimate what CHECKPOINT, of any architecture, would make of 8-bit RGB images, in tiles of 256 x 256.

    The averaged weights are measured. The rate is the entropy of the rounded latents under the network's own
    probabilities; no file is written, so a real one is a little larger. The result becomes DIR/DATASET/NAME.json.
    """
    from ltchm_geo._sink import check_destination
    from ltchm_geo.benchmark.dataset import open_dataset
    from ltchm_geo.benchmark.results import result_path
    from ltchm_geo.device import pick_device
    from ltchm_geo.training.evaluate import measure_checkpoint
    from ltchm_geo.training.loop import read_facts
    from ltchm_geo.training.recipe import Recipe

    reporter = Reporter(as_json, quiet)
    images = open_dataset(dataset, data)
    name = name or Recipe.from_dict(read_facts(checkpoint)["recipe"]).architecture
    path = result_path(out, images.name, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    check_destination(path, overwrite)
    with reporter.progress(name) as progress:
        result = measure_checkpoint(
            checkpoint, images, levels, name=name, device=pick_device(device), progress=progress
        )
    result.save(out)
    rows: list[dict[str, Any]] = []
    for level in result.settings:
        points = [point for point in result.points if point.setting == level]
        bpp, psnr = fmean(point.bpp for point in points), fmean(point.psnr for point in points)
        rows.append({"level": level, "bpp": bpp, "psnr": psnr})
    body = [(row["level"], text.number(row["bpp"], 4), text.number(row["psnr"])) for row in rows]
    shown = text.table(("level", "bpp", "PSNR"), body)
    reporter.result({"path": path, "rows": rows}, f"{result.label}, mean of {images.name}\n{shown}\n{path}")
