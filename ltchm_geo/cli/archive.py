"""`ltchm archive`."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ltchm_geo.cli import text
from ltchm_geo.cli.options import Reporter, json_option, quiet_option, write_event
from ltchm_geo.cli.sections import SectionedCommand, under
from ltchm_geo.cli.settings_options import RUNNING, settings_options

if TYPE_CHECKING:
    from ltchm_geo.archive import ArchiveEvent, ArchivePlan, ArchiveReport, SceneRecord


@click.command(
    cls=SectionedCommand,
    short_help="Compress many rasters, with a journal.",
    epilog="""
    \b
    Examples:
      ltchm archive images/ archive/
      ltchm archive images/ archive/ --include '*_MS.tif' --quality 40 --verify
      ltchm archive @list.txt archive/ --base /data --scenes 4 --stac
      ltchm archive images/ archive/ --dry-run
      ltchm archive images/ archive/ --scheduler tcp://10.0.0.1:8786 --scenes 8
      ltchm archive images/ s3://bucket/archive --journal archive.sqlite

    The same command again goes on where it stopped, however it stopped, and
    takes in what is new. The exit code is 0 if all is done, 1 if scenes failed
    or are left, 130 after Ctrl-C.
    """,
)
@click.argument("sources", nargs=-1, required=True, metavar="SRC...")
@click.argument("destination", metavar="DST")
@under(
    "Which scenes",
    click.option("--include", multiple=True, metavar="PATTERN", help="Files to take in folders, such as '*_MS.tif'."),
    click.option("--exclude", multiple=True, metavar="PATTERN", help="Files and folders to leave out in folders."),
    click.option("--retry-failed", is_flag=True, help="Try scenes again that were given up in an earlier run."),
    click.option("--restart", is_flag=True, help="Make all scenes anew, even with other settings."),
    click.option("--check", is_flag=True, help="Compare finished scenes with their SHA-256; make damaged ones anew."),
    click.option("--dry-run", is_flag=True, help="Only show what would be done, and the size to expect."),
)
@under(
    "How results are arranged",
    click.option("--base", metavar="DIR", help="Arrange results as their sources lie below this folder."),
    click.option("--folders", is_flag=True, help="Make each scene a .zarr folder, not a file."),
    click.option("--keep-suffix", is_flag=True, help="Name results a.tif.ltchm rather than a.ltchm."),
    click.option("--stac", is_flag=True, help="Write a STAC Item beside each scene, and a Collection."),
    click.option("--journal", metavar="PATH", help="Where to keep account; DST/journal.sqlite unless given."),
)
@settings_options
@under(
    RUNNING,
    click.option(
        "--scenes",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        metavar="N",
        help="Scenes in work at once.",
    ),
    click.option(
        "--retries",
        type=click.IntRange(min=0),
        default=2,
        show_default=True,
        metavar="N",
        help="New attempts after errors of disks and networks.",
    ),
    click.option("--fail-fast", is_flag=True, help="Begin no further scene once one has failed."),
)
@json_option
@quiet_option
def archive(
    sources: tuple[str, ...],
    destination: str,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Compress the rasters SRC into the folder DST, thousands if need be, and keep account of them.

    SRC are files, folders (searched to any depth; links to folders are not followed), @list.txt with a name per line,
    or remote names such as s3://bucket/scene.tif. DST gets their compressed scenes in the same arrangement, a journal,
    and manifest.csv and manifest.json with sizes, PSNR (with --measure), SHA-256 and errors. A scene that cannot be
    compressed is noted and does not stop the others.
    """
    from ltchm_geo.archive import compress_many, plan_many
    from ltchm_geo.settings import CompressSettings

    names = CompressSettings.__dataclass_fields__
    settings = CompressSettings(**{name: options.pop(name) for name in list(options) if name in names})
    reporter = Reporter(as_json, quiet)
    if dry_run:
        running_only = ("client", "scenes", "retries", "fail_fast")
        kept = {name: value for name, value in options.items() if name not in running_only}
        with reporter.progress("looking") as progress:
            plan = plan_many(sources, destination, settings, progress=progress, **kept)
        reporter.result(plan.to_dict(), _describe_plan(plan))
        return
    try:
        with _watching(reporter, as_json, quiet) as on_event:
            report = compress_many(sources, destination, settings, on_event=on_event, **options)
    except (KeyboardInterrupt, SystemExit):
        reporter.warn("stopped; nothing is lost: run the same command again to go on")
        raise
    for result, error in report.undescribed.items():
        reporter.warn(f"{result}: no STAC Item: {error}")
    reporter.result(report.to_dict(), _describe(report))
    if not report.ok:
        click.get_current_context().exit(1)


