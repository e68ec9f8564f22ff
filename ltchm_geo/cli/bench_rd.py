"""`ltchm bench rd`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ltchm_geo.cli import text
from ltchm_geo.cli.bench_options import data_option, dataset_option, results_option
from ltchm_geo.cli.options import Reporter, device_option, json_option, quiet_option

if TYPE_CHECKING:
    from ltchm_geo.benchmark.results import SummaryRow


@click.command(
    short_help="Rate and distortion of codecs on images.",
    epilog="""
    \b
    Examples:
      ltchm bench rd --dataset bundled
      ltchm bench rd --dataset eval-rgb --data DIR --codec vvc --codec ltchm
      ltchm bench rd --dataset DIR --codec openjpeg97 --out results

    Codecs: openjpeg53, openjpeg97, jpeg, webp, avif, avif-best, jxl, hevc,
    vvc, cog-jpeg, cog-webp, cog-lerc, cog-zstd, ltchm.
    """,
)
@click.option(
    "--codec", "codecs", multiple=True, metavar="NAME", help="Measure this one; may be repeated. Default: all."
)
@dataset_option
@data_option
@results_option("benchmarks/results/rd")
@click.option(
    "--metrics",
    default="psnr,ms-ssim",
    show_default=True,
    metavar="LIST",
    help="Of psnr, ms-ssim, lpips and vifp.",
)
@click.option("-m", "--model", metavar="NAME", help="Weights for ltchm, by tag, SHA-256 or path.")
@device_option
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Images in work at once; more than one makes times worthless.",
)
@click.option("--overwrite", is_flag=True, help="Measure again what has a result already.")
@json_option
@quiet_option
def rd(
    codecs: tuple[str, ...],
    dataset: str,
    data: Path | None,
    out: Path,
    metrics: str,
    model: str | None,
    device: str,
    jobs: int,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Encode and decode images with this codec and others, and compare.

    Real files, every byte counted. Each codec's result becomes a JSON file in DIR/DATASET, with versions, command and
    hardware; a codec that has one is not measured again. Codecs whose encoder is not installed are skipped by name.
    The tables at the end hold BD-rates of all results there, against JPEG 2000 with the 5/3 and the 9/7 wavelet.
    """
    from ltchm_geo.benchmark.codecs import NAMES, codec
    from ltchm_geo.benchmark.dataset import open_dataset
    from ltchm_geo.benchmark.rd import CannotRunError, measure_codec
    from ltchm_geo.benchmark.results import ANCHORS, load_results, summarise

    reporter = Reporter(as_json, quiet)
    images = open_dataset(dataset, data)
    chosen = [codec(name, model=model, device=device) for name in codecs or NAMES]
    skipped: list[CannotRunError] = []
    for one in chosen:
        try:
            with reporter.progress(one.name) as progress:
                measure_codec(
                    one,
                    images,
                    out,
                    metrics=[name.strip() for name in metrics.split(",")],
                    overwrite=overwrite,
                    jobs=jobs,
                    progress=progress,
                )
        except CannotRunError as reason:
            skipped.append(reason)
            reporter.warn(f"skipped {reason}")
    if len(skipped) == len(chosen):
        raise skipped[0]
    results = load_results(out / images.name)
    tables = {anchor: summarise(results, anchor) for anchor in ANCHORS}
    rows = [asdict(row) for table in tables.values() for row in table]
    outcome = {"dataset": images.name, "rows": rows, "skipped": [str(reason) for reason in skipped]}
    shown = [_table(anchor, table) for anchor, table in tables.items() if table]
    reporter.result(outcome, "\n\n".join([f"{images.name}: {images.title}", *shown]))


def _table(anchor: str, rows: list[SummaryRow]) -> str:
    header = ("codec", "BD-rate", "per image", "BD-PSNR", "MS-SSIM", "per image", "images", "enc Mpx/s", "dec Mpx/s")
    body = [
        (
            row.codec,
            *(text.number(value, 1) for value in (row.bd_rate, row.bd_rate_per_image)),
            text.number(row.bd_psnr),
            *(text.number(value, 1) for value in (row.bd_rate_ms_ssim, row.bd_rate_ms_ssim_per_image)),
            str(row.images),
            *(text.number(value) for value in (row.encode_mpx_s, row.decode_mpx_s)),
        )
        for row in rows
    ]
    return f"Against {anchor}: rate at equal quality in percent, PSNR at equal rate in dB\n{text.table(header, body)}"
