"""Stage 8: shard after shard, on this machine's threads, each of which is a dask task.

A shard's window is read, coded and stored; memory is bounded by the number of workers times one shard, whatever the
scene's size. Reading, network and entropy coding of different shards overlap because all of them release the GIL.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from dask.base import compute
from dask.delayed import delayed

from . import cancellation
from .cpu import core_count
from .errors import UsageError

__all__ = ["Progress", "Ticker", "run_shards", "worker_count"]

#: Called with the tiles done so far and their total; an exception raised in it cancels the run.
Progress = Callable[[int, int], None]

_T = TypeVar("_T")


def worker_count(workers: int | None) -> int:
    """Number of shards in work at once: as asked, else two; one keeps a device busy while the other reads or writes."""
    if workers is None:
        return min(2, core_count())
    if not 1 <= workers <= 64:
        raise UsageError(f"workers must be from 1 to 64, not {workers}")
    return workers


def run_shards(work: Callable[[_T], None], shards: Iterable[_T], workers: int) -> None:
    """Call `work` for every shard (or whatever stands for one), `workers` at a time and in their order.

    The first exception, Ctrl-C included, lets no further shard begin, stops those begun at their next
    `cancellation.check`, and is raised when they have ended.
    """
    stopped, waiting, lock = threading.Event(), iter(shards), threading.Lock()

    def following() -> Iterator[_T]:
        while not stopped.is_set():
            with lock:
                shard = next(waiting, None)
            if shard is None:
                return
            yield shard

    def task() -> None:
        with cancellation.watched(stopped):
            try:
                for shard in following():
                    work(shard)
            except cancellation.Stopped:
                return  # whoever set the event has the reason
            except BaseException:
                stopped.set()
                raise

    # Not one for each shard: a scene may have millions, and dask would keep them all in memory. Each in the caller's
    # context, where rasterio keeps the openers of datasets.
    tasks = [delayed(contextvars.copy_context().run, pure=False)(task) for _ in range(workers)]
    # A pool of its own: one that dask keeps would be dead in a forked child. And leaving it waits for all threads; dask
    # returns at the first error, when others still work on files that our caller closes or removes.
    with ThreadPoolExecutor(workers, "ltchm-shards") as pool:
        try:
            compute(*tasks, scheduler="threads", pool=pool)
        finally:
            stopped.set()


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
