"""A scene's levels, shard by shard: pixels read, coded, stored, and averaged for the level after."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .bitstream import TileMode, TilePayload
from .codec import encode_tiles
from .container import BandGroup, ContainerWriter, SceneMeta
from .engine import Engine
from .masks import valid_pixels
from .overviews import PixelSource, WaitingLevel
from .pyramid import cascade, preview_factor, reduced
from .quicklook import make_preview
from .raster import Source
from .scene_decoder import group_coding
from .schedule import Progress, Ticker, run_shards
from .tiles import TileGrid, pad_tile
from .timing import StageClock
from .types import TileIndex

__all__ = ["SceneEncoder"]


class SceneEncoder:
    """Codes and stores the pixels of a scene.

    Parameters
    ----------
    meta : SceneMeta
    engine : Engine
    writer : ContainerWriter
    clock : StageClock

    Attributes
    ----------
    modes : dict
        Tiles stored so far, by mode.
    """

    def __init__(self, meta: SceneMeta, engine: Engine, writer: ContainerWriter, clock: StageClock):
        self.meta, self.engine, self.writer, self.clock = meta, engine, writer, clock
        self.modes = {mode.name.lower(): 0 for mode in TileMode}
        self._lock = threading.Lock()

    def encode(self, source: Source, beside: Path, workers: int, progress: Progress | None, *, preview: bool) -> None:
        """Store every shard of every level, and the preview.

        Parameters
        ----------
        source : Source
            The scene at full resolution.
        beside : Path
            The destination; levels that wait to be coded lie in its folder.
        workers : int
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
        with contextlib.ExitStack() as stack:
            for factor, following in zip(factors, [*factors[1:], 0], strict=True):
                grid = TileGrid(reduced(meta.shape, factor), meta.tile, meta.shard)
                if preview and factor == shown:
                    with self.clock("overviews"):
                        self.writer.put_preview(make_preview(pixels, grid.scene, meta))
                after = None
                if following:
                    after = stack.enter_context(
                        contextlib.closing(WaitingLevel(meta, grid, following // factor, beside))
                    )
                level = _LevelEncoder(self, pixels, grid, numbers.get(factor), after)
                run_shards(partial(_counted, level, ticker), grid.shard_indices, workers)
                pixels = after or pixels

    def count(self, payloads: Sequence[bytes]) -> None:
        """Add tiles to `modes`."""
        with self._lock:
            for payload in payloads:
                self.modes[TilePayload.mode_of(payload).name.lower()] += 1


def _counted(level: _LevelEncoder, ticker: Ticker, shard: TileIndex) -> None:
    ticker.add(level.store(shard))


class _LevelEncoder:
    """One level of a scene.

    Parameters
    ----------
    scene : SceneEncoder
    source : PixelSource
        The level's pixels.
    grid : TileGrid
    pyramid : int or None
        Pyramid level; None for one that is not stored, only averaged.
    after : WaitingLevel or None
        Takes the averages for the next level.
    """

    def __init__(
        self,
        scene: SceneEncoder,
        source: PixelSource,
        grid: TileGrid,
        pyramid: int | None,
        after: WaitingLevel | None,
    ):
        self._scene, self._source, self._grid, self._pyramid, self._after = scene, source, grid, pyramid, after
        self._meta, self._clock, self._writer = scene.meta, scene.clock, scene.writer

    def store(self, shard: TileIndex) -> int:
        """Code and average one shard of every array; returns the number of tiles coded."""
        meta, box = self._meta, self._grid.shard_box(shard)
        with self._clock("read"):
            mask = self._source.read_mask(box)
        for group in meta.groups:
            self._store_group(shard, group, mask)
        if meta.alpha is not None:
            self._store_alpha(shard, meta.alpha)
        if meta.mask and mask is not None:
            self._store_mask(shard, mask)
        return 0 if self._pyramid is None else len(self._grid.tiles_in_shard(shard)) * len(meta.groups)

    def _store_group(self, shard: TileIndex, group: BandGroup, mask: NDArray[np.bool_] | None) -> None:
        box, coding = self._grid.shard_box(shard), group_coding(self._meta, group)
        with self._clock("read"):
            pixels = self._source.read(box, group.bands)
        with self._clock("tiles"):
            valid = valid_pixels(pixels, coding.nodata, mask)
        if self._after is not None:
            with self._clock("overviews"):
                self._after.add(box, group, pixels, valid)
        if self._pyramid is None:
            return
        indices, side = self._grid.tiles_in_shard(shard), self._meta.tile
        with self._clock("tiles"):
            tiles = []
            for index in indices:
                rows, columns = self._grid.tile_box(index).relative_to(box).slices
                tiles.append((pad_tile(pixels[:, rows, columns], side), pad_tile(valid[:, rows, columns], side)))
        quality = self._meta.pyramid_quality(self._pyramid)
        payloads = encode_tiles(tiles, coding, self._scene.engine, quality, self._clock)
        with self._clock("write"):
            chunks = {self._grid.slot(index): data for index, data in zip(indices, payloads, strict=True)}
            self._writer.put_shard(group.name, shard, chunks, self._pyramid)
        self._scene.count(payloads)

    def _store_alpha(self, shard: TileIndex, band: int) -> None:
        box = self._grid.shard_box(shard)
        with self._clock("read"):
            alpha = self._source.read(box, [band])[0]
        if self._after is not None:
            with self._clock("overviews"):
                self._after.add_alpha(box, band, alpha)
        if self._pyramid is not None:
            with self._clock("write"):
                self._writer.put_plane_shard("alpha", shard, alpha, self._pyramid)

    def _store_mask(self, shard: TileIndex, mask: NDArray[np.bool_]) -> None:
        if self._after is not None:
            with self._clock("overviews"):
                self._after.add_mask(self._grid.shard_box(shard), mask)
        if self._pyramid is not None:
            with self._clock("write"):
                self._writer.put_plane_shard("mask", shard, mask, self._pyramid)
