"""Tiles see one latent of their neighbours, and a tile's pixels do not depend on how it is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from rasters import COAST, FARMLAND, pixels_of, smooth, write_tif
from torch.nn import functional as F

import ltchm_geo
from ltchm_geo import compress_raster, decompress_raster
from ltchm_geo.bitstream import TileMode, TilePayload
from ltchm_geo.container import ContainerReader
from ltchm_geo.engine import load_engine
from ltchm_geo.errors import CorruptTileError
from ltchm_geo.metrics import seam_step
from ltchm_geo.scene_decoder import SceneDecoder
from ltchm_geo.seams import LatentCache, alike, alone, in_order, with_neighbours
from ltchm_geo.tiles import TileGrid
from ltchm_geo.types import PixelBox, Shape2d, Sides, TileIndex

T = 128
SIZE = (330, 400)  # 3 x 4 tiles, 2 x 2 shards; the last row of tiles is 74 pixels high
SCENE = Path(__file__).parents[1] / "examples" / "data" / "farmland_rgbn.tif"
SMALL: dict[str, Any] = {"tile_size": T, "shard_tiles": 2, "overviews": False}


def rough(bands: int = 3, size: tuple[int, int] = SIZE) -> Any:
    """Rough enough that exact coding never wins."""
    noise = np.random.default_rng(1).integers(0, 60, (bands, *size))
    return (smooth(bands, *size, low=10, high=180) + noise).astype(np.uint8)


@pytest.fixture(scope="module")
def scene(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTCHM_WEIGHTS", str(tiny_weights))
        folder = tmp_path_factory.mktemp("scene")
        source = write_tif(folder / "a.tif", rough())
        yield made(source, folder / "a.ltchm", overviews=(2,))


def made(source: Path, target: Path, **options: Any) -> Path:
    return Path(str(compress_raster(source, target, **{**SMALL, **options}).path))


def read(scene: Path, box: PixelBox, level: int = 0, **options: Any) -> Any:
    with ContainerReader(scene) as reader:
        return SceneDecoder(reader, "cpu", **options).read(box, None, level)


# --- the window does not matter --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny")
def test_a_scene_is_seamless_unless_told_otherwise(scene: Path) -> None:
    with ContainerReader(scene) as reader:
        assert reader.meta.halo == 1


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("level", [0, 1])
def test_windows_show_what_the_whole_shows(scene: Path, level: int) -> None:
    with ContainerReader(scene) as reader:
        shape, decoder = reader.meta.pyramid_shape(level), SceneDecoder(reader, "cpu")
        whole = decoder.read(PixelBox(0, 0, *shape), None, level)
        for tile in reader.grids[level].covering(PixelBox(0, 0, *shape)):
            box = reader.grids[level].tile_box(tile)
            expected = whole[(slice(None), *box.slices)]
            np.testing.assert_array_equal(SceneDecoder(reader, "cpu").read(box, None, level), expected)
            np.testing.assert_array_equal(decoder.read(box, None, level), expected)  # out of its cache


@pytest.mark.usefixtures("tiny")
def test_every_door_shows_the_same(scene: Path, tmp_path: Path) -> None:
    whole = read(scene, PixelBox(0, 0, *SIZE))
    window = (100, 90, 60, 200)
    part = whole[:, 100:160, 90:290]
    np.testing.assert_array_equal(pixels_of(decompress_raster(scene, tmp_path / "a.tif").path), whole)
    np.testing.assert_array_equal(pixels_of(decompress_raster(scene, tmp_path / "b.tif", window=window).path), part)
    with ltchm_geo.rasterio_open(scene) as dataset:
        np.testing.assert_array_equal(dataset.read(window=((100, 160), (90, 290))), part)
    with ltchm_geo.open(scene) as dataset:
        np.testing.assert_array_equal(dataset.band_data[:, 100:160, 90:290], part)


@pytest.mark.usefixtures("tiny")
def test_only_a_tile_and_those_around_it_are_read(scene: Path, touched: list[tuple[str, TileIndex]]) -> None:
    read(scene, PixelBox(0, 0, 10, 10))
    assert {tile for _, tile in touched} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert len(touched) == 4


@pytest.mark.usefixtures("tiny")
def test_shards_do_not_matter(scene: Path, tmp_path: Path) -> None:
    other = made(scene.with_suffix(".tif"), tmp_path / "b.ltchm", shard_tiles=4)
    with ContainerReader(scene) as first, ContainerReader(other) as second:
        for tile in first.grid.covering(PixelBox(0, 0, *SIZE)):
            assert first.tile_payload("g0", tile) == second.tile_payload("g0", tile)


# --- damage ----------------------------------------------------------------------------------------------------------


def hurt(scene: Path, copy: Path, tile: TileIndex) -> Path:
    with ContainerReader(scene) as reader:
        payload = reader.tile_payload("g0", tile)
    data = bytearray(scene.read_bytes())
    assert data.count(payload) == 1
    data[data.index(payload) + len(payload) // 2] ^= 0x10
    copy.write_bytes(data)
    return copy


@pytest.mark.usefixtures("tiny")
def test_a_damaged_neighbour_is_done_without(scene: Path, tmp_path: Path) -> None:
    damaged, everything = hurt(scene, tmp_path / "b.ltchm", TileIndex(1, 1)), PixelBox(0, 0, *SIZE)
    with pytest.raises(CorruptTileError, match=r"tile \(1, 1\)"):
        read(damaged, everything)
    with ContainerReader(damaged) as reader:
        decoder = SceneDecoder(reader, "cpu", allow_damaged=True)
        found = decoder.read(everything)
        assert [d.tile for d in decoder.damaged] == [(1, 1)]
        beside = decoder.reader.grid.tile_box(TileIndex(1, 0))
        # A tile is readable whatever became of its neighbours, and looks alike in every window.
        strict = SceneDecoder(reader, "cpu").read(beside)
        np.testing.assert_array_equal(strict, found[(slice(None), *beside.slices)])
    before = read(scene, everything)
    np.testing.assert_array_equal(found[:, :, 3 * T :], before[:, :, 3 * T :])  # column 3 is not beside it
    assert (found[:, T : 2 * T, :T] != before[:, T : 2 * T, :T]).any()
    assert not found[:, T : 2 * T, T : 2 * T].any()


# --- tiles that are exempt -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny")
def test_exact_and_empty_tiles_stay_what_they_are(tmp_path: Path) -> None:
    pixels = rough()
    pixels[:, :T, T : 2 * T] = 77
    pixels[:, T : 2 * T, :T] = 0  # nodata
    source = write_tif(tmp_path / "a.tif", pixels, nodata=0)
    scene = made(source, tmp_path / "a.ltchm")
    with ContainerReader(scene) as reader:
        modes = {t: TilePayload.mode_of(reader.tile_payload("g0", t)) for t in (TileIndex(0, 1), TileIndex(1, 0))}
    assert list(modes.values()) == [TileMode.CONSTANT, TileMode.EMPTY]
    found = read(scene, PixelBox(0, 0, *SIZE))
    np.testing.assert_array_equal(found == 0, pixels == 0)
    np.testing.assert_array_equal(found[:, :T, T : 2 * T], pixels[:, :T, T : 2 * T])
    corner = PixelBox(0, 0, T, T)
    np.testing.assert_array_equal(read(scene, corner), found[:, :T, :T])


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("promise", [{"lossless": True}, {"max_error": 4}])
def test_promised_pixels_see_no_neighbours(promise: dict[str, Any], scene: Path, tmp_path: Path) -> None:
    kept = made(scene.with_suffix(".tif"), tmp_path / "b.ltchm", **promise)
    with ContainerReader(kept) as reader:
        assert reader.meta.halo == 0


@pytest.mark.usefixtures("tiny")
def test_a_single_tile_has_no_neighbours(tmp_path: Path) -> None:
    source = write_tif(tmp_path / "a.tif", rough(size=(100, 128)))
    both = [made(source, tmp_path / f"{s}.ltchm", seamless=s) for s in (False, True)]
    assert both[0].read_bytes() == both[1].read_bytes()


@pytest.mark.usefixtures("tiny")
def test_the_folder_stands_alone_unless_told_otherwise(scene: Path, tmp_path: Path) -> None:
    source = scene.with_suffix(".tif")
    plain = made(source, tmp_path / "a.zarr")
    np.testing.assert_array_equal(zarr.open_array(plain, path="0/g0", mode="r")[:], read(plain, PixelBox(0, 0, *SIZE)))
    joined = made(source, tmp_path / "b.zarr", seamless=True)
    np.testing.assert_array_equal(read(joined, PixelBox(0, 0, *SIZE)), read(scene, PixelBox(0, 0, *SIZE)))
    # What Zarr shows of such a folder is the tiles without their neighbours.
    shown = np.asarray(zarr.open_array(joined, path="0/g0", mode="r")[:])
    assert shown.shape == (3, *SIZE)
    assert (shown != read(joined, PixelBox(0, 0, *SIZE))).any()


# --- does it help ----------------------------------------------------------------------------------------------------


def test_seams_vanish(tmp_path: Path) -> None:
    with rasterio.open(SCENE) as dataset:
        original = dataset.read([1, 2, 3], window=((100, 612), (200, 712)))
    source = write_tif(tmp_path / "a.tif", original, colors=("red", "green", "blue"))
    ratios = []
    for seamless in (False, True):
        scene = made(source, tmp_path / f"{seamless}.ltchm", quality=1, tile_size=256, seamless=seamless)
        across, inside = seam_step(original, read(scene, PixelBox(0, 0, 512, 512)))
        ratios.append(across / inside)
    assert ratios[0] > 1.3
    assert ratios[1] < 1.15


# --- parts -----------------------------------------------------------------------------------------------------------


def test_the_margin_is_the_neighbours_and_else_the_rim() -> None:
    mosaic = torch.arange(2 * 12 * 8, dtype=torch.int32).reshape(2, 12, 8)  # 3 x 2 tiles of 4 x 4
    y = mosaic.reshape(2, 3, 4, 2, 4).permute(1, 3, 0, 2, 4).reshape(6, 2, 4, 4)
    rows = np.full((6, 3, 3), -1)
    for tile, (iy, ix) in enumerate(np.ndindex(3, 2)):
        for dy, dx in np.ndindex(3, 3):
            if 0 <= iy + dy - 1 < 3 and 0 <= ix + dx - 1 < 2:
                rows[tile, dy, dx] = 2 * (iy + dy - 1) + ix + dx - 1
    found = with_neighbours(y, rows)
    np.testing.assert_array_equal(found[2, :, :, 1:], F.pad(mosaic, (0, 1))[:, 3:9, :5])  # row 1, left: none beyond
    np.testing.assert_array_equal(found[2, :, 1:-1, 0], y[2, :, :, 0])
    np.testing.assert_array_equal(found[3, :, :, :-1], mosaic[:, 3:9, 3:8])
    rim = F.pad(y.float(), (1, 1, 1, 1), mode="replicate").int()
    np.testing.assert_array_equal(with_neighbours(y, alone(6)), rim)


@given(st.lists(st.tuples(*[st.integers(0, 1)] * 4).map(lambda s: Sides(*s)), min_size=1, max_size=12))
@settings(deadline=None)
def test_tiles_come_back_in_order(sides: list[Sides]) -> None:
    tiles = torch.arange(len(sides) * 100).reshape(-1, 1, 10, 10)
    parts = alike(tiles, sides, 2, 3)
    assert all(len(part.members) <= 2 for part in parts)
    for part in parts:
        top, bottom, left, right = part.sides
        assert part.tiles.shape[2:] == (4 + 3 * (top + bottom), 4 + 3 * (left + right))
    inner = in_order([part.tiles[..., 3 * part.sides.top :, :][..., :1, :1] for part in parts], parts)
    assert inner.shape[0] == len(sides)
    firsts = tiles[:, 0, 3].gather(1, torch.tensor([[3 * (1 - s.left)] for s in sides]))
    np.testing.assert_array_equal(inner.flatten(), firsts.flatten())


@pytest.mark.usefixtures("tiny")
def test_the_network_uses_what_it_is_given() -> None:
    """Without neighbours nothing changes; with them, pixels near them do, and it is the same for any company."""
    engine = load_engine(device="cpu")
    y = torch.randint(-3, 4, (2, 32, 10, 10), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    none, left = Sides(), Sides(left=1)
    plain = engine.synthesise(y[:, :, 1:-1, 1:-1], 40)
    np.testing.assert_array_equal(engine.synthesise(y, 40, sides=[none, none]), plain)
    mixed = engine.synthesise(y, 40, sides=[left, none])
    np.testing.assert_array_equal(mixed[1], plain[1])
    np.testing.assert_array_equal(engine.synthesise(y[:1], 40, sides=[left])[0], mixed[0])
    assert np.abs(mixed[0] - plain[0])[..., :16].mean() > 2 * np.abs(mixed[0] - plain[0])[..., -16:].mean()


def test_the_cache_forgets() -> None:
    cache, y = LatentCache(limit=1000), torch.ones(1, 10, 10, dtype=torch.int32)  # 200 bytes as int16
    tiles = [(0, TileIndex(0, ix)) for ix in range(8)]
    cache.put(0, "g0", {spot: (40, y * spot[1].ix) for spot in tiles})
    found = cache.get(0, "g0", tiles)
    assert list(found) == tiles[3:]
    np.testing.assert_array_equal(found[tiles[5]][1], 5 * y)
    assert not cache.get(1, "g0", tiles)
    assert not cache.get(0, "g0", [(1, tiles[5][1])])  # another pass through the network
    cache.put(0, "g0", {tiles[0]: (40, y * 100_000)})  # 400 bytes: it does not fit 16 bits
    assert int(cache.get(0, "g0", tiles)[tiles[0]][1][0, 0, 0]) == 100_000
    assert len(cache.get(0, "g0", tiles)) == 4


def test_neighbours_of_tiles() -> None:
    grid = TileGrid(Shape2d(300, 200), 128)
    assert grid.sides(TileIndex(0, 0)) == Sides(0, 1, 0, 1)
    assert grid.sides(TileIndex(2, 1)) == Sides(1, 0, 1, 0)
    assert grid.around(TileIndex(1, 0)) == [(0, 0), (0, 1), (1, 1), (2, 0), (2, 1)]


def test_a_small_crop_too(tiny: Path, tmp_path: Path) -> None:
    """A last column of 14 pixels is narrower than the margin."""
    for source in (FARMLAND, COAST):
        scene = made(source, tmp_path / f"{source.stem}.ltchm")
        with ContainerReader(scene) as reader:
            whole = SceneDecoder(reader, "cpu").read(PixelBox(0, 0, *reader.meta.shape))
            box = reader.grid.tile_box(TileIndex(0, 0))
            np.testing.assert_array_equal(SceneDecoder(reader, "cpu").read(box), whole[(slice(None), *box.slices)])
