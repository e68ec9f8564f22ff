"""Many small asks, one call: what tasks of an event loop want side by side is done together.

zarr decodes chunk by chunk, in as many tasks as ``async.concurrency`` allows; a network wants them in batches.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

__all__ = ["MicroBatcher"]

_T = TypeVar("_T")
_R = TypeVar("_R")


class MicroBatcher(Generic[_T, _R]):
    """Gathers items by kind, and works on each batch on a thread, one batch of a kind at a time.

    What arrives while a batch is in work becomes the next one. Safe to use from any number of threads, each with an
    event loop of its own: batches never reach across loops.

    Parameters
    ----------
    work : callable
        Takes a kind and items of that kind; returns a result for each, or the exception that it deserves.
    limit : int
        Items in a batch at most.
    gather : float
        Seconds to wait for more before a batch begins.
    """

    def __init__(self, work: Callable[[Any, Sequence[_T]], Sequence[_R | Exception]], limit: int, gather: float):
        self.work, self.limit, self.gather = work, limit, gather
        self._queues: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, _Queue[_T, _R]]]
        self._queues = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    async def __call__(self, kind: Hashable, item: _T) -> _R:
        """The result for one item; raises what `work` returned for it, or what it raised for all."""
        with self._lock:  # guards the outer dictionary; an inner one is touched by its loop alone
            queues = self._queues.setdefault(asyncio.get_running_loop(), {})
        queue = queues.setdefault(kind, _Queue(self, kind))
        try:
            return await queue.put(item)
        finally:
            if queue.idle:
                queues.pop(kind, None)


class _Queue(Generic[_T, _R]):
    """Items of one kind on one loop."""

    def __init__(self, batcher: MicroBatcher[_T, _R], kind: Hashable):
        self._batcher, self._kind = batcher, kind
        self._waiting: list[tuple[_T, asyncio.Future[_R]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        return not self._waiting and self._task is None

    async def put(self, item: _T) -> _R:
        future: asyncio.Future[_R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._schedule()
        return await future

    def _schedule(self) -> None:
        """See to it that what waits gets its turn: at once if it fills a batch, else when the time is up."""
        if self._task is not None or not self._waiting:
            return
        if len(self._waiting) >= self._batcher.limit:
            self._begin()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._batcher.gather, self._begin)

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # Nobody waits for an ask that was cancelled, and its tile need not be decoded.
        waiting = [(item, future) for item, future in self._waiting if not future.done()]
        batch, self._waiting = waiting[: self._batcher.limit], waiting[self._batcher.limit :]
        if batch:
            self._task = asyncio.get_running_loop().create_task(self._run(batch))

    async def _run(self, batch: Sequence[tuple[_T, asyncio.Future[_R]]]) -> None:
        results: Sequence[_R | Exception]
        try:
            items = [item for item, _ in batch]
            results = await asyncio.to_thread(self._batcher.work, self._kind, items)
        except Exception as error:  # belongs to those who wait
            results = [error] * len(batch)
        self._task = None
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
        self._schedule()
