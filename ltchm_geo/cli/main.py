"""`ltchm`: dispatches to the commands and turns errors into one line and an exit code.

No command is imported before it is asked for, and none imports anything heavy before it runs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import click

from ltchm_geo.cli.lazy_group import LazyGroup
from ltchm_geo.cli.options import write_event
from ltchm_geo.errors import LtchmError

__all__ = ["cli", "main"]

_COMMANDS = {
    "compress": "ltchm_geo.cli.compress",
    "archive": "ltchm_geo.cli.archive",
    "estimate": "ltchm_geo.cli.estimate",
    "decompress": "ltchm_geo.cli.decompress",
    "serve": "ltchm_geo.cli.serve",
    "preview": "ltchm_geo.cli.preview",
    "footprint": "ltchm_geo.cli.footprint",
    "info": "ltchm_geo.cli.info",
    "verify": "ltchm_geo.cli.verify",
    "compare": "ltchm_geo.cli.compare",
    "train": "ltchm_geo.cli.train",
    "export": "ltchm_geo.cli.export",
    "bench": "ltchm_geo.cli.bench",
    "about": "ltchm_geo.cli.about",
}
_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
_TERMINATED = 143  # 128 + SIGTERM
_INTERNAL_ERROR = 70  # EX_SOFTWARE
_GDAL_CACHE_MB = "256"


class Failure(click.ClickException):
    """A `LtchmError` as click understands it, so that `rio ltchm` shows it as one line too."""

    def __init__(self, error: LtchmError):
        super().__init__(" ".join(str(error).split()))
        self.error = error
        self.exit_code = error.exit_code  # type: ignore[misc]  # click means one code per class

    def show(self, file: Any = None) -> None:
        """Print the message as `main` does."""
        _show(self.message, file)


class Commands(LazyGroup):
    """The commands, each imported when it is needed, listed in the order one meets them."""

    modules = _COMMANDS

    def invoke(self, ctx: click.Context) -> Any:
        """Run, with the library's errors as click's."""
        try:
            return super().invoke(ctx)
        except LtchmError as error:
            raise Failure(error) from error


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from ltchm_geo.version import __version__

        click.echo(f"ltchm {__version__}")
        ctx.exit()


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""
    \b
    Examples:
      ltchm compress scene.tif                  writes scene.ltchm
      ltchm decompress scene.ltchm back.tif     writes a GeoTIFF
      ltchm compare scene.tif back.tif          shows what was lost

    Exit codes: 0 done; 1 failed, or a check found something; 2 bad input or
    options; 130 interrupted. LTCHM_DEBUG=1 shows where an error comes from.
    """,
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
def cli() -> None:
    """Learned compression of georeferenced imagery."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    args : arguments after the program's name; those of the process if None

    Returns
    -------
    Exit code. Nothing but `SystemExit` is raised.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    as_json = "--json" in arguments
    # GDAL would fill 5 % of the machine's memory with blocks that are read only once. Set before anything loads GDAL.
    os.environ.setdefault("GDAL_CACHEMAX", _GDAL_CACHE_MB)
    try:
        with _termination_cleans_up():
            code = cli.main(arguments or ["--help"], prog_name="ltchm", standalone_mode=False)
        return 2 if not arguments else code if isinstance(code, int) else 0
    except Failure as failure:
        return _fail(type(failure.error).__name__, failure.message, failure.exit_code, as_json)
    except click.UsageError as error:
        return _fail("UsageError", _usage_message(error), error.exit_code, as_json)
    except click.ClickException as error:
        return _fail(type(error).__name__, error.format_message(), error.exit_code, as_json)
    except (click.Abort, KeyboardInterrupt):
        return _fail("Interrupted", "interrupted", _INTERRUPTED, as_json)
    except MemoryError as error:
        advice = "not enough memory; ask for less at once (--workers 1; where a command has them, --window and --bands)"
        return _fail("MemoryError", f"{advice}: {error}", 1, as_json)
    except Exception as error:  # whatever it is, the user gets a line, not a page
        what = " ".join(f"{type(error).__name__}: {error}".split())
        hint = "" if _debugging() else " (a bug? run again with LTCHM_DEBUG=1 and report what it prints)"
        return _fail("InternalError", what + hint, _INTERNAL_ERROR, as_json)


def _fail(kind: str, message: str, code: int, as_json: bool) -> int:
    if _debugging():
        traceback.print_exc()
    _show(message)
    if as_json:
        write_event("error", {"type": kind, "message": message})
    return code


def _show(message: str, file: Any = None) -> None:
    click.echo(f"ltchm: error: {message}", file=file, err=file is None)


def _usage_message(error: click.UsageError) -> str:
    message = " ".join(error.format_message().split())
    return message if error.ctx is None else f"{message} See: {error.ctx.command_path} --help"


def _debugging() -> bool:
    return os.environ.get("LTCHM_DEBUG", "") not in ("", "0")


@contextlib.contextmanager
def _termination_cleans_up() -> Iterator[None]:
    """Let a polite kill unwind the stack as Ctrl-C does, so that no partial file stays behind."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(_TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
