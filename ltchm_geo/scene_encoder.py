"""A scene's levels, shard by shard: coded by threads or by other machines, stored, averaged for the level after."""

from __future__ import annotations

import contextlib
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from . import cancellation
from .bitstream import TileMode, TilePayload
from .container import ContainerWriter, SceneMeta
from .overviews import PixelSource, WaitingLevel
from .pyramid import cascade, preview_factor
from .quicklook import make_preview
from .raster import Source
from .schedule import Progress, Ticker, run_shards
from .shard_coder import CodedShard, LevelPlan, ShardCoder
from .timing import StageClock
from .types import TileIndex

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["Crew", "SceneEncoder", "ThreadCrew"]

_LOOK = 0.1  # seconds between looks whether the work was stopped


class Crew(Protocol):
    """Those who code shards."""

    def code(
        self,
        plan: LevelPlan,
        source: PixelSource,
        work: Mapping[TileIndex, Sequence[str]],
        keep: Callable[[TileIndex, CodedShard], None],
    ) -> None:
        """Code shards of a level and hand each to `keep`; returns when all are done.

        Parameters
        ----------
        plan : LevelPlan
        source : PixelSource
            The level's pixels.
        work : shard -> arrays of it that are stored already
        keep : called with a shard and what became of it, maybe from many threads
        """


class ThreadCrew:
    """Threads of this process; see `Crew`.

    Parameters
    ----------
    engine : Engine or None
    clock : StageClock
    count : int
        Shards in work at once.
    in_order : bool
        Whether shards are kept in the order of the work, whichever is done first, so that equal scenes are equal files.
    """

    def __init__(self, engine: Engine | None, clock: StageClock, count: int, *, in_order: bool):
        self._engine, self._clock, self._count, self._in_order = engine, clock, count, in_order

    def code(
        self,
        plan: LevelPlan,
        source: PixelSource,
        work: Mapping[TileIndex, Sequence[str]],
        keep: Callable[[TileIndex, CodedShard], None],
    ) -> None:
        """See `Crew.code`."""
        coder = ShardCoder(plan, source, self._engine, self._clock)
        if self._in_order:
            keep = _InTurn(work, keep, self._count).keep
        run_shards(lambda shard: keep(shard, coder.code(shard, work[shard])), list(work), self._count)


class _InTurn:
    """Keeps shards in the order in which they were begun. Up to `most` wait for their turn; who brings more waits, too.

    The thread whose shard is due never does, so the others do not wait for ever.
    """

    def __init__(self, shards: Iterable[TileIndex], keep: Callable[[TileIndex, CodedShard], None], most: int):
        self._due, self._keep, self._most = deque(shards), keep, most
        self._held: dict[TileIndex, CodedShard] = {}
        self._changed = threading.Condition()

    def keep(self, shard: TileIndex, coded: CodedShard) -> None:
        """See `Crew.code`."""
        with self._changed:
            self._held[shard] = coded
            while self._due and self._due[0] in self._held:
                first = self._due.popleft()
                self._keep(first, self._held.pop(first))
            self._changed.notify_all()
            while len(self._held) > self._most:
                cancellation.check()
                self._changed.wait(_LOOK)


class SceneEncoder:
    """Codes and stores the pixels of a scene.

    Parameters
    ----------
    meta : SceneMeta
    crew : Crew
    writer : ContainerWriter
    clock : StageClock

    Attributes
    ----------
    modes : dict
        Tiles stored so far, by mode.
    """

    def __init__(self, meta: SceneMeta, crew: Crew, writer: ContainerWriter, clock: StageClock):
        self.meta, self.crew, self.writer, self.clock = meta, crew, writer, clock
        self.modes = {mode.name.lower(): 0 for mode in TileMode}
        self._lock = threading.Lock()

    def encode(self, source: Source, beside: Path, progress: Progress | None, *, preview: bool) -> None:
        """Store every shard of every level, and the preview.

        Parameters
        ----------
        source : Source
            The scene at full resolution.
        beside : Path
            The destination; levels that wait to be coded lie in its folder.
        progress : callable or None
        preview : bool
            Whether to make a quick-look, of a level that may not be stored itself.
        """
        meta = self.meta
        tiles = sum(math.prod(meta.pyramid_grid(level).shape) for level in meta.pyramid)
        ticker = Ticker(tiles * len(meta.groups), progress)
        numbers = {meta.pyramid_factor(level): level for level in meta.pyramid}
        shown = preview_factor(meta.shape) if preview else 1
        factors = cascade([*numbers, shown])
        pixels: PixelSource = source
        quicklook = None
        with contextlib.ExitStack() as stack:
            for factor, following in zip(factors, [*factors[1:], 0], strict=True):
                plan = LevelPlan(meta, factor, numbers.get(factor), following // factor)
                if preview and factor == shown:
                    with self.clock("overviews"):
                        quicklook = make_preview(pixels, plan.grid.scene, meta)
                after = None
                if plan.step:
                    waiting = WaitingLevel(meta, plan.grid, plan.step, beside)
                    after = stack.enter_context(contextlib.closing(waiting))
                level = _Level(self, plan, after, ticker)
                self.crew.code(plan, pixels, level.work(), level.keep)
                pixels = after or pixels
        if quicklook is not None:
            self.writer.put_preview(quicklook)

    def count(self, payloads: Sequence[bytes]) -> None:
        """Add tiles to `modes`."""
        with self._lock:
            for payload in payloads:
                self.modes[TilePayload.mode_of(payload).name.lower()] += 1


class _Level:
    """What to do with a level's coded shards.

    Parameters
    ----------
    scene : SceneEncoder
    plan : LevelPlan
    after : WaitingLevel or None
        Takes the averages for the next level.
    ticker : Ticker
    """

    def __init__(self, scene: SceneEncoder, plan: LevelPlan, after: WaitingLevel | None, ticker: Ticker):
        self.plan, self._scene, self._after, self._ticker = plan, scene, after, ticker

    def work(self) -> Mapping[TileIndex, Sequence[str]]:
        """All shards of which there is anything to do; what an earlier run stored is counted."""
        stored = {shard: self._stored(shard) for shard in self.plan.grid.shard_indices}
        found = {shard: done for shard, done in stored.items() if self.plan.wants(done)}
        for shard in stored.keys() - found:
            self._count(shard)
        return found

    def _stored(self, shard: TileIndex) -> tuple[str, ...]:
        """The arrays that an earlier run stored."""
        level = self.plan.pyramid
        done = tuple(name for name in self.plan.arrays if self._scene.writer.has_shard(name, shard, level or 0))
        for group in self._scene.meta.groups:
            if level is not None and group.name in done:
                self._scene.count(self._scene.writer.kept_tiles(group.name, shard, level))
        return done

    def keep(self, shard: TileIndex, coded: CodedShard) -> None:
        """Store what became of a shard."""
        if self._after is not None:
            with self._scene.clock("overviews"):
                self._after.add(self.plan.grid.shard_box(shard), coded.averages)
        for array, chunks in coded.chunks.items():
            with self._scene.clock("write"):
                self._scene.writer.put_shard(array, shard, chunks, self.plan.pyramid or 0)
            if array not in self._scene.meta.planes:
                self._scene.count(list(chunks.values()))
        self._count(shard)

    def _count(self, shard: TileIndex) -> None:
        if self.plan.pyramid is not None:
            self._ticker.add(len(self.plan.grid.tiles_in_shard(shard)) * len(self._scene.meta.groups))
