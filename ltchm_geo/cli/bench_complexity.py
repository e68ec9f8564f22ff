"""`ltchm bench complexity`."""

from __future__ import annotations

from pathlib import Path

import click

from ltchm_geo.cli.options import Reporter, json_option, parse_numbers, quiet_option

_TABLES = ("parts", "4", "5", "6")


@click.command(
    short_help="Parameters and multiply-accumulates, exact and as thop counts.",
    epilog="""
    \b
    Examples:
      ltchm bench complexity
      ltchm bench complexity --table parts --channels 128
      ltchm bench complexity --table 6 --out benchmarks/results/complexity
    """,
)
@click.option(
    "--table",
    default="all",
    show_default=True,
    type=click.Choice([*_TABLES, "all"]),
    help="parts: LTCHM by part. 4, 5, 6: the paper's tables recounted.",
)
@click.option(
    "--channels",
    default="64,128,192,256",
    show_default=True,
    callback=parse_numbers,
    metavar="N,...",
    help="Widths of LTCHM to count by part.",
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Keep each table there as JSON."
)
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
@json_option
@quiet_option
def complexity(
    table: str, channels: tuple[int, ...], out: Path | None, overwrite: bool, as_json: bool, quiet: bool
) -> None:
    """Count LTCHM, and what the paper compares it with, on 3 x 256 x 256 (Tab. 5: 8 x 192 x 128 x 128).

    Nothing is computed: networks are counted without their numbers, in seconds.
    """
    from ltchm_geo._sink import check_destination
    from ltchm_geo.benchmark.complexity import count_parts, count_table, thop_hint
    from ltchm_geo.benchmark.output import save_json

    reporter = Reporter(as_json, quiet)
    names = _TABLES if table == "all" else (table,)
    paths = {name: out / f"{'' if name == 'parts' else 'tab'}{name}.json" for name in names} if out else {}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for path in paths.values():
            check_destination(path, overwrite)
    if hint := thop_hint():
        reporter.warn(hint)
    found = {name: count_parts(channels) if name == "parts" else count_table(int(name)) for name in names}
    for name, path in paths.items():
        save_json(path, found[name].to_dict())
    tables = [f"{counted.title}\n\n{counted.markdown()}" for counted in found.values()]
    reporter.result({name: counted.to_dict() for name, counted in found.items()}, "\n\n".join(tables))
