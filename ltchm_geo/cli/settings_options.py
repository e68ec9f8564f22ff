"""The options that say how a raster is compressed: those of `CompressSettings`, for every command that compresses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import click

from ltchm_geo.cli.options import (
    device_option,
    model_option,
    overwrite_option,
    quality_option,
    scheduler_option,
    workers_option,
)
from ltchm_geo.cli.sections import under

__all__ = [
    "AIMS",
    "RUNNING",
    "decorrelate_option",
    "lambda_option",
    "lossless_option",
    "max_error_option",
    "nodata_option",
    "overviews_option",
    "settings_options",
    "tile_size_option",
]

#: Headings in the help that commands add options of their own to.
AIMS, RUNNING = "How good (give one)", "How it is done"

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _parse_overviews(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...] | Literal[False] | None:
    if value in ("auto", "none"):
        return None if value == "auto" else False
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise click.BadParameter(f"{value!r} is neither auto nor none nor a list of factors such as 2,4,8.", ctx, param)
    return tuple(map(int, parts))


def _parse_bounds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | tuple[float, ...] | None:
    if value is None:
        return None
    try:
        bounds = tuple(float(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a number, or one per band such as 1,1,4.", ctx, param) from error
    return bounds if len(bounds) > 1 else bounds[0]


def _number_above_zero(name: str, metavar: str, text: str) -> Callable[[_Command], _Command]:
    return click.option(name, type=click.FloatRange(0, min_open=True), metavar=metavar, help=text)


lambda_option = click.option(
    "-L",
    "--lambda",
    "lambda_",
    type=click.FloatRange(128, 16384),
    metavar="L",
    help="Instead of a quality, the weight of distortion against rate.",
)
lossless_option = click.option(
    "--lossless", is_flag=True, help="Instead, keep every pixel exactly; classes and palettes, too."
)
max_error_option = click.option(
    "--max-error",
    callback=_parse_bounds,
    metavar="E",
    help="Instead, the furthest that any pixel may be from the original, in data units; or one number per band, as "
    "in 1,1,4. Holds on every machine.",
)
tile_size_option = click.option(
    "--tile-size",
    type=click.IntRange(64, 1024),
    default=256,
    show_default=True,
    metavar="PIXELS",
    help="Side of a tile, a multiple of 128 (of 64 with --lossless).",
)
overviews_option = click.option(
    "--overviews",
    default="auto",
    show_default=True,
    callback=_parse_overviews,
    metavar="FACTORS",
    help="Coarser copies to store: auto (4,8,16,... for scenes longer than 2048 pixels), none, or factors such as 2,4.",
)
decorrelate_option = click.option(
    "--decorrelate/--no-decorrelate",
    default=True,
    show_default=True,
    help="Code more than three bands, or two or three that differ much, as uncorrelated components: far smaller, but "
    "reading one band decodes its whole group. Not used with --lossless or --max-error.",
)

nodata_option = click.option(
    "--nodata",
    type=float,
    metavar="VALUE",
    help="What pixels without data hold, if the raster does not say so: 0 for the black around many scenes.",
)

_AIMS = under(
    AIMS,
    quality_option,
    lambda_option,
    lossless_option,
    max_error_option,
    _number_above_zero(
        "--target-psnr", "DB", "Instead, find the quality with this PSNR, the mean of what --measure reports."
    ),
    _number_above_zero(
        "--target-bpp", "BITS", "Instead, find the quality with this many bits per pixel, all bands together."
    ),
    _number_above_zero("--target-ratio", "R", "Instead, find the quality that makes the pixels R times smaller."),
)
_CONTENT = under(
    "What the scene is",
    nodata_option,
    overviews_option,
    click.option(
        "--overview-quality",
        type=click.IntRange(1, 100),
        metavar="Q",
        help="Quality of the overviews; that of the scene unless given.",
    ),
    click.option(
        "--preview/--no-preview",
        default=None,
        help="Store a JPEG quick-look. Default: only for scenes longer than 2048 pixels.",
    ),
    click.option(
        "--seamless/--no-seamless",
        default=None,
        help="Let tiles see their neighbours, so that no seams show. Default: yes for single files, no for .zarr "
        "folders.",
    ),
    decorrelate_option,
    tile_size_option,
    model_option,
)
_CHECKS = under(
    "What is checked",
    click.option("--measure", is_flag=True, help="Decode the result and report PSNR and largest error per band."),
    click.option("--verify", is_flag=True, help="Read every tile of the result back before it gets its name."),
)
_RUN = under(RUNNING, device_option, workers_option, scheduler_option, overwrite_option)


def settings_options(command: _Command) -> _Command:
    """Decorate a command with the options, and with that of a cluster.

    Their values come as keywords named as the fields of `CompressSettings`, and `client`.
    """
    return _AIMS(_CONTENT(_CHECKS(_RUN(command))))
