"""`ltchm verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ltchm_geo.cli import text
from ltchm_geo.cli.options import Reporter, device_option, json_option, quiet_option

if TYPE_CHECKING:
    from ltchm_geo.inspection import Problem, VerifyReport


@click.command(
    short_help="Check a compressed scene for damage.",
    epilog="""
    \b
    Examples:
      ltchm verify scene.ltchm
      ltchm verify scene.ltchm --deep --device cuda

    The exit code is 0 if the scene is sound and 1 if it is damaged.
    """,
)
@click.argument("src")
@click.option("--deep", is_flag=True, help="Also decode every tile and compare with its own checksum.")
@device_option
@json_option
@quiet_option
@click.pass_context
def verify(ctx: click.Context, src: str, deep: bool, device: str, as_json: bool, quiet: bool) -> None:
    """Check that nothing in the compressed scene SRC changed since it was written.

    All checksums are compared, and damaged tiles named. --deep also tells whether this machine decodes the tiles as
    the one that wrote them; it needs the weights, and about as long as decompressing.
    """
    from ltchm_geo import verify as check

    reporter = Reporter(as_json, quiet)
    with reporter.progress("verifying") as progress:
        report = check(src, deep=deep, device=device, progress=progress)
    reporter.result(report.to_dict(), _describe(report))
    if not report.ok:
        ctx.exit(1)


def _describe(report: VerifyReport) -> str:
    if report.ok:
        done = f"{text.counted(report.tiles, 'tile')} {'decoded' if report.deep else 'checked'}"
        return f"{report.path}: sound, {done} in {text.duration(report.seconds)}"
    tiles = len({(problem.array, problem.tile) for problem in report.problems if problem.tile is not None})
    tiles += sum(problem.lost for problem in report.problems)
    rows = [_row(problem, str(report.path)) for problem in report.problems]
    summary = f"{report.path}: damaged, {tiles} of {text.counted(report.tiles, 'tile')}"
    return f"{summary}\n{text.table(('part', 'row', 'column', 'problem'), rows, left=(0, 3))}"


def _row(problem: Problem, path: str) -> tuple[str, str, str, str]:
    """The message without the path and tile it begins with, which have their own columns."""
    message = problem.message.removeprefix(f"{path}: ")
    if problem.tile is None:
        return problem.array or problem.key, "-", "-", message
    row, column = problem.tile
    message = message.removeprefix(f"tile ({row}, {column}) of {problem.array}: ").removeprefix(f"{path}: ")
    return problem.array or problem.key, str(row), str(column), message
