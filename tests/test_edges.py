"""Tiles end with the scene: what lies beyond its edge takes no bits and leaves no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasters import pixels_of, smooth, write_tif

from ltchm_geo import compress_raster, decompress_raster, verify
from ltchm_geo.bitstream import TileMode, TilePayload
from ltchm_geo.container import ContainerReader
from ltchm_geo.engine import Engine, load_engine
from ltchm_geo.entropy.rans import wavefront
from ltchm_geo.errors import CorruptTileError, UsageError
from ltchm_geo.radiometry import UINT8_MAPPING
from ltchm_geo.scene_decoder import SceneDecoder
from ltchm_geo.seams import Surroundings
from ltchm_geo.tile_coding import GroupCoding
from ltchm_geo.tile_decoder import check_latents, decode_tiles
from ltchm_geo.tile_encoder import encode_tiles
from ltchm_geo.tiles import CutTile, TileGrid, pad_tile
from ltchm_geo.types import PixelBox, Shape2d, TileIndex

T = 128
SCENE = Path(__file__).parents[1] / "examples" / "data" / "farmland_rgbn.tif"


def rough(height: int, width: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(1).integers(0, 60, (3, height, width))
    return (smooth(3, height, width, low=10, high=180) + noise).astype(np.uint8)


def coding(halo: int = 0) -> GroupCoding:
    return GroupCoding(np.dtype("uint8"), (UINT8_MAPPING,) * 3, (None,) * 3, (None,) * 3, halo)


def tile_of(pixels: NDArray[Any], side: int = T) -> CutTile:
    whole = pad_tile(pixels, side)
    return CutTile(whole, np.ones(whole.shape, bool), Shape2d(*pixels.shape[1:]))


@pytest.fixture
def engine(tiny: object) -> Engine:
    return load_engine(device="cpu")


@given(st.integers(1, 16), st.integers(1, 16))
def test_the_wavefront_covers_the_extent(rows: int, columns: int) -> None:
    steps = wavefront(16, 16, Shape2d(rows, columns))
    found = np.concatenate(steps)
    assert sorted(found) == [16 * row + column for row in range(rows) for column in range(columns)]
    assert len(steps) == columns + 3 * (rows - 1)


def test_no_wavefront_beyond_the_latent() -> None:
    with pytest.raises(UsageError, match="17 x 1"):
        wavefront(16, 16, Shape2d(17, 1))


@pytest.mark.parametrize("shape", [(1, 1), (13, 128), (128, 17), (40, 100), (113, 113)])
def test_tiles_hold_the_latents_of_the_scene(shape: tuple[int, int], engine: Engine) -> None:
    tile = tile_of(rough(*shape))
    (data,) = encode_tiles([tile], coding(), engine, 60)
    payload = TilePayload.unpack(data)
    expected = Shape2d(-(-shape[0] // 16), -(-shape[1] // 16))
    if payload.mode == TileMode.LATENT:  # a few pixels are smaller as they are
        assert payload.extent == (None if expected == (8, 8) else expected)
    else:
        assert shape == (1, 1)
    assert check_latents([data], coding(), engine, T) == [None]
    (restored,) = decode_tiles([data], coding(), engine, T)
    assert isinstance(restored, np.ndarray)
    assert restored.shape == (3, T, T)


def test_whole_tiles_and_parts_in_one_call(engine: Engine) -> None:
    tiles = [tile_of(rough(*shape)) for shape in [(128, 128), (40, 100), (128, 128), (128, 50), (40, 100)]]
    payloads = encode_tiles(tiles, coding(), engine, 60)
    assert payloads == [encode_tiles([tile], coding(), engine, 60)[0] for tile in tiles]
    together = decode_tiles(payloads, coding(), engine, T)
    for data, found in zip(payloads, together, strict=True):
        np.testing.assert_array_equal(decode_tiles([data], coding(), engine, T)[0], found)


def test_what_lies_beyond_takes_no_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a tile with 24 rows of the scene, with the weights that are installed."""
    monkeypatch.delenv("LTCHM_WEIGHTS", raising=False)
    pixels, engine = pixels_of(SCENE)[:3, 200:224, 200:450], load_engine(device="cpu")
    tile = tile_of(pixels, 256)
    ended, repeated = encode_tiles([tile, tile._replace(scene=None)], coding(), engine, 50)
    assert len(ended) < 0.4 * len(repeated)
    errors = [
        np.abs(np.asarray(restored)[:, :24, :250].astype(float) - pixels).mean()
        for restored in decode_tiles([ended, repeated], coding(), engine, 256)
    ]
    assert errors[0] < 1.05 * errors[1]


