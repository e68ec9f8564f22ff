"""`ltchm estimate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ltchm_geo.cli import text
from ltchm_geo.cli.options import (
    Reporter,
    bounds_option,
    device_option,
    json_option,
    model_option,
    quality_option,
    quiet_option,
    window_option,
)
from ltchm_geo.cli.sections import SectionedCommand, under
from ltchm_geo.cli.settings_options import (
    AIMS,
    decorrelate_option,
    lambda_option,
    lossless_option,
    max_error_option,
    nodata_option,
    overviews_option,
    tile_size_option,
)

if TYPE_CHECKING:
    from ltchm_geo.estimate import Estimate


@click.command(
    cls=SectionedCommand,
    short_help="Estimate size and quality before compressing.",
    epilog="""
    \b
    Examples:
      ltchm estimate scene.tif
      ltchm estimate dem.tif --max-error 0.5
      ltchm estimate scene.tif --quality 20 --window 0 0 512 512 --images look/
      ltchm estimate scene.tif --bounds 440000 5520000 441000 5521000
    """,
)
@click.argument("src")
@under(AIMS, quality_option, lambda_option, lossless_option, max_error_option)
@under("What the scene would be", nodata_option, overviews_option, decorrelate_option, tile_size_option, model_option)
@under(
    "What is looked at",
    window_option("What to restore; 512 x 512 pixels in the middle unless given."),
    bounds_option("Instead, a place in the raster's CRS: its middle is restored, at most 512 x 512 pixels."),
    click.option(
        "--images",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="FOLDER",
        help="Folder for original.png, restored.png and difference.png of the window.",
    ),
    click.option(
        "--samples", type=click.IntRange(min=1), default=24, show_default=True, metavar="N", help="Tiles to try."
    ),
)
@device_option
@json_option
@quiet_option
def estimate(
    src: str,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Estimate what compressing the raster SRC would give.

    Codes a sample of tiles for the size, and one window for the quality. Nothing is written but the pictures that
    --images asks for.
    """
    from ltchm_geo.estimate import estimate_raster

    reporter = Reporter(as_json, quiet)
    with reporter.progress("estimating") as progress:
        result = estimate_raster(src, progress=progress, **options)
    if result.missed:
        reporter.warn("the raster has no place in these bounds: its middle was looked at instead")
    reporter.result(result.to_dict(), _describe(result))


def _describe(result: Estimate) -> str:
    size = text.size(result.bytes)
    if result.bytes_low < result.bytes_high:
        size += f", between {text.size(result.bytes_low)} and {text.size(result.bytes_high)}"
    row, column, height, width = result.window
    source = f" (source file: {text.size(result.source_bytes)})" if result.source_bytes else ""
    rows: list[tuple[str, str | None]] = [
        ("size", size),
        ("of", f"{text.size(result.raw_bytes)} of pixels{source}"),
        ("ratio", f"{result.ratio:.1f} times smaller, {result.bpp:.3f} bits per pixel"),
        ("sample", f"{text.counted(result.sampled_tiles, 'tile')} of {result.tiles}"),
        ("window", f"{height} x {width} pixels from row {row}, column {column}"),
        ("PSNR", ", ".join(f"{value:.2f}" for value in result.psnr) + " dB"),
        ("max error", ", ".join(f"{value:.6g}" for value in result.max_error)),
        ("pictures", ", ".join(str(path) for path in result.images.values())),
    ]
    return "estimate\n" + text.facts(rows)
