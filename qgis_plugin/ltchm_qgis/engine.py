"""Runs the engine: ltchm_geo in a Python of its own, as a child process that prints one JSON object a line.

QGIS's own Python cannot hold it: PyTorch, NumPy and GDAL of two builds in one process work on one machine and crash on
the next. A child that crashes is an error message, and a child can be stopped at any time.

This module knows no widgets and may be used from any thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from .translation import tr

__all__ = [
    "PROTOCOL",
    "TAIL",
    "EngineCancelled",
    "EngineError",
    "EngineMissing",
    "LineSplitter",
    "check_protocol",
    "clean_environment",
    "command_line",
    "guidance",
    "judge",
    "parse_event",
    "read_lines",
    "run",
    "start",
    "stop",
]

#: The generation of JSON events this plugin reads; `ltchm about` tells the engine's.
PROTOCOL = 1

_GRACE = 5.0  # seconds between asking the engine to stop and making it
_POLL = 0.05
_MAX_LINE = 1 << 20
TAIL = 30  # lines of standard error kept for the log
_SCRUBBED = (  # what QGIS sets for its own libraries would make another Python load them
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONEXECUTABLE",
    "PROJ_LIB",
    "PROJ_DATA",
    "GDAL_DATA",
    "GDAL_DRIVER_PATH",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "DYLD_FRAMEWORK_PATH",
    "QT_PLUGIN_PATH",
)


class EngineError(Exception):
    """The engine could not do it. The message is meant for the user; `details` for the log."""

    def __init__(self, message: str, details: str = ""):
        super().__init__(message)
        self.details = details


class EngineMissing(EngineError):
    """There is no engine, or what should be one is not; the message says how to install it."""


class EngineCancelled(Exception):
    """The user stopped it."""


class LineSplitter:
    """Whole lines from chunks of bytes that end anywhere. Lines too long to be an event are dropped."""

    def __init__(self):
        self._rest = b""
        self._skipping = False

    def feed(self, chunk: bytes) -> list[str]:
        """Lines completed by this chunk, without their ends."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if lines and self._skipping:
            del lines[0]
            self._skipping = False
        if len(self._rest) > _MAX_LINE:
            self._rest, self._skipping = b"", True
        return [line.decode("utf-8", "replace").rstrip("\r") for line in lines]


def clean_environment() -> dict[str, str]:
    """Environment of this process without what is meant for QGIS's libraries."""
    environment = {key: value for key, value in os.environ.items() if key not in _SCRUBBED}
    home = environment.get("OSGEO4W_ROOT") or environment.get("QGIS_PREFIX_PATH")
    if os.name == "nt" and home:
        kept = [p for p in environment.get("PATH", "").split(os.pathsep) if not p.lower().startswith(home.lower())]
        environment["PATH"] = os.pathsep.join(kept)
    return environment


def command_line(interpreter: str, arguments: list[str]) -> list[str]:
    """The child's command line: an isolated Python that runs an ltchm command with JSON output."""
    return [interpreter, "-I", "-u", "-X", "utf8", "-m", "ltchm_geo", *arguments, "--json"]


def parse_event(line: str) -> dict[str, Any] | None:
    """The event of a line, or None if it is something else."""
    if not line.startswith("{"):
        return None
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def guidance(interpreter: str = "") -> str:
    """What to type when there is no engine, as plain text."""
    from .settings import suggested_folder, suggested_interpreter

    if interpreter:
        return tr(
            "{interpreter} has no LTCHM engine. Choose another Python under Settings > Options > LTCHM, or install the "
            "engine there.\n{install}"
        ).format(interpreter=_quoted(interpreter), install=_installing(interpreter))
    creator = "py" if os.name == "nt" else "python3"
    return tr(
        "The LTCHM engine is not installed yet. It has a Python of its own (3.11 or newer). Type in a terminal:\n"
        "  {creator} -m venv {folder}\n"
        "{install}\n"
        "QGIS finds it there. Is it somewhere else? Say so under Settings > Options > LTCHM."
    ).format(creator=creator, folder=_quoted(suggested_folder()), install=_installing(suggested_interpreter()))


