from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decodable import pixels, write_decodable
from hypothesis import given
from hypothesis import strategies as st

from ltchm_geo.container import ContainerReader
from ltchm_geo.errors import CorruptTileError
from ltchm_geo.scene_decoder import SceneDecoder
from ltchm_geo.tile_cache import SceneTiles, TileCache, TileKey, rectangles
from ltchm_geo.tiles import TileGrid
from ltchm_geo.types import Shape2d, TileIndex


class FakeSource:
    """Tiles that say where they are; `batches` tells what was decoded together."""

    def __init__(self, bad: Sequence[TileIndex] = (), hold: bool = False):
        self.batches: list[list[TileIndex]] = []
        self.started, self.go = threading.Event(), threading.Event()
        self._bad = set(bad)
        if not hold:
            self.go.set()

    def grid(self, pyramid: int) -> TileGrid:
        return TileGrid(Shape2d(640, 1280), 64, 8)

    def decode(self, pyramid: int, array: str, tiles: Sequence[TileIndex]) -> Mapping[TileIndex, Any]:
        self.batches.append(list(tiles))
        self.started.set()
        assert self.go.wait(10)
        return {t: CorruptTileError(f"bad {t}") if t in self._bad else self.value(t) for t in tiles}

    @staticmethod
    def value(tile: TileIndex) -> Any:
        return np.full((1, 64, 64), 100 * tile.iy + tile.ix, np.int16)

    @property
    def decoded(self) -> list[TileIndex]:
        return [tile for batch in self.batches for tile in batch]


def key(iy: int, ix: int, array: str = "g0", pyramid: int = 0) -> TileKey:
    return TileKey(pyramid, array, TileIndex(iy, ix))


def test_several_tiles_are_one_batch() -> None:
    source, cache = FakeSource(), TileCache()
    keys = [key(0, 0), key(0, 1), key(1, 0)]
    found = cache.get(source, keys)
    assert [tile[0, 0, 0] for tile in found] == [0, 1, 100]
    assert source.batches == [[k.tile for k in keys]]
    assert cache.get(source, keys)[2] is found[2]
    assert len(source.batches) == 1


def test_tiles_must_not_be_written_to() -> None:
    tile = TileCache().get(FakeSource(), [key(0, 0)])[0]
    with pytest.raises(ValueError, match="read-only"):
        tile[0] = 1


def test_one_tile_is_decoded_once_however_many_ask() -> None:
    source, cache = FakeSource(hold=True), TileCache()
    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(cache.get, source, [key(2, 3)]) for _ in range(20)]
        assert source.started.wait(10)
        source.go.set()
        assert {int(a.result()[0][0, 0, 0]) for a in asked} == {203}
    assert source.decoded == [(2, 3)]


def test_what_is_asked_for_meanwhile_becomes_one_batch() -> None:
    source, cache = FakeSource(hold=True), TileCache()
    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(cache.get, source, [key(0, 0)])]
        assert source.started.wait(10)
        asked += [pool.submit(cache.get, source, [key(5, x)]) for x in range(0, 16, 2)]
        while len(cache._waiting) < 8:
            pass
        source.go.set()
        assert [int(a.result()[0][0, 0, 0]) for a in asked] == [0, *range(500, 516, 2)]
    assert sorted(map(sorted, source.batches)) == [[(0, 0)], [(5, x) for x in range(0, 16, 2)]]


def test_levels_and_arrays_and_scenes_are_apart() -> None:
    cache, sources = TileCache(), [FakeSource(), FakeSource()]
    for source in sources:
        for k in (key(0, 0), key(0, 0, "g1"), key(0, 0, pyramid=1)):
            cache.get(source, [k])
        assert len(source.decoded) == 3


def test_the_least_recently_used_goes_first() -> None:
    tile = FakeSource.value(TileIndex(0, 0)).nbytes
    source, cache = FakeSource(), TileCache(2 * tile)
    for ix in (0, 2, 0, 4):
        cache.get(source, [key(0, ix)])
    assert cache.nbytes == 2 * tile
    cache.get(source, [key(0, 0)])
    assert source.decoded == [(0, 0), (0, 2), (0, 4)]
    cache.get(source, [key(0, 2)])
    assert source.decoded[-1] == (0, 2)