def test_extents_that_are_not_of_the_tile(engine: Engine) -> None:
    (data,) = encode_tiles([tile_of(rough(40, 100))], coding(), engine, 60)
    payload = TilePayload.unpack(data)
    for extent in [(8, 8), (9, 2), (3, 6), (1, 1), (1, 8), (256, 256)]:
        wrong = TilePayload(payload.mode, payload.level, body=payload.body, extent=Shape2d(*extent)).pack()
        (found,) = decode_tiles([wrong], coding(), engine, T)
        assert isinstance(found, CorruptTileError)


def test_extents_that_are_not_of_the_place(engine: Engine) -> None:
    """In the middle of a scene, a tile that ends would leave its neighbour without what it expects."""
    grid = TileGrid(Shape2d(300, 228), T)
    (data,) = encode_tiles([tile_of(rough(40, 100))], coding(), engine, 60)
    for place, fits in [
        (TileIndex(0, 0), False),
        (TileIndex(2, 0), False),
        (TileIndex(1, 1), False),
        (TileIndex(2, 1), True),
    ]:
        around = Surroundings(grid, [place], 1, {})
        (found,) = decode_tiles([data], coding(1), engine, T, surroundings=around)
        assert isinstance(found, np.ndarray) == fits
        around = Surroundings(grid, [place], 1, {})
        (problem,) = check_latents([data], coding(1), engine, T, surroundings=around)
        assert (problem is None) == fits


@pytest.mark.usefixtures("tiny")
def test_a_deep_look_finds_tiles_in_the_wrong_place(tmp_path: Path) -> None:
    """Their bytes are sound, and so are all checksums; but what decompressing refuses must not pass for sound."""
    source = write_tif(tmp_path / "a.tif", rough(300, 228))
    scene = compress_raster(source, tile_size=T, quality=40).path
    assert verify(scene, deep=True).ok
    with ContainerReader(scene) as reader:
        assert TilePayload.unpack(reader.tile_payload("g0", TileIndex(2, 1))).extent == (3, 7)
    original = ContainerReader.tile_payload

    def swapped(self: ContainerReader, array: str, tile: TileIndex, pyramid: int = 0) -> bytes:
        return original(self, array, TileIndex(2, 1) if tile == (1, 1) else tile, pyramid)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ContainerReader, "tile_payload", swapped)
        with pytest.raises(CorruptTileError, match="an extent of"):
            decompress_raster(scene, tmp_path / "b.tif")
        assert [problem.tile for problem in verify(scene, deep=True).problems] == [(1, 1)]


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("size", [(130, 200), (257, 129), (20, 300)])
def test_scenes_of_any_size(size: tuple[int, int], tmp_path: Path) -> None:
    source = write_tif(tmp_path / "a.tif", rough(*size))
    scene = compress_raster(source, tmp_path / "a.ltchm", tile_size=T, quality=90).path
    whole = pixels_of(decompress_raster(scene, tmp_path / "b.tif").path)
    assert whole.shape == (3, *size)
    with ContainerReader(scene) as reader:
        for index in np.ndindex(*reader.meta.grid.shape):
            payload = TilePayload.unpack(reader.tile_payload("g0", TileIndex(*index)))
            assert payload.mask is None
            box = reader.meta.grid.tile_box(TileIndex(*index))
            found = SceneDecoder(reader, "cpu").read(PixelBox(box.y0, box.x0, box.height, box.width))
            np.testing.assert_array_equal(found, whole[(slice(None), *box.slices)])
