"""Decoded tiles of open scenes: kept while there is room, decoded once however many ask, in batches.

The network decodes sixteen tiles together in far less time than one after the other, so whatever is asked for while a
batch is being decoded becomes the next batch, and reading tile after tile along a row makes the batches grow ahead of
the reader.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from .errors import CorruptTileError
from .scene_decoder import SceneDecoder
from .tiles import TileGrid
from .types import PixelBox, TileIndex

__all__ = ["DEFAULT_CACHE_BYTES", "SceneTiles", "TileCache", "TileKey", "TileSource", "rectangles"]

DEFAULT_CACHE_BYTES = 256 << 20
_MAX_BATCH, _MAX_AHEAD = 64, 15

Pixels = NDArray[Any]


class TileKey(NamedTuple):
    """A tile of one array ("g0", "alpha", "mask") of one pyramid level."""

    pyramid: int
    array: str
    tile: TileIndex


class TileSource(Protocol):
    """Something whose tiles can be decoded; its identity is part of the cache's keys."""

    def grid(self, pyramid: int) -> TileGrid:
        """The tiles of a level."""

    def decode(self, pyramid: int, array: str, tiles: Sequence[TileIndex]) -> Mapping[TileIndex, Pixels | Exception]:
        """Pixels of each tile, or the error that says why there are none."""


class SceneTiles:
    """The tiles of one scene. Each is (bands, h, w) of its array, (h, w) for a plane; clipped to the scene."""

    def __init__(self, decoder: SceneDecoder):
        self._decoder, self._meta = decoder, decoder.meta

    def grid(self, pyramid: int) -> TileGrid:
        """See `TileSource.grid`."""
        return self._decoder.reader.grids[pyramid]

    def decode(self, pyramid: int, array: str, tiles: Sequence[TileIndex]) -> Mapping[TileIndex, Pixels | Exception]:
        """See `TileSource.decode`. A damaged tile costs its neighbours nothing."""
        found: dict[TileIndex, Pixels | Exception] = {}
        for rectangle in rectangles(tiles):
            try:
                found |= self._decode_together(pyramid, array, rectangle)
            except CorruptTileError as error:
                if len(rectangle) == 1:
                    found[rectangle[0]] = error
                else:
                    for tile in rectangle:
                        found |= self.decode(pyramid, array, [tile])
        return found

    def _decode_together(self, pyramid: int, array: str, tiles: Sequence[TileIndex]) -> dict[TileIndex, Pixels]:
        grid = self.grid(pyramid)
        boxes = {tile: grid.tile_box(tile) for tile in tiles}
        first, last = boxes[tiles[0]], boxes[tiles[-1]]
        around = PixelBox(first.y0, first.x0, last.y1 - first.y0, last.x1 - first.x0)
        pixels = self._read(pyramid, array, around)
        parts = {tile: pixels[(..., *box.relative_to(around).slices)] for tile, box in boxes.items()}
        # A view would keep the whole rectangle in memory for as long as one of its tiles is kept.
        return {tile: part.copy() for tile, part in parts.items()} if len(parts) > 1 else parts

    def _read(self, pyramid: int, array: str, box: PixelBox) -> Pixels:
        if array in self._meta.planes:
            return self._decoder.read_plane(array, box, pyramid)
        return self._decoder.read_group(self._meta.group(array), box, pyramid)