def test_a_cache_too_small_for_a_single_tile_still_serves() -> None:
    source, cache = FakeSource(), TileCache(1)
    assert [int(t[0, 0, 0]) for t in cache.get(source, [key(1, 1), key(1, 2)])] == [101, 102]
    assert cache.nbytes == 0


def test_forgetting_a_scene() -> None:
    cache, first, second = TileCache(), FakeSource(), FakeSource()
    for source in (first, second):
        cache.get(source, [key(0, 0)])
    cache.forget(first)
    for source in (first, second):
        cache.get(source, [key(0, 0)])
    assert (len(first.decoded), len(second.decoded)) == (2, 1)


def test_damage_is_told_to_who_asked_and_only_them() -> None:
    source, cache = FakeSource(bad=[TileIndex(0, 1)]), TileCache()
    with pytest.raises(CorruptTileError, match="bad"):
        cache.get(source, [key(0, 0), key(0, 1), key(0, 2)])
    cache.get(source, [key(0, 0), key(0, 2)])
    assert len(source.batches) == 1
    with pytest.raises(CorruptTileError):  # not kept: the file may be mended
        cache.get(source, [key(0, 1)])


def test_a_decoder_that_fails_altogether() -> None:
    class Broken(FakeSource):
        def decode(self, pyramid: int, array: str, tiles: Sequence[TileIndex]) -> Mapping[TileIndex, Any]:
            raise MemoryError("too large")

    cache = TileCache()
    for _ in range(2):
        with pytest.raises(MemoryError, match="too large"):
            cache.get(Broken(), [key(0, 0)])


def test_no_thread_is_left() -> None:
    before = threading.active_count()
    cache = TileCache()
    for ix in range(5):
        cache.get(FakeSource(), [key(0, ix)])
    for thread in threading.enumerate():
        if thread.name == "ltchm-tiles":
            thread.join(10)
    assert threading.active_count() <= before


# --- reading in a row ------------------------------------------------------------------------------------------------


def test_batches_grow_along_a_row() -> None:
    source, cache = FakeSource(), TileCache()
    for ix in range(20):
        cache.get(source, [key(3, ix)])
    assert [len(batch) for batch in source.batches] == [1, 2, 4, 8, 5]
    assert sorted(source.decoded) == [(3, ix) for ix in range(20)]


def test_the_rows_of_a_window_are_as_long_as_the_first() -> None:
    source, cache = FakeSource(), TileCache()
    for iy in range(2, 6):
        for ix in range(4, 10):
            cache.get(source, [key(iy, ix)])
    assert [len(batch) for batch in source.batches] == [1, 2, 4, 6, 6, 6]
    assert set(source.decoded) <= {(iy, ix) for iy in range(2, 6) for ix in range(4, 11)}


def test_single_tiles_here_and_there_take_nothing_along() -> None:
    source, cache = FakeSource(), TileCache()
    places = [(0, 0), (3, 3), (2, 3), (9, 9), (9, 7), (0, 0)]
    for iy, ix in places:
        cache.get(source, [key(iy, ix)])
    assert source.decoded == places[:-1]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30))
def test_rectangles(places: list[tuple[int, int]]) -> None:
    tiles = [TileIndex(*place) for place in places]
    found = rectangles(tiles)
    assert sorted(t for part in found for t in part) == sorted(set(tiles))
    for part in found:
        rows, columns = {t.iy for t in part}, {t.ix for t in part}
        assert part == [(iy, ix) for iy in sorted(rows) for ix in sorted(columns)]


def test_a_window_is_one_rectangle() -> None:
    assert len(rectangles([TileIndex(y, x) for x in range(4) for y in range(3)])) == 1


# --- real scenes -----------------------------------------------------------------------------------------------------


def test_a_damaged_tile_costs_its_neighbours_nothing(tmp_path: Path) -> None:
    path = write_decodable(tmp_path / "a.ltchm", broken=("g1", TileIndex(1, 1)))
    with ContainerReader(path) as reader:
        tiles = [TileIndex(y, x) for y in range(3) for x in range(4)]
        found = SceneTiles(SceneDecoder(reader)).decode(0, "g1", tiles)
        for tile in tiles:
            rows, columns = reader.grid.tile_box(tile).slices
            if tile == (1, 1):
                assert isinstance(found[tile], CorruptTileError)
            else:
                np.testing.assert_array_equal(found[tile], pixels()[4:, rows, columns])
