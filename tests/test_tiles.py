from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltchm_geo.errors import UsageError
from ltchm_geo.tiles import TileGrid, automatic_shard, pad_tile
from ltchm_geo.types import PixelBox, Shape2d, TileIndex


@st.composite
def grids(draw: st.DrawFn) -> TileGrid:
    scene = Shape2d(draw(st.integers(1, 700)), draw(st.integers(1, 700)))
    return TileGrid(scene, tile=draw(st.sampled_from([64, 128])), shard=draw(st.integers(1, 4)))


def all_indices(shape: Shape2d) -> list[TileIndex]:
    return [TileIndex(iy, ix) for iy in range(shape.y) for ix in range(shape.x)]


@given(grids())
def test_tiles_partition_the_scene(grid: TileGrid) -> None:
    covered = np.zeros(grid.scene, int)
    for index in all_indices(grid.shape):
        covered[grid.tile_box(index).slices] += 1
    assert (covered == 1).all()


@given(grids())
def test_shards_partition_the_tiles(grid: TileGrid) -> None:
    found = []
    for shard in all_indices(grid.shards):
        tiles = grid.tiles_in_shard(shard)
        slots = [grid.slot(tile) for tile in tiles]
        assert slots == sorted(set(slots))
        assert all(0 <= slot < grid.shard**2 for slot in slots)
        assert all(grid.shard_of(tile) == shard for tile in tiles)
        box = grid.shard_box(shard)
        assert all(grid.tile_box(tile).intersection(box) == grid.tile_box(tile) for tile in tiles)
        assert sum(b.height * b.width for b in map(grid.tile_box, tiles)) == box.height * box.width
        found += tiles
    assert sorted(found) == all_indices(grid.shape)


@given(grids(), st.data())
def test_covering_is_every_tile_that_meets_the_box(grid: TileGrid, data: st.DataObject) -> None:
    box = PixelBox(*data.draw(st.tuples(*[st.integers(-100, 700)] * 2, *[st.integers(1, 300)] * 2)))
    expected = [index for index in all_indices(grid.shape) if grid.tile_box(index).intersection(box)]
    assert grid.covering(box) == expected
    assert grid.count(box) == len(expected)


@given(grids(), st.data())
def test_pieces_of_a_box_are_one_for_each_shard(grid: TileGrid, data: st.DataObject) -> None:
    box = PixelBox(*data.draw(st.tuples(*[st.integers(-100, 700)] * 2, *[st.integers(1, 300)] * 2)))
    shards = [grid.shard_box(index).intersection(box) for index in all_indices(grid.shards)]
    assert list(grid.pieces(box)) == [piece for piece in shards if piece is not None]


def test_a_giant_grid_is_never_listed() -> None:
    grid = TileGrid(Shape2d(2**31 - 1, 2**14), 64, 64)
    whole = PixelBox(0, 0, *grid.scene)
    assert grid.count(whole) == 2**25 * 2**8
    assert next(grid.pieces(whole)) == PixelBox(0, 0, 4096, 4096)


def test_sizes_of_a_known_grid() -> None:
    grid = TileGrid(Shape2d(2049, 300))
    assert grid.shape == Shape2d(9, 2)
    assert grid.shards == Shape2d(2, 1)
    assert grid.tile_box(TileIndex(8, 1)) == PixelBox(2048, 256, 1, 44)
    assert grid.shard_box(TileIndex(1, 0)) == PixelBox(2048, 0, 1, 300)
    assert grid.tiles_in_shard(TileIndex(1, 0)) == [TileIndex(8, 0), TileIndex(8, 1)]
    assert grid.slot(TileIndex(8, 1)) == 1


@pytest.mark.parametrize("index", [TileIndex(-1, 0), TileIndex(0, 2), TileIndex(9, 0)])
def test_tiles_outside_the_grid_are_refused(index: TileIndex) -> None:
    with pytest.raises(IndexError, match="outside a grid of 9 x 2"):
        TileGrid(Shape2d(2049, 300)).tile_box(index)


@pytest.mark.parametrize(
    ("scene", "tile", "shard"), [((0, 5), 256, 8), ((5, 5), 100, 8), ((5, 5), 0, 8), ((5, 5), 64, 0)]
)
def test_impossible_grids_are_refused(scene: tuple[int, int], tile: int, shard: int) -> None:
    with pytest.raises(UsageError):
        TileGrid(Shape2d(*scene), tile, shard)


@given(st.integers(1, 64), st.integers(1, 64), st.sampled_from(["uint8", "int16", "float64", "bool"]))
def test_padding_keeps_the_pixels_and_repeats_the_edge(height: int, width: int, dtype: str) -> None:
    pixels = np.random.default_rng(height * 64 + width).integers(0, 2, (2, height, width)).astype(dtype)
    padded = pad_tile(pixels, 64)
    assert padded.shape == (2, 64, 64)
    assert padded.dtype == pixels.dtype
    assert (padded[:, :height, :width] == pixels).all()
    assert (padded[:, height:, :width] == pixels[:, -1:]).all()
    assert (padded[:, :, width:] == padded[:, :, width - 1 : width]).all()


def test_padding_a_full_tile_copies_nothing() -> None:
    pixels = np.zeros((1, 64, 64))
    assert pad_tile(pixels, 64) is pixels


@pytest.mark.parametrize("shape", [(1, 65, 3), (1, 0, 3)])
def test_padding_what_is_no_tile_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="cannot pad"):
        pad_tile(np.zeros(shape), 64)


@pytest.mark.parametrize(
    ("scene", "side"),
    [
        ((1, 1), 1),
        ((256, 256), 1),
        ((256, 257), 2),
        ((700, 900), 4),
        ((2048, 1), 8),
        ((2049, 2049), 8),
        ((1, 10**6), 8),
    ],
)
def test_automatic_shard(scene: tuple[int, int], side: int) -> None:
    assert automatic_shard(Shape2d(*scene), 256) == side


def test_automatic_shard_of_a_wrong_tile() -> None:
    with pytest.raises(UsageError, match="tile side"):
        automatic_shard(Shape2d(10, 10), 0)
