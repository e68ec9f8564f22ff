"""`ltchm decompress`."""

from __future__ import annotations

import click

from ltchm_geo.cli import text
from ltchm_geo.cli.options import (
    Reporter,
    bounds_option,
    device_option,
    json_option,
    overwrite_option,
    parse_bands,
    quiet_option,
    window_option,
    workers_option,
)


def _parse_options(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for value, (name, _, setting) in zip(values, pairs, strict=True):
        if not name or not setting:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE, such as COMPRESS=ZSTD.", ctx, param)
    return {name: setting for name, _, setting in pairs}


@click.command(
    short_help="Restore a compressed scene as a GeoTIFF.",
    epilog="""
    \b
    Examples:
      ltchm decompress scene.ltchm back.tif
      ltchm decompress scene.ltchm part.tif --window 2048 4096 512 512
      ltchm decompress scene.ltchm town.tif --bounds 440000 5520000 441000 5521000
      ltchm decompress scene.ltchm infrared.tif --bands 4,3,2
      ltchm decompress scene.ltchm small.tif --level 1
      ltchm decompress scene.ltchm back.tif --co COMPRESS=ZSTD --co ZSTD_LEVEL=19
    """,
)
@click.argument("src")
@click.argument("dst", required=False)
@window_option("Only these pixels (of the level); rows and columns count from 0 at the upper left.")
@bounds_option("Instead, a place in the scene's CRS: whatever pixels it touches.")
@click.option("--bands", callback=parse_bands, metavar="1,2,3", help="Only these bands, in this order.")
@click.option(
    "--level",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Restore overview N instead of full resolution (0); `ltchm info` lists them.",
)
@click.option(
    "--co",
    "options",
    multiple=True,
    callback=_parse_options,
    metavar="NAME=VALUE",
    help="Creation option of GDAL for GeoTIFFs, such as COMPRESS=ZSTD; may be repeated.",
)
@click.option("--allow-damaged", is_flag=True, help="Put nodata (or 0) in place of damaged tiles instead of stopping.")
@device_option
@workers_option
@overwrite_option
@json_option
@quiet_option
def decompress(
    src: str,
    dst: str | None,
    window: tuple[int, int, int, int] | None,
    bounds: tuple[float, float, float, float] | None,
    bands: tuple[int, ...] | None,
    level: int,
    options: dict[str, str],
    allow_damaged: bool,
    device: str,
    workers: int | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Restore the compressed scene SRC as the GeoTIFF DST.

    SRC is a .ltchm file or a .zarr folder. Without DST the result is SRC with the suffix .tif. The weights the scene
    was made with must be installed; `ltchm info` names them.
    """
    from ltchm_geo import decompress_raster

    reporter = Reporter(as_json, quiet)
    with reporter.progress("decompressing") as progress:
        result = decompress_raster(
            src,
            dst,
            window=window,
            bounds=bounds,
            bands=bands,
            level=level,
            device=device,
            overwrite=overwrite,
            allow_damaged=allow_damaged,
            workers=workers,
            options=options,
            progress=progress,
        )
    for tile in result.damaged[:5]:
        reporter.warn(tile.message)
    if result.damaged:
        found = text.counted(len(result.damaged), "damaged tile")
        reporter.warn(f"{found} replaced by nodata or 0; `ltchm verify` lists what is damaged")
    rows = [("size", text.size(result.bytes)), ("time", text.duration(result.seconds))]
    reporter.result(result.to_dict(), f"{result.path}\n{text.facts(rows)}")
