"""Tiles that zarr asks for one by one reach the network in batches."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from rasters import COAST, FARMLAND, pixels_of
from zarr.core.array_spec import ArrayConfig, ArraySpec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.dtype import parse_dtype

from ltchm_geo import compress_raster, decompress_raster, zarr_codec
from ltchm_geo._microbatch import MicroBatcher
from ltchm_geo.bitstream import TileMode, TilePayload
from ltchm_geo.engine import Engine
from ltchm_geo.errors import CorruptTileError
from ltchm_geo.zarr_codec import LtchmCodec

LONG = 60.0  # seconds: a test that waited for it would be noticed

# --- the batcher -----------------------------------------------------------------------------------------------------


class Work:
    """Doubles numbers; negative ones are errors."""

    def __init__(self) -> None:
        self.batches: list[tuple[Hashable, list[int]]] = []
        self.may_end = threading.Event()
        self.may_end.set()

    def __call__(self, kind: Hashable, items: Sequence[int]) -> list[int | Exception]:
        self.batches.append((kind, list(items)))
        assert self.may_end.wait(LONG)
        return [2 * item if item >= 0 else ValueError(str(item)) for item in items]


@pytest.fixture
def work() -> Work:
    return Work()


def test_side_by_side_is_one_batch(work: Work) -> None:
    batcher = MicroBatcher(work, limit=64, gather=0.01)

    async def ask() -> list[int]:
        return await asyncio.gather(*(batcher("a", number) for number in range(10)))

    assert asyncio.run(ask()) == list(range(0, 20, 2))
    assert work.batches == [("a", list(range(10)))]


def test_a_full_batch_does_not_wait(work: Work) -> None:
    batcher = MicroBatcher(work, limit=4, gather=LONG)

    async def ask() -> list[int]:
        return await asyncio.wait_for(asyncio.gather(*(batcher("a", number) for number in range(4))), 20)

    assert asyncio.run(ask()) == [0, 2, 4, 6]


def test_no_batch_is_larger_than_the_limit(work: Work) -> None:
    batcher = MicroBatcher(work, limit=4, gather=0.001)

    async def ask() -> list[int]:
        return await asyncio.gather(*(batcher("a", number) for number in range(10)))

    assert asyncio.run(ask()) == list(range(0, 20, 2))
    assert [len(items) for _, items in work.batches] == [4, 4, 2]


def test_kinds_do_not_mix(work: Work) -> None:
    batcher = MicroBatcher(work, limit=64, gather=0.01)

    async def ask() -> list[int]:
        return await asyncio.gather(batcher("a", 1), batcher("b", 2), batcher("a", 3))

    assert asyncio.run(ask()) == [2, 4, 6]
    assert sorted(work.batches, key=str) == [("a", [1, 3]), ("b", [2])]


def test_what_comes_meanwhile_is_the_next_batch(work: Work) -> None:
    batcher = MicroBatcher(work, limit=64, gather=0.001)

    async def ask() -> list[int]:
        work.may_end.clear()
        first = asyncio.ensure_future(batcher("a", 0))
        while not work.batches:
            await asyncio.sleep(0.001)
        others = []
        for number in range(1, 6):
            others.append(asyncio.ensure_future(batcher("a", number)))
            await asyncio.sleep(0.005)  # longer than is gathered
        work.may_end.set()
        return await asyncio.gather(first, *others)

    assert asyncio.run(ask()) == [0, 2, 4, 6, 8, 10]
    assert work.batches == [("a", [0]), ("a", [1, 2, 3, 4, 5])]


def test_errors_reach_their_own_item(work: Work) -> None:
    batcher = MicroBatcher(work, limit=64, gather=0.01)

    async def ask() -> list[Any]:
        return await asyncio.gather(*(batcher("a", n) for n in (1, -2, 3)), return_exceptions=True)

    first, second, third = asyncio.run(ask())
    assert (first, str(second), third) == (2, "-2", 6)


def test_a_failure_reaches_all() -> None:
    def fail(kind: Hashable, items: Sequence[int]) -> list[int | Exception]:
        raise RuntimeError("no weights")

    batcher = MicroBatcher(fail, limit=64, gather=0.01)

    async def ask() -> list[Any]:
        return await asyncio.gather(batcher("a", 1), batcher("a", 2), return_exceptions=True)

    assert [str(error) for error in asyncio.run(ask())] == ["no weights"] * 2


def test_cancelled_asks_are_left_out(work: Work) -> None:
    batcher = MicroBatcher(work, limit=64, gather=0.05)

    async def ask() -> int:
        unwanted = asyncio.ensure_future(batcher("a", 1))
        wanted = asyncio.ensure_future(batcher("a", 2))
        await asyncio.sleep(0)
        unwanted.cancel()
        return await wanted

    assert asyncio.run(ask()) == 4
    assert work.batches == [("a", [2])]


def test_each_loop_is_served_by_itself(work: Work) -> None:
    batcher = MicroBatcher(work, limit=8, gather=0.01)

    async def ask(start: int) -> list[int]:
        return await asyncio.gather(*(batcher("a", number) for number in range(start, start + 20)))

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda start: asyncio.run(ask(start)), range(0, 400, 20)))
    assert [2 * number for number in range(400)] == [number for result in results for number in result]


# --- through zarr ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scene(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of 3 x 3 tiles in four shards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTCHM_WEIGHTS", str(tiny_weights))
        path = tmp_path_factory.mktemp("scene") / "scene.zarr"
        yield compress_raster(COAST, path, tile_size=128, shard_tiles=2).path


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tiles per call of the engine since. Gathers for long, as the disk may be slow."""
    seen: list[int] = []
    original = Engine.decode_latents

    def counted(self: Engine, streams: Sequence[bytes], *arguments: Any, **options: Any) -> Any:
        seen.append(len(streams))
        return original(self, streams, *arguments, **options)

    monkeypatch.setattr(Engine, "decode_latents", counted)
    monkeypatch.setattr(zarr_codec._BATCHER, "gather", 0.5)
    return seen


