"""`ltchm bench`: the group; each benchmark is a command of its own."""

from __future__ import annotations

from typing import ClassVar

import click

from ltchm_geo.cli.lazy_group import LazyGroup


class Benchmarks(LazyGroup):
    """The benchmarks, each imported when it is needed."""

    modules: ClassVar[dict[str, str]] = {
        "rd": "ltchm_geo.cli.bench_rd",
        "speed": "ltchm_geo.cli.bench_speed",
        "complexity": "ltchm_geo.cli.bench_complexity",
        "seams": "ltchm_geo.cli.bench_seams",
        "guarantees": "ltchm_geo.cli.bench_guarantees",
        "report": "ltchm_geo.cli.bench_report",
        "checkpoint": "ltchm_geo.cli.bench_checkpoint",
    }


@click.group(
    cls=Benchmarks,
    short_help="Measure codecs, speed and complexity.",
    no_args_is_help=False,  # else `main` would show all of the help as the line of an error
    epilog="""
    \b
    Examples:
      ltchm bench rd --dataset bundled --codec openjpeg97 --codec ltchm
      ltchm bench speed --help
    """,
)
def bench() -> None:
    """Measure this codec and others, and report it.

    Results are JSON files with versions, commands and hardware. Most benchmarks need the extra `bench`:
    pip install ".[bench]" in a checkout of ltchm_geo.
    """
