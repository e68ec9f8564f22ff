"""Where the time goes: seconds by stage, summed over threads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

__all__ = ["StageClock"]


class StageClock:
    """Adds up the time spent in named stages, from any number of threads.

    Stages nest: what an inner one takes is not counted in the outer one again.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()
        self._local = threading.local()

    @property
    def totals(self) -> dict[str, float]:
        """Seconds by stage so far, to a tenth of a millisecond."""
        with self._lock:
            return {stage: round(seconds, 4) for stage, seconds in self._seconds.items()}

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a block of code as `stage`."""
        outer: list[float] = getattr(self._local, "inner", [])
        self._local.inner = inner = [0.0]
        began = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - began
            self._local.inner = outer
            if outer:
                outer[0] += took
            with self._lock:
                self._seconds[stage] = self._seconds.get(stage, 0.0) + took - inner[0]
