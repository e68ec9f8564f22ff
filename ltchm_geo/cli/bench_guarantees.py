"""`ltchm bench guarantees`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ltchm_geo.cli.bench_options import replace_file_option
from ltchm_geo.cli.options import Reporter, json_option, quiet_option
from ltchm_geo.errors import UsageError

if TYPE_CHECKING:
    from ltchm_geo.benchmark.guarantees import GuaranteeRow


@click.command(
    short_help="Sizes of exact and bounded scenes, beside other formats.",
    epilog="""
    \b
    Examples:
      ltchm bench guarantees --data images/
      ltchm bench guarantees --data images/ --side 1500 --out guarantees.json
    """,
)
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="Folder of GeoTIFFs.",
)
@click.option(
    "--side",
    type=click.IntRange(min=64),
    default=768,
    show_default=True,
    metavar="N",
    help="Larger rasters are cut to so many rows and columns.",
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Keep the figures as JSON."
)
@replace_file_option
@json_option
@quiet_option
def guarantees(data: Path, side: int, out: Path | None, overwrite: bool, as_json: bool, quiet: bool) -> None:
    """Compress rasters exactly and with errors up to 1, 4 and 16 (integers) or 0.5 (floats)."""
    from ltchm_geo._sink import check_destination
    from ltchm_geo.benchmark.codecs import install_hint
    from ltchm_geo.benchmark.environment import environment
    from ltchm_geo.benchmark.guarantees import measure_guarantees
    from ltchm_geo.benchmark.output import save_json

    if out is not None:
        check_destination(out, overwrite)
    if hint := install_hint("imagecodecs", "imagecodecs"):
        raise UsageError(f"ltchm bench guarantees {hint}")
    paths = sorted(path for path in data.iterdir() if path.suffix.lower() in (".tif", ".tiff"))
    if not paths:
        raise UsageError(f"{data} has no GeoTIFFs (.tif, .tiff)")
    reporter = Reporter(as_json, quiet)
    with reporter.progress("measuring") as progress:
        rows = measure_guarantees(paths, (0, 0.5, 1, 4, 16), side, progress)
    found = {"side": side, "environment": environment(), "rows": [row.to_dict() for row in rows]}
    if out is not None:
        save_json(out, found)
    reporter.result(found, _tables(rows))


def _tables(rows: list[GuaranteeRow]) -> str:
    from ltchm_geo.benchmark.output import markdown_table

    parts = []
    for bound in sorted({row.bound for row in rows}):
        chosen = [row for row in rows if row.bound == bound]
        labels = list(chosen[0].bytes)
        cells = [
            [f"{row.name} ({row.dtype})", *(_cell(row, label) for label in labels), f"{row.error:g}"] for row in chosen
        ]
        title = f"error up to {bound:g}" if bound else "exact"
        parts.append(markdown_table((f"{title}: bits per sample", *labels, "largest error"), cells))
    return "\n\n".join(parts)


def _cell(row: GuaranteeRow, label: str) -> str:
    size, (bands, height, width) = row.bytes[label], row.shape
    return "-" if size is None else f"{8 * size / (bands * height * width):.3f}"
