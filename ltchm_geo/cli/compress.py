"""`ltchm compress`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from ltchm_geo.cli import text
from ltchm_geo.cli.options import (
    Reporter,
    device_option,
    json_option,
    model_option,
    overwrite_option,
    quality_option,
    quiet_option,
    workers_option,
)

if TYPE_CHECKING:
    from ltchm_geo.compress import CompressResult


def _parse_overviews(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...] | Literal[False] | None:
    if value in ("auto", "none"):
        return None if value == "auto" else False
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise click.BadParameter(f"{value!r} is neither auto nor none nor a list of factors such as 2,4,8.", ctx, param)
    return tuple(map(int, parts))


@click.command(
    short_help="Compress a raster.",
    epilog="""
    \b
    Examples:
      ltchm compress scene.tif
      ltchm compress scene.tif small.ltchm --quality 20
      ltchm compress scene.tif --lambda 1024 --measure
      ltchm compress scene.tif scene.zarr --device cuda --json
      ltchm compress scene.tif --overviews 2,4,8,16 --overview-quality 70
    """,
)
@click.argument("src")
@click.argument("dst", required=False)
@quality_option
@click.option(
    "-L",
    "--lambda",
    "lambda_",
    type=click.FloatRange(128, 16384),
    metavar="L",
    help="Instead of a quality, the weight of distortion against rate.",
)
@model_option
@click.option(
    "--tile-size",
    type=click.IntRange(64, 1024),
    default=256,
    show_default=True,
    metavar="PIXELS",
    help="Side of a tile, a multiple of 64.",
)
@click.option(
    "--overviews",
    default="auto",
    show_default=True,
    callback=_parse_overviews,
    metavar="FACTORS",
    help="Coarser copies to store: auto (4,8,16,... for scenes longer than 2048 pixels), none, or factors such as 2,4.",
)
@click.option("--overview-quality", type=click.IntRange(1, 100), metavar="Q", help="Theirs, if not that of the scene.")
@click.option(
    "--preview/--no-preview",
    default=None,
    help="Store a JPEG quick-look; for scenes longer than 2048 pixels unless told otherwise.",
)
@click.option("--measure", is_flag=True, help="Decode the result and report PSNR and largest error per band.")
@device_option
@workers_option
@overwrite_option
@json_option
@quiet_option
def compress(
    src: str,
    dst: str | None,
    quality: int | None,
    lambda_: float | None,
    model: str | None,
    tile_size: int,
    overviews: tuple[int, ...] | Literal[False] | None,
    overview_quality: int | None,
    preview: bool | None,
    measure: bool,
    device: str,
    workers: int | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compress the raster SRC into DST.

    SRC is anything GDAL opens: 8 or 16 bit integers or floats, any number of bands. It is never changed. DST is one
    file, or a folder if its name ends in .zarr; without DST it is SRC with the suffix .ltchm. CRS, transform, tags,
    nodata, masks and alpha are kept exactly; colours and values approximately, as --quality says.
    """
    if quality is not None and lambda_ is not None:
        raise click.UsageError("--quality and --lambda say the same thing: give one of them.")
    from ltchm_geo import compress_raster

    reporter = Reporter(as_json, quiet)
    with reporter.progress("compressing") as progress:
        result = compress_raster(
            src,
            dst,
            quality=quality,
            lambda_=lambda_,
            model=model,
            device=device,
            tile_size=tile_size,
            overviews=overviews,
            overview_quality=overview_quality,
            preview=preview,
            overwrite=overwrite,
            measure=measure,
            workers=workers,
            progress=progress,
        )
    reporter.result(result.to_dict(), _describe(result))


def _describe(result: CompressResult) -> str:
    megapixels = 8 * result.bytes / result.bpp / 1e6
    source = f" (source file: {text.size(result.source_bytes)})" if result.source_bytes else ""
    rows: list[tuple[str, str | None]] = [
        ("size", f"{text.size(result.bytes)} for {text.size(result.raw_bytes)} of pixels{source}"),
        ("ratio", f"{result.ratio:.1f} times smaller, {result.bpp:.3f} bits per pixel"),
        ("tiles", ", ".join(f"{count} {mode}" for mode, count in result.tiles.items() if count)),
        ("time", f"{text.duration(result.seconds)}, {megapixels / max(result.seconds, 1e-9):.3g} megapixels/s"),
    ]
    parts = [str(result.path), text.facts(rows)]
    if result.psnr is not None and result.max_error is not None:
        measured = zip(result.psnr, result.max_error, strict=True)
        parts.append(
            text.table(
                ("band", "PSNR (dB)", "max error"),
                [(str(n), text.number(psnr), f"{worst:.6g}") for n, (psnr, worst) in enumerate(measured, start=1)],
            )
        )
    return "\n".join(parts)
