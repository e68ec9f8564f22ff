"""Stage 8: one dask task per shard, on this machine's threads.

A task reads its window, codes it and stores it; memory is bounded by the number of workers times one shard, whatever
the scene's size. Reading, network and entropy coding of different shards overlap because all of them release the GIL.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence

from dask.base import compute
from dask.delayed import delayed

from . import cancellation
from .errors import UsageError
from .types import TileIndex

__all__ = ["Progress", "Ticker", "run_shards", "worker_count"]

#: Called with the tiles done so far and their total; an exception raised in it cancels the run.
Progress = Callable[[int, int], None]


def worker_count(workers: int | None) -> int:
    """Number of shards in work at once: as asked, else two; one keeps a device busy while the other reads or writes."""
    if workers is None:
        return min(2, os.cpu_count() or 1)
    if not 1 <= workers <= 64:
        raise UsageError(f"workers must be from 1 to 64, not {workers}")
    return workers


def run_shards(work: Callable[[TileIndex], None], shards: Sequence[TileIndex], workers: int) -> None:
    """Call `work` for every shard, `workers` at a time.

    The first exception, Ctrl-C included, lets no further shard begin, stops those begun at their next
    `cancellation.check`, and is raised when they have ended.
    """
    stopped, slots = threading.Event(), threading.Semaphore(workers)
    # dask takes tasks in its own order; sources read fastest row by row, and one worker should always write alike.
    waiting = deque(shards)

    def task() -> None:
        with slots:
            if stopped.is_set():
                return
            try:
                with cancellation.watched(stopped):
                    work(waiting.popleft())
            except cancellation.Stopped:
                return  # whoever set the event has the reason
            except BaseException:
                stopped.set()
                raise

    tasks = [delayed(task, pure=False)() for _ in shards]
    try:
        compute(*tasks, scheduler="threads", num_workers=workers)
    finally:
        # dask returns at the first error while other threads still work, on files that our caller closes or removes.
        stopped.set()
        for _ in range(workers):
            slots.acquire()
        slots.release(workers)  # tasks that dask has queued still come by, see `stopped`, and leave


class Ticker:
    """Counts finished tiles from any thread and tells a `Progress` callback."""

    def __init__(self, total: int, progress: Progress | None):
        self._total, self._progress = total, progress
        self._done = 0
        self._lock = threading.Lock()
        if progress is not None:
            progress(0, total)

    def add(self, tiles: int) -> None:
        """Count `tiles` more as done."""
        with self._lock:
            self._done += tiles
            if self._progress is not None:
                self._progress(self._done, self._total)