def _installing(interpreter: str | Path) -> str:
    """What installs or updates the engine there. It is on no package index: that takes a checkout."""
    return tr("In a checkout of ltchm_geo:\n  {interpreter} -m pip install .").format(interpreter=_quoted(interpreter))


def _quoted(path: str | Path) -> str:
    return f'"{path}"' if " " in str(path) else str(path)


def run(
    arguments: list[str],
    *,
    interpreter: str,
    cancelled: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    warning: Callable[[str], None] = lambda message: None,
    writes: str | None = None,
) -> dict[str, Any]:
    """Run one command of the engine to its end.

    Parameters
    ----------
    arguments : command and options, such as ``["info", "scene.ltchm"]``
    interpreter : Python that has the engine; "" if none is known
    cancelled : asked many times a second; once it says yes the engine is stopped
    progress : called with (done, total)
    warning : called with what the user should know, also that a complete file could not be measured
    writes : the file the command writes. If the engine dies, its unfinished ``.part`` is removed.

    Returns
    -------
    The engine's result event.

    Raises
    ------
    EngineMissing, EngineError, EngineCancelled
    """
    if not interpreter:
        raise EngineMissing(guidance())
    process = start(command_line(interpreter, arguments))
    errors: deque[str] = deque(maxlen=TAIL)
    lines: queue.Queue[str | None] = queue.Queue()
    readers = [read_lines(process.stdout, lines.put), read_lines(process.stderr, errors.append)]
    heard = _Events(progress, warning)
    try:
        for line in _until_end(lines, process, cancelled):
            heard.take(line)
    except EngineCancelled:
        stop(process)
        readers[0].join(_GRACE)
        while not lines.empty():
            heard.take(lines.get() or "")
        if heard.complete is None:
            _remove_partial(writes)
            raise
        return heard.complete  # it was done before it knew
    except BaseException:
        stop(process)
        _remove_partial(writes)
        raise
    for reader in readers:
        reader.join(_GRACE)
    if heard.outcome is None or process.returncode < 0:
        _remove_partial(writes)
    try:
        return judge(heard.outcome, process.returncode, [line for line in errors if line], interpreter)
    except EngineError as error:
        if heard.written is None:
            raise
        warning(tr("The scene is complete, but it could not be measured: {reason}").format(reason=error))
        return heard.written


class _Events:
    """Hands on what the engine says, and remembers what it all came to.

    Attributes
    ----------
    outcome : its last event besides progress and warnings, if there was one
    written : the result as far as it was known when the file was complete
    """

    def __init__(self, progress: Callable[[int, int], None], warning: Callable[[str], None]):
        self.outcome: dict[str, Any] | None = None
        self.written: dict[str, Any] | None = None
        self._progress, self._warning = progress, warning

    @property
    def complete(self) -> dict[str, Any] | None:
        """What says that the file is there."""
        done = self.outcome is not None and self.outcome["event"] == "result"
        return self.outcome if done else self.written

    def take(self, line: str) -> None:
        """A line of the engine's output, whatever it is."""
        event = parse_event(line)
        if event is None:
            return
        if event["event"] == "progress":
            self._progress(int(event["done"]), int(event["total"]))
        elif event["event"] == "warning":
            self._warning(str(event["message"]))
        elif event["event"] == "written":
            self.written = event
        else:
            self.outcome = event


