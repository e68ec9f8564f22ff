"""What the commands share: options, progress, and the way results come out.

With ``--json`` each line of standard output is one JSON object, and its "event" says which: any number of
``{"event": "progress", "done": 12, "total": 80}`` and ``{"event": "warning", "message": "..."}``, perhaps
``{"event": "written", ...}`` (the result so far: the file is complete, but yet to be measured), then, as the last line,
``{"event": "result", ...}`` or ``{"event": "error", "type": "CorruptTileError", "message": "..."}``. NaN and
infinities are the strings "NaN", "Infinity" and "-Infinity". Without it, results are text on standard output;
progress and messages go to standard error.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ltchm_geo._json import jsonable

if TYPE_CHECKING:
    from ltchm_geo.compress import CompressResult

__all__ = [
    "PROTOCOL",
    "Reporter",
    "bounds_option",
    "device_option",
    "json_option",
    "model_option",
    "overwrite_option",
    "parse_bands",
    "parse_numbers",
    "quality_option",
    "quiet_option",
    "scheduler_option",
    "window_option",
    "workers_option",
    "write_event",
]

Progress = Callable[[int, int], None]
F = TypeVar("F", bound=Callable[..., Any])

#: Grows when programs that read the JSON events would have to change; `ltchm about --json` tells it.
PROTOCOL = 1

_INTERVAL = 0.1  # seconds between progress lines: a reader wants to see movement, not every tile
_LOCK = threading.Lock()

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, one object a line; the last is the result."
)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print nothing but warnings and errors.")
quality_option = click.option(
    "-Q",
    "--quality",
    type=click.IntRange(1, 100),
    metavar="Q",
    help="Quality, 1 (smallest file) to 100 (best pixels); 50 unless given.",
)
model_option = click.option(
    "-m", "--model", metavar="NAME", help="Weights by tag, SHA-256 or path; the installed default unless given."
)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace an existing result, once the new one is complete."
)
device_option = click.option(
    "--device", default="auto", show_default=True, metavar="NAME", help="Where to compute: auto, cpu, cuda, cuda:1, ..."
)
scheduler_option = click.option(
    "--scheduler",
    "client",
    metavar="ADDRESS",
    help="Let a dask.distributed cluster do the work: its scheduler, such as tcp://10.0.0.1:8786.",
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Shards in work at once, 1 to 64; two unless given. More take more memory.",
)

_WINDOW = (click.IntRange(min=0), click.IntRange(min=0), click.IntRange(min=1), click.IntRange(min=1))


def window_option(text: str) -> Callable[[F], F]:
    """``--window``, which says with `text` what it chooses."""
    return click.option("--window", type=_WINDOW, metavar="ROW COL HEIGHT WIDTH", help=text)


def bounds_option(text: str) -> Callable[[F], F]:
    """``--bounds``, likewise."""
    return click.option("--bounds", nargs=4, type=float, metavar="XMIN YMIN XMAX YMAX", help=text)


def parse_bands(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Option callback: band numbers from 1, such as ``3`` or ``4,3,2``."""
    if value is None:
        return None
    numbers = _positive(value)
    if numbers is None:
        message = f"{value!r} is not a list of band numbers such as 4,3,2 (the first band is 1)."
        raise click.BadParameter(message, ctx, param)
    return numbers


def parse_numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Option callback: whole numbers from 1, such as ``2`` or ``1,4,16``."""
    if value is None:
        return None
    numbers = _positive(value)
    if numbers is None:
        raise click.BadParameter(f"{value!r} is not a list of whole numbers from 1, such as 1,4,16.", ctx, param)
    return numbers


def _positive(value: str) -> tuple[int, ...] | None:
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        return None
    return tuple(map(int, parts))


class Reporter:
    """Tells how a command gets on and what it gave, to people or to machines.

    Parameters
    ----------
    as_json : events as JSON lines on standard output
    quiet : neither progress nor text; with `as_json` the result is still printed
    """

    def __init__(self, as_json: bool, quiet: bool = False):
        self._as_json, self._quiet = as_json, quiet

    @contextlib.contextmanager
    def progress(self, label: str) -> Iterator[Progress | None]:
        """A callback (done, total) for the time of a task; None where nobody would see it.

        Meanwhile, what the library warns of is told as `warn` does.
        """
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: self.warn(str(message))
            if self._quiet:
                yield None
            elif self._as_json:
                yield _json_progress()
            else:
                with _progress_bar(label) as callback:
                    yield callback

    def written(self, result: CompressResult) -> None:
        """For machines only: the file is there, whatever becomes of measuring it."""
        if self._as_json:
            write_event("written", result.to_dict())

    def result(self, data: Mapping[str, Any], text: str) -> None:
        """The outcome: `data` for machines or `text` for people."""
        if self._as_json:
            write_event("result", data)
        elif not self._quiet:
            click.echo(text)

    def warn(self, message: str) -> None:
        """Something the user should know though the command goes on."""
        if self._as_json:
            write_event("warning", {"message": message})
        click.echo(f"ltchm: warning: {message}", err=True)


def write_event(event: str, data: Mapping[str, Any]) -> None:
    """One JSON line on standard output, at once and whole even if several threads write."""
    line = json.dumps({"event": event, **jsonable(data)}, allow_nan=False)
    with _LOCK:
        click.echo(line)


def _json_progress() -> Progress:
    last = -math.inf

    def callback(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _INTERVAL or done >= total:
            last = now
            write_event("progress", {"done": done, "total": total})

    return callback


@contextlib.contextmanager
def _progress_bar(label: str) -> Iterator[Progress | None]:
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