class TileCache:
    """Tiles of any number of scenes, the least recently used forgotten first. Thread-safe.

    Parameters
    ----------
    limit : int
        Bytes of pixels to keep.
    gather : float
        Seconds to wait for more before a batch begins: worth it where requests come side by side, as from a browser
        or GDAL over HTTP.
    """

    def __init__(self, limit: int = DEFAULT_CACHE_BYTES, gather: float = 0.0):
        self.limit, self._gather = limit, gather
        self._lock = threading.Lock()
        self._tiles: OrderedDict[tuple[TileSource, TileKey], Pixels] = OrderedDict()
        self._bytes = 0
        self._jobs: dict[tuple[TileSource, TileKey], Future[Pixels]] = {}
        self._waiting: dict[tuple[TileSource, TileKey], None] = {}  # in the order they were asked for
        self._working = False
        self._trails: dict[tuple[TileSource, int, str], _Trail] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of pixels kept."""
        return self._bytes

    def get(self, source: TileSource, keys: Sequence[TileKey]) -> list[Pixels]:
        """The tiles, decoded if need be. Not to be written to.

        Raises
        ------
        CorruptTileError
            Of the first damaged one.
        LtchmError, OSError
            Whatever else hinders decoding, such as weights that are not installed.
        """
        with self._lock:
            alone = not self._jobs  # or else others are asking too, and who reads in a row cannot be told
            found = [self._lookup((source, key)) for key in keys]
            ahead = self._ahead(source, keys[0]) if len(keys) == 1 else []
            if alone and ahead and isinstance(found[0], Future):
                for key in ahead:
                    self._lookup((source, key))
        return [tile.result() if isinstance(tile, Future) else tile for tile in found]

    def forget(self, source: TileSource) -> None:
        """Give up what is kept of a scene that is being closed."""
        with self._lock:
            for key in [key for key in self._tiles if key[0] is source]:
                self._bytes -= self._tiles.pop(key).nbytes
            self._trails = {key: trail for key, trail in self._trails.items() if key[0] is not source}

    def _lookup(self, key: tuple[TileSource, TileKey]) -> Pixels | Future[Pixels]:
        if key in self._tiles:
            self._tiles.move_to_end(key)
            return self._tiles[key]
        if key not in self._jobs:
            self._jobs[key] = Future()
            self._waiting[key] = None
            if not self._working:
                self._working = True
                threading.Thread(target=self._work, name="ltchm-tiles", daemon=True).start()
        return self._jobs[key]

    def _ahead(self, source: TileSource, key: TileKey) -> list[TileKey]:
        trail = self._trails.setdefault((source, key.pyramid, key.array), _Trail())
        columns = source.grid(key.pyramid).shape.x
        more = min(trail.follow(key.tile), columns - 1 - key.tile.ix)
        return [key._replace(tile=TileIndex(key.tile.iy, key.tile.ix + step)) for step in range(1, more + 1)]

    # --- the one thread that decodes, there only while there is something to do -------------------------------------

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._working = False
                    return
            if self._gather:
                time.sleep(self._gather)
            with self._lock:
                batch = self._next_batch()
            source, (pyramid, array, _) = batch[0]
            results: Mapping[TileIndex, Pixels | Exception]
            try:
                results = source.decode(pyramid, array, [key.tile for _, key in batch])
            except Exception as error:  # belongs to those who wait for the tiles
                results = {key.tile: error for _, key in batch}
            self._deliver(batch, results)

    def _next_batch(self) -> list[tuple[TileSource, TileKey]]:
        source, first = next(iter(self._waiting))
        kind = (source, first.pyramid, first.array)
        batch = [(s, key) for s, key in self._waiting if (s, key.pyramid, key.array) == kind][:_MAX_BATCH]
        for key in batch:
            del self._waiting[key]
        return batch

    def _deliver(
        self, batch: Sequence[tuple[TileSource, TileKey]], results: Mapping[TileIndex, Pixels | Exception]
    ) -> None:
        for key in batch:
            found = results[key[1].tile]
            with self._lock:
                job = self._jobs.pop(key)
                if not isinstance(found, Exception):
                    found.flags.writeable = False
                    self._tiles[key] = found
                    self._bytes += found.nbytes
                while self._bytes > self.limit:
                    self._bytes -= self._tiles.popitem(last=False)[1].nbytes
            if isinstance(found, Exception):
                job.set_exception(found)
            else:
                job.set_result(found)


class _Trail:
    """Where somebody reads along: says how many further tiles of the row are likely to be asked for next."""

    def __init__(self) -> None:
        self._at = TileIndex(-2, -2)
        self._start, self._length, self._row = -2, 0, 0

    def follow(self, tile: TileIndex) -> int:
        """Note that `tile` was asked for; the number of tiles to its right worth decoding along with it."""
        if tile == self._at:  # another band of the same tile
            return 0
        if tile == (self._at.iy, self._at.ix + 1):
            self._length += 1
            expected = self._row - self._length if self._row else self._length - 1
        elif self._length > 1 and tile == (self._at.iy + 1, self._start):
            self._row, self._length = self._length, 1  # a window: its rows are all as long as the first
            expected = self._row - 1
        else:
            self._start, self._length, self._row = tile.ix, 1, 0
            expected = 0
        self._at = tile
        return max(0, min(expected, _MAX_AHEAD))


def rectangles(tiles: Sequence[TileIndex]) -> list[list[TileIndex]]:
    """Cut a set of tiles into full rectangles, each row by row: runs along rows, joined where those below are alike."""
    runs: list[list[TileIndex]] = []
    for tile in sorted(set(tiles)):
        if runs and runs[-1][-1] == (tile.iy, tile.ix - 1):
            runs[-1].append(tile)
        else:
            runs.append([tile])
    joined: list[list[TileIndex]] = []
    for run in runs:
        above = next(
            (r for r in joined if (r[-1].iy + 1, r[0].ix, r[-1].ix) == (run[0].iy, run[0].ix, run[-1].ix)), None
        )
        if above is None:
            joined.append(run)
        else:
            above += run
    return joined
