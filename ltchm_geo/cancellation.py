"""Stopping work that is under way: a flag that long computations look at between steps.

Whoever starts the work watches over it with an event of its own; code further down neither knows who that is nor hands
the event on, except to other threads.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

__all__ = ["Stopped", "check", "current", "watched"]

_local = threading.local()


class Stopped(Exception):
    """The work is not wanted any more. Raised by `check` alone, and caught by who set the event."""


@contextlib.contextmanager
def watched(stop: threading.Event | None) -> Iterator[None]:
    """Let `check` heed an event, on this thread, for a while."""
    before = current()
    _local.stop = stop
    try:
        yield
    finally:
        _local.stop = before


def current() -> threading.Event | None:
    """The event that this thread heeds, for threads that work on its behalf."""
    found: threading.Event | None = getattr(_local, "stop", None)
    return found


def check() -> None:
    """Raise `Stopped` if the event that this thread heeds is set."""
    stop = current()
    if stop is not None and stop.is_set():
        raise Stopped
