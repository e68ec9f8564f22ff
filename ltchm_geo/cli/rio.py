"""`rio ltchm`: the commands that rasterio users look for, in rasterio's own command line."""

from __future__ import annotations

from typing import ClassVar

import click

from ltchm_geo.cli.main import Commands

__all__ = ["ltchm"]


class _RioCommands(Commands):
    modules: ClassVar[dict[str, str]] = {name: Commands.modules[name] for name in ("compress", "decompress", "info")}


@click.group(
    cls=_RioCommands,
    short_help="Learned compression of rasters.",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""
    \b
    Examples:
      rio ltchm compress scene.tif                  writes scene.ltchm
      rio ltchm decompress scene.ltchm back.tif     writes a GeoTIFF
      rio ltchm info scene.ltchm
    """,
)
def ltchm() -> None:
    """Learned compression of georeferenced imagery.

    The commands are those of the program ltchm, which has more of them.
    """
