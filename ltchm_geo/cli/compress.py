"""`ltchm compress`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ltchm_geo.cli import text
from ltchm_geo.cli.options import Reporter, json_option, quiet_option
from ltchm_geo.cli.sections import SectionedCommand, under
from ltchm_geo.cli.settings_options import RUNNING, settings_options

if TYPE_CHECKING:
    from ltchm_geo.compress import CompressResult


@click.command(
    cls=SectionedCommand,
    short_help="Compress a raster.",
    epilog="""
    \b
    Examples:
      ltchm compress scene.tif
      ltchm compress scene.tif small.ltchm --quality 20
      ltchm compress scene.tif --lambda 1024 --measure
      ltchm compress scene.tif scene.zarr --device cuda --json
      ltchm compress scene.tif --overviews 2,4,8,16 --overview-quality 70
      ltchm compress classes.tif --lossless --verify
      ltchm compress dem.tif --max-error 0.5    heights within half a metre
      ltchm compress scene.tif --nodata 0       black is no data
      ltchm compress scene.tif --target-ratio 20
      ltchm compress huge.tif --resume          again after a power cut: goes on
    """,
)
@click.argument("src")
@click.argument("dst", required=False)
@settings_options
@under(
    RUNNING,
    click.option(
        "--resume", is_flag=True, help="Keep what is finished when interrupted; go on from it in the next run."
    ),
)
@json_option
@quiet_option
def compress(src: str, dst: str | None, as_json: bool, quiet: bool, **settings: Any) -> None:
    """Compress the raster SRC into DST.

    SRC is anything GDAL opens: 8 or 16 bit integers or floats, any number of bands. It is never changed. DST is one
    file, or a folder if its name ends in .zarr; without DST it is SRC with the suffix .ltchm, and in DST if that is
    another folder. CRS, transform, tags, nodata, masks and alpha are kept exactly; colours and values approximately, as
    --quality says, or as closely as --max-error or --lossless demand. DST may be in an object store:
    s3://bucket/scene.ltchm.
    """
    from ltchm_geo import compress_raster

    reporter = Reporter(as_json, quiet)
    with reporter.progress("compressing") as progress:
        result = compress_raster(src, dst, progress=progress, written=reporter.written, **settings)
    reporter.result(result.to_dict(), _describe(result))


def _describe(result: CompressResult) -> str:
    megapixels = 8 * result.bytes / result.bpp / 1e6
    source = f" (source file: {text.size(result.source_bytes)})" if result.source_bytes else ""
    rows: list[tuple[str, str | None]] = [
        ("size", f"{text.size(result.bytes)} for {text.size(result.raw_bytes)} of pixels{source}"),
        ("ratio", f"{result.ratio:.1f} times smaller, {result.bpp:.3f} bits per pixel"),
        ("tiles", ", ".join(f"{count} {mode}" for mode, count in result.tiles.items() if count)),
        ("alpha", None if result.alpha is None else f"band {result.alpha}, stored exactly"),
        ("PSNR", None if result.psnr is None else _mean(result.psnr)),
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


def _mean(psnr: Sequence[float]) -> str:
    from ltchm_geo.targets import mean_psnr

    return f"{mean_psnr(psnr):.2f} dB, the mean over the bands"
