"""`ltchm preview`."""

from __future__ import annotations

from pathlib import Path

import click

from ltchm_geo.cli import text
from ltchm_geo.cli.options import Reporter, device_option, json_option, overwrite_option, quiet_option

_DRIVERS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


@click.command(
    short_help="Make a small picture of a compressed scene.",
    epilog="""
    \b
    Examples:
      ltchm preview scene.ltchm
      ltchm preview scene.ltchm look.jpg --size 1024
      ltchm preview scene.ltchm look.png --level 2
    """,
)
@click.argument("src")
@click.argument("dst", required=False, type=click.Path(path_type=Path))
@click.option(
    "--size",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    metavar="PIXELS",
    help="Length of the longer side.",
)
@click.option("--level", type=click.IntRange(min=0), metavar="N", help="Draw this overview; 0 is full resolution.")
@click.option("--allow-damaged", is_flag=True, help="Take nodata (or 0) for damaged tiles.")
@device_option
@overwrite_option
@json_option
@quiet_option
def preview(
    src: str,
    dst: Path | None,
    size: int,
    level: int | None,
    allow_damaged: bool,
    device: str,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write a small picture of the compressed scene SRC to DST, a PNG or JPEG file by its suffix.

    Without DST it is SRC with the suffix .png. The preview stored in the scene is taken if it is large enough, without
    any decoding; otherwise one is made of the coarsest overview that is. Pixels without data are white.
    """
    from ltchm_geo import preview as make
    from ltchm_geo._sink import check_destination, write_file
    from ltchm_geo.errors import UsageError
    from ltchm_geo.location import beside, locate

    path = dst or beside(locate(src), ".png")
    driver = _DRIVERS.get(path.suffix.lower())
    if driver is None:
        raise UsageError(f"{path} ends neither in .png nor in .jpg: say which picture to write")
    check_destination(path, overwrite)
    reporter = Reporter(as_json, quiet)
    with reporter.progress("decoding") as progress:
        picture = make(src, size, level=level, device=device, allow_damaged=allow_damaged, progress=progress)
    from ltchm_geo.picture import encode_picture

    data = encode_picture(picture.transpose(2, 0, 1), driver)
    write_file(path, data, overwrite)
    height, width, _ = picture.shape
    found = {"path": path, "width": width, "height": height, "bytes": len(data)}
    reporter.result(found, f"{path}: {width} x {height} pixels, {text.size(len(data))}")