def start(command: list[str], stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Start a child with a clean environment, without a window.

    Raises
    ------
    EngineMissing
    """
    hidden = {"creationflags": subprocess.CREATE_NO_WINDOW} if os.name == "nt" else {}
    try:
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_environment(),
            **hidden,
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise EngineMissing(
            tr(
                "{interpreter} cannot be started: {reason}. Choose the Python of the LTCHM engine under "
                "Settings > Options > LTCHM."
            ).format(interpreter=command[0], reason=reason)
        ) from error


def read_lines(stream: IO[bytes], take: Callable[[str | None], None]) -> threading.Thread:
    """Start a thread that calls `take` with every line of a stream, and with None at its end."""

    def read() -> None:
        splitter = LineSplitter()
        with stream:
            for chunk in iter(lambda: os.read(stream.fileno(), 1 << 16), b""):
                for line in splitter.feed(chunk):
                    take(line)
        for line in splitter.feed(b"\n"):
            take(line)
        take(None)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def _until_end(
    lines: queue.Queue[str | None], process: subprocess.Popen[bytes], cancelled: Callable[[], bool]
) -> Iterator[str]:
    """Lines until the process has ended; EngineCancelled if the user does not want to wait for that."""
    open_output = True
    while open_output or process.poll() is None:
        if cancelled():
            raise EngineCancelled
        if not open_output:
            time.sleep(_POLL)
            continue
        with contextlib.suppress(queue.Empty):
            line = lines.get(timeout=_POLL)
            if line is None:
                open_output = False
            else:
                yield line


def stop(*processes: subprocess.Popen[bytes]) -> None:
    """Ask children to end, all at once, and make those that have not after five seconds."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + _GRACE
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _remove_partial(writes: str | None) -> None:
    part = Path(f"{writes}.part")
    if writes is None or not part.exists():
        return
    with contextlib.suppress(OSError):  # it is only rubbish then, and the next run takes it over
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink()


def judge(outcome: dict[str, Any] | None, code: int, errors: list[str], interpreter: str) -> dict[str, Any]:
    """The result of an engine that ended, or the error that says best what happened.

    Parameters
    ----------
    outcome : its last event besides progress and warnings, if there was one; of another protocol it is refused
    code : exit code
    errors : last lines of its standard error
    interpreter : Python it ran in

    Raises
    ------
    EngineMissing, EngineError
    """
    details = "\n".join(errors)
    if outcome is not None and outcome["event"] == "error":
        raise EngineError(str(outcome.get("message", "")), details)
    if outcome is not None and outcome["event"] == "result" and code in (0, 1):
        check_protocol(outcome)
        return outcome
    if any("No module named" in line and "ltchm_geo" in line for line in errors):
        raise EngineMissing(guidance(interpreter), details)
    if code < 0 or code > 0xC0000000:
        raise EngineError(_death(code), details)
    raise EngineMissing(
        tr(
            "{interpreter} does not answer as the LTCHM engine does (exit code {code}). Choose another Python under "
            "Settings > Options > LTCHM, or update the engine.\n{install}"
        ).format(interpreter=_quoted(interpreter), code=code, install=_installing(interpreter)),
        details,
    )


def check_protocol(event: dict[str, Any]) -> None:
    """Refuse an event that tells another protocol than this plugin reads; what else it holds is then unknown.

    Raises
    ------
    EngineError
    """
    theirs = event.get("protocol", PROTOCOL)
    if theirs == PROTOCOL:
        return
    text = tr("This engine speaks protocol {theirs}, the plugin {ours}.").format(theirs=theirs, ours=PROTOCOL)
    older = isinstance(theirs, int) and theirs < PROTOCOL
    raise EngineError(f"{text} {tr('Update the engine.') if older else tr('Update this plugin.')}")


def _death(code: int) -> str:
    if code == -9:  # SIGKILL, which Windows does not know
        return tr("The LTCHM engine was killed, perhaps because memory ran out. Nothing was written.")
    try:
        reason = signal.Signals(-code).name
    except ValueError:
        reason = f"{code & 0xFFFFFFFF:#x}"
    return tr("The LTCHM engine crashed ({reason}). Nothing was written.").format(reason=reason)
