"""What the workers of a cluster run: one shard, from plain values to plain values.

Sources stay open between shards and engines are loaded once per process.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from .engine import load_engine
from .errors import ClusterError, WeightsNotFoundError
from .overviews import PixelSource
from .raster import Purpose, Source, open_source
from .scene_meta import SceneMeta
from .shard_coder import LevelPlan, ShardCoder, ShardPixels
from .timing import StageClock
from .types import PixelBox, TileIndex
from .version import __version__

__all__ = ["RemoteShard", "code_remotely"]

_MAX_OPEN = 8
_PURPOSE: Purpose = "exact"  # which refuses nothing: the one who asks has looked


class RemoteShard(NamedTuple):
    """A shard to code, in types that every version can read.

    Attributes
    ----------
    version : str
        Of the library that asks.
    meta : bytes
        The `SceneMeta` as JSON.
    level : factor, pyramid level or None, step; see `LevelPlan`
    shard : row and column
    done : names of arrays that are stored already
    device : str
    source : name of the run, address, and size of its files as the one who asks sees them
    pixels : box, pixels and mask of an overview's shard; None at full resolution
    """

    version: str
    meta: bytes
    level: tuple[int, int | None, int]
    shard: tuple[int, ...]
    done: tuple[str, ...]
    device: str
    source: tuple[str, str, int | None]
    pixels: tuple[tuple[int, ...], Any, Any] | None


def code_remotely(task: RemoteShard) -> tuple[dict[str, dict[int, bytes]], dict[int, Any], dict[str, Any]]:
    """Code one shard: its chunks, its averages, and by stage its seconds, elapsed and computing.

    Raises
    ------
    ClusterError, WeightsNotFoundError, SourceError
    """
    if task.version != __version__:
        raise ClusterError(f"{_here()} runs ltchm-geo {__version__}, not {task.version}: install the same everywhere")
    meta, clock = _meta(task.meta), StageClock()
    plan = LevelPlan(meta, *task.level)
    try:
        engine = load_engine(meta.weights, task.device) if meta.weights else None
    except WeightsNotFoundError as error:
        raise WeightsNotFoundError(f"{_here()}: {error}") from error
    with _pixels(task, meta) as source:
        coded = ShardCoder(plan, source, engine, clock).code(TileIndex(*task.shard), task.done)
    return coded.chunks, coded.averages, {stage: (s, clock.cpu[stage]) for stage, s in clock.totals.items()}


@contextlib.contextmanager
def _pixels(task: RemoteShard, meta: SceneMeta) -> Iterator[PixelSource]:
    if task.pixels is not None:
        box, pixels, mask = task.pixels
        yield ShardPixels(PixelBox(*box), pixels, mask)
        return
    run, address, size = task.source
    with _SOURCES.borrow((run, address)) as source:
        if (source.shape, source.dtype.name, source.nbytes_file) != (meta.shape, meta.dtype, size):
            raise ClusterError(f"{_here()} sees another raster as {address}: it must be the same file everywhere")
        yield source


@lru_cache(maxsize=8)
def _meta(described: bytes) -> SceneMeta:
    return SceneMeta.from_dict(json.loads(described))


def _here() -> str:
    import socket

    return f"the worker on {socket.gethostname()}"


class _OpenSources:
    """Sources kept open for the shards to come; the longest unused is closed when there are many."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[tuple[str, str], tuple[Source, contextlib.ExitStack]] = OrderedDict()
        self._users: dict[tuple[str, str], int] = {}

    @contextlib.contextmanager
    def borrow(self, key: tuple[str, str]) -> Iterator[Source]:
        """The source of a run at an address."""
        with self._lock:
            if key not in self._open:
                stack = contextlib.ExitStack()
                self._open[key] = stack.enter_context(open_source(key[1], _PURPOSE)), stack
            self._open.move_to_end(key)
            self._users[key] = self._users.get(key, 0) + 1
            source = self._open[key][0]
        try:
            yield source
        finally:
            with self._lock:
                self._users[key] -= 1
                idle = [other for other in self._open if not self._users[other]]
                for other in idle[: max(0, len(self._open) - _MAX_OPEN)]:
                    self._open.pop(other)[1].close()
                    del self._users[other]


_SOURCES = _OpenSources()
