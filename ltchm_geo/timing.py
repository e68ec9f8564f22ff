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
        self._seconds: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()
        self._local = threading.local()

    @property
    def totals(self) -> dict[str, float]:
        """Seconds by stage so far, to a tenth of a millisecond. Waiting counts: for a device, a disk, a core."""
        return self._rounded(0)

    @property
    def cpu(self) -> dict[str, float]:
        """Seconds by stage that the threads themselves spent computing; others' work on the machine adds little."""
        return self._rounded(1)

    def add(self, stage: str, seconds: float, cpu: float) -> None:
        """Count time that was measured elsewhere."""
        with self._lock:
            before = self._seconds.get(stage, (0.0, 0.0))
            self._seconds[stage] = before[0] + seconds, before[1] + cpu

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a block of code as `stage`."""
        outer: list[float] = getattr(self._local, "inner", [])
        self._local.inner = inner = [0.0, 0.0]
        began = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            took = time.perf_counter() - began[0], time.thread_time() - began[1]
            self._local.inner = outer
            if outer:
                outer[0], outer[1] = outer[0] + took[0], outer[1] + took[1]
            self.add(stage, took[0] - inner[0], took[1] - inner[1])

    def _rounded(self, which: int) -> dict[str, float]:
        with self._lock:
            return {stage: round(seconds[which], 4) for stage, seconds in self._seconds.items()}