def test_one_read_is_one_call(scene: Path, calls: list[int], tmp_path: Path) -> None:
    expected = pixels_of(decompress_raster(scene, tmp_path / "a.tif").path)
    calls.clear()
    np.testing.assert_array_equal(zarr.open_array(scene, path="0/g0", mode="r")[:], expected)
    assert calls == [9]


def test_open_zarr(scene: Path, calls: list[int], tmp_path: Path) -> None:
    expected = pixels_of(decompress_raster(scene, tmp_path / "a.tif").path)
    calls.clear()
    with xr.open_zarr(scene, group="0", consolidated=False, mask_and_scale=False, chunks=None) as dataset:
        np.testing.assert_array_equal(dataset.g0, expected)
    assert calls == [9]


def test_without_gathering_it_is_one_by_one(scene: Path, calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the batcher is for: the same read with batches of one."""
    monkeypatch.setattr(zarr_codec._BATCHER, "limit", 1)
    zarr.open_array(scene, path="0/g0", mode="r")[:]
    assert calls == [1] * 9


def test_threads_read_different_scenes(scene: Path, tiny: Path, tmp_path: Path) -> None:
    other = compress_raster(FARMLAND, tmp_path / "b.zarr", tile_size=128, shard_tiles=1).path
    arrays = [zarr.open_array(path, path="0/g0", mode="r") for path in (scene, other)]
    expected = [array[:] for array in arrays]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda array: array[:], arrays * 3))
    for pixels, same in zip(found, expected * 3, strict=True):
        np.testing.assert_array_equal(pixels, same)


def test_a_damaged_tile_costs_its_neighbours_nothing() -> None:
    """Two tiles in one batch, asked for by different tasks."""
    codec = LtchmCodec(None, ((0.0, 1.0, 0.0, 1.0),), (0,), (None,))
    prototype = default_buffer_prototype()
    dtype = parse_dtype("uint8", zarr_format=3)
    spec = ArraySpec((1, 64, 64), dtype, np.uint8(0), ArrayConfig("C", False), prototype)
    sound, broken = (TilePayload(TileMode.CONSTANT, body=body).pack() for body in (b"\x07", b"far too long"))

    async def ask() -> list[Any]:
        chunks = [(prototype.buffer.from_bytes(data), spec) for data in (sound, broken, sound)]
        return await asyncio.gather(*(codec.decode([chunk]) for chunk in chunks), return_exceptions=True)

    first, second, third = asyncio.run(ask())
    assert isinstance(second, CorruptTileError)
    for (tile,) in (first, third):
        np.testing.assert_array_equal(tile.as_numpy_array(), np.full((1, 64, 64), 7))
