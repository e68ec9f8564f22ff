"""`ltchm footprint`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ltchm_geo.cli.options import Reporter, json_option, overwrite_option, quiet_option


@click.command(
    short_help="Outline where a compressed scene has data.",
    epilog="""
    \b
    Examples:
      ltchm footprint scene.ltchm
      ltchm footprint scene.ltchm scene.geojson --precision 5
      ltchm footprint scene.ltchm scene.geojson --crs own
    """,
)
@click.argument("src")
@click.argument("dst", required=False, type=click.Path(path_type=Path))
@click.option(
    "--precision",
    type=click.FloatRange(min=0, min_open=True),
    metavar="PIXELS",
    help="How far the outline may be off; a thousandth of the longer side unless given.",
)
@click.option(
    "--crs",
    default="EPSG:4326",
    show_default=True,
    metavar="NAME",
    help='Coordinate system, or "own" for that of the scene (columns and rows if it has none).',
)
@overwrite_option
@json_option
@quiet_option
def footprint(
    src: str, dst: Path | None, precision: float | None, crs: str, overwrite: bool, as_json: bool, quiet: bool
) -> None:
    """Write the outline of what holds data in the compressed scene SRC to DST, as GeoJSON.

    Without DST it is printed. Holes are stored exactly, so no network runs and no weights are needed.
    """
    from ltchm_geo import footprint as outline
    from ltchm_geo._sink import check_destination, refuse_suffix, write_file

    if dst is not None:
        check_destination(dst, overwrite)
        refuse_suffix(dst, (".shp", ".gpkg", ".kml", ".tif", ".ltchm", ".zarr", ".csv"), "GeoJSON", ".geojson")
    feature = outline(src, precision=precision, crs=None if crs.lower() == "own" else crs)
    if dst is not None:
        write_file(dst, json.dumps(feature).encode(), overwrite)
    reporter = Reporter(as_json, quiet)
    reporter.result(
        {"path": dst, "footprint": feature}, json.dumps(feature) if dst is None else _describe(dst, feature)
    )


def _describe(path: Path, feature: dict[str, Any]) -> str:
    geometry = feature["geometry"]
    if geometry is None:
        return f"{path}: no pixel holds data"
    polygons = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    points = sum(len(ring) for polygon in polygons for ring in polygon)
    return f"{path}: {geometry['type']} of {points} points"