@contextlib.contextmanager
def _watching(reporter: Reporter, as_json: bool, quiet: bool) -> Iterator[Callable[[ArchiveEvent], None]]:
    """What to do with events: JSON lines, bars on a terminal, lines in a log; failures are told in any case."""
    with contextlib.ExitStack() as stack:
        show: Callable[[ArchiveEvent], None] | None = None
        if as_json:
            show = _write_json
        elif not quiet:
            show = stack.enter_context(_bars()) if sys.stderr.isatty() else _write_line

        def on_event(event: ArchiveEvent) -> None:
            if event.kind in ("retry", "end") and event.scene.state in ("failed", "skipped"):
                again = " (trying again)" if event.kind == "retry" else ""
                reporter.warn(f"{event.scene.source}: {event.scene.state}{again}: {event.scene.error}")
            if show is not None:
                show(event)

        yield on_event


def _write_json(event: ArchiveEvent) -> None:
    if event.kind == "tiles":
        write_event("tiles", {"result": event.scene.result, "done": event.done, "total": event.total})
    else:
        write_event("scene", {"kind": event.kind, **asdict(event.scene)})
        write_event("progress", {"done": event.done, "total": event.total})


def _write_line(event: ArchiveEvent) -> None:
    if event.kind == "end" and event.scene.state == "done":
        click.echo(f"[{event.done}/{event.total}] {event.scene.result}: {_figures(event.scene)}", err=True)


def _figures(scene: SceneRecord) -> str:
    ratio = f", {scene.ratio:.1f} times smaller" if scene.ratio else ""
    time = f", {text.duration(scene.seconds)}" if scene.seconds is not None else ""
    return f"{text.size(scene.bytes)}{ratio}{time}"


@contextlib.contextmanager
def _bars() -> Iterator[Callable[[ArchiveEvent], None]]:
    """A bar for the archive, and one for each scene in work."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    lock = threading.Lock()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        whole = bars.add_task("scenes", total=None)
        tasks: dict[str, Any] = {}

        def show(event: ArchiveEvent) -> None:
            name = event.scene.result
            with lock:
                if event.kind == "begin":
                    tasks[name] = bars.add_task(text.shorten(name, 40), total=None)
                elif event.kind == "tiles":
                    bars.update(tasks[name], completed=event.done, total=event.total)
                elif event.kind == "end":
                    bars.remove_task(tasks.pop(name))
                if event.kind != "tiles":
                    bars.update(whole, completed=event.done, total=event.total)

        yield show


def _describe(report: ArchiveReport) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in sorted(report.counts.items()))
    sizes = f"{text.size(report.bytes)} for {text.size(report.raw_bytes)} of pixels" if report.done else None
    rows = [
        ("scenes", counts),
        ("made now", f"{report.made} in {text.duration(report.seconds)}"),
        ("size", sizes),
        ("ratio", f"{report.raw_bytes / report.bytes:.1f} times smaller" if report.bytes else None),
        ("verified", f"{sum(scene.verified for scene in report.done)}" if report.done else None),
    ]
    parts = [report.destination, text.facts(rows)]
    if report.failed:
        failed = [(s.result, str(s.attempts), text.shorten(s.error or "", 100)) for s in report.failed]
        parts.append(text.table(("failed", "attempts", "error"), failed, left=(0, 2)))
    return "\n".join(parts)


def _describe_plan(plan: ArchivePlan) -> str:
    counts = ", ".join(f"{count} to {action}" for action, count in sorted(plan.counts.items()))
    estimate = (
        None if plan.bytes is None else f"about {text.size(plan.bytes)} for {text.size(plan.raw_bytes)} of pixels"
    )
    room = None if plan.free_bytes is None else f"{text.size(plan.free_bytes)} free"
    rows = [
        ("scenes", counts),
        ("size", estimate),
        ("room", None if room is None or plan.fits else f"{room}: too little"),
    ]
    parts = [f"{plan.destination} (nothing was written)", text.facts(rows)]
    if refused := [scene for scene in plan.scenes if scene.action == "refuse"]:
        lines = [(scene.source, text.shorten(scene.reason or "", 100)) for scene in refused]
        parts.append(text.table(("would be refused", "because"), lines, left=(0, 1)))
    return "\n".join(parts)
