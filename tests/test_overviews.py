from __future__ import annotations

import errno
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from rasters import (
    CHIAPAS,
    COAST,
    CROPS,
    DRONE,
    SAR,
    description,
    masks_of,
    opened,
    pixels_of,
    smooth,
    without_statistics,
    write_tif,
)

import ltchm_geo
from ltchm_geo import compress_raster, decompress_raster, overviews, pyramid, shard_coder
from ltchm_geo.container import ContainerReader, Overview
from ltchm_geo.errors import CorruptTileError, DestinationError, UsageError
from ltchm_geo.georef import Georef
from ltchm_geo.scene_decoder import SceneDecoder
from ltchm_geo.types import PixelBox, Shape2d, TileIndex

SMALL: dict[str, Any] = {"tile_size": 128, "shard_tiles": 1}


def naive(pixels: np.ndarray, valid: np.ndarray, factor: int, hole: Any = 0) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the valid pixels of each block of one band, and whether there are any."""
    height, width = (-(-side // factor) for side in pixels.shape)
    means, found = np.full((height, width), hole, pixels.dtype), np.zeros((height, width), bool)
    for y, x in np.ndindex(height, width):
        block = np.s_[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor]
        values = pixels[block][valid[block]]
        if values.size:
            found[y, x] = True
            mean = values.astype(np.float64).mean()
            means[y, x] = np.rint(mean) if pixels.dtype.kind != "f" else mean
    return means, found


def valid_of(source: Path) -> np.ndarray:
    """(y, x): where any band holds data."""
    return pixels_of(source)[3] != 0 if source == DRONE else masks_of(source).any(axis=0)


def decoded(path: Path, level: int) -> np.ndarray:
    with ContainerReader(path) as reader:
        return SceneDecoder(reader).read(PixelBox(0, 0, *reader.meta.pyramid_shape(level)), None, level)


# --- which levels there are ------------------------------------------------------------------------------------------

shapes = st.builds(Shape2d, st.integers(1, 2**31 - 1), st.integers(1, 2**31 - 1))


@given(shapes, st.integers(1, 12), st.integers(1, 12))
def test_reducing_twice_is_reducing_once(shape: Shape2d, first: int, second: int) -> None:
    """What lets a level be made of the one before."""
    assert pyramid.reduced(pyramid.reduced(shape, 2**first), 2**second) == pyramid.reduced(shape, 2 ** (first + second))


@given(shapes)
def test_automatic_factors(shape: Shape2d) -> None:
    factors = pyramid.automatic_factors(shape)
    pyramid.check_overviews(shape, [Overview(factor, 0) for factor in factors])
    assert bool(factors) == (max(shape) > 2048)
    sides = [max(pyramid.reduced(shape, factor)) for factor in factors]
    assert all(side > 512 for side in sides[:-1])
    assert all(side <= 512 for side in sides[-1:])
    assert list(factors) == [4 * 2**i for i in range(len(factors))]


@given(shapes, st.integers(1, 4096))
def test_factor_of_a_preview(shape: Shape2d, side: int) -> None:
    factor = pyramid.preview_factor(shape, side)
    longer = max(pyramid.reduced(shape, factor))
    assert longer >= side or factor == 1
    assert longer < 2 * side


@given(st.lists(st.integers(0, 30).map(lambda power: 2**power), max_size=8))
def test_cascade(factors: list[int]) -> None:
    made = pyramid.cascade(factors)
    assert made[0] == 1
    assert set(factors) <= set(made)
    steps = [after / before for before, after in itertools.pairwise(made)]
    assert all(step in (2, 4, 8, 16, 32, 64) for step in steps)


@pytest.mark.parametrize("factors", [(3,), (1,), (0,), (-2,), (4, 4), (8, 4), (512,)])
def test_impossible_factors(factors: tuple[int, ...], tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="overview factor"):
        compress_raster(COAST, tmp_path / "a.ltchm", overviews=factors)
    assert not list(tmp_path.iterdir())


def test_automatic_levels(tiny: Path, tmp_path: Path) -> None:
    source = write_tif(tmp_path / "a.tif", smooth(1, 40, 2100))
    path = compress_raster(source, tile_size=128).path
    found = ltchm_geo.info(path)
    assert found.meta.overviews == (Overview(4, 55), Overview(8, 55))
    assert [level["shape"] for level in found.to_dict()["levels"]] == [[40, 2100], [10, 525], [5, 263]]
    assert found.sizes["overviews"] == sum(found.overview_sizes)
    assert found.sizes["preview"] > 0
    assert sum(size for part, size in found.sizes.items() if part != "total") == found.bytes == path.stat().st_size
    without = compress_raster(source, tmp_path / "b.ltchm", tile_size=128, overviews=False, preview=False).path
    assert ltchm_geo.info(without).sizes.keys() == {"g0", "metadata", "container", "total"}


def test_small_scenes_have_none(tiny: Path, tmp_path: Path) -> None:
    meta = ltchm_geo.info(compress_raster(COAST, tmp_path / "a.ltchm").path).meta
    assert meta.overviews == ()
    with pytest.raises(UsageError, match="no pyramid level 1: the scene has no overviews"):
        meta.pyramid_factor(1)


# --- averages --------------------------------------------------------------------------------------------------------


@given(st.data())
def test_average_is_the_mean_of_valid_pixels(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["uint8", "int16", "uint16", "float32", "float64"]))
    shape = data.draw(st.tuples(st.integers(1, 19), st.integers(1, 19)))
    factor = data.draw(st.sampled_from([2, 4, 8]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    pixels = rng.integers(1, 200, (2, *shape)).astype(dtype)
    valid = rng.random((2, *shape)) > data.draw(st.sampled_from([0, 0.4, 0.95]))
    found = overviews.average(pixels, valid, factor, (0, 0), (0, 0))
    for band in range(2):
        expected, _ = naive(pixels[band], valid[band], factor)
        np.testing.assert_allclose(found[band], expected, rtol=1e-6)
        reduced = overviews.average_mask(valid[band], factor)
        np.testing.assert_array_equal(reduced, naive(pixels[band], valid[band], factor)[1])
        np.testing.assert_array_equal(found[band] == 0, ~reduced)


@pytest.mark.parametrize(("values", "mean"), [([0, 4], 1), ([0, 3], 1), ([1, 4], 3), ([2, 3], 3)])
def test_a_mean_is_never_nodata(values: list[int], mean: int) -> None:
    pixels = np.array([[values]], np.uint8)
    assert overviews.average(pixels, np.ones(pixels.shape, bool), 2, (2,), (2,)) == mean


def test_what_is_not_finite_counts_only_where_nothing_else_is() -> None:
    nan, inf = np.nan, np.inf
    pixels = np.array([[[1, inf, inf, -inf, nan, nan, 1e308, 1e308], [3, nan, nan, 7, nan, nan, 1e308, 1e308]]])
    found = overviews.average(pixels, ~np.isnan(pixels), 2, (nan,), (None,))
    np.testing.assert_array_equal(found, [[[2, 7, nan, 1e308]]])
    only = np.array([[[inf, -inf]]])
    assert overviews.average(only, np.ones(only.shape, bool), 2, (nan,), (None,)) == inf


def test_alpha_is_zero_only_where_all_of_it_is() -> None:
    alpha = np.array([[0, 1, 0, 0, 255], [0, 0, 0, 0, 0]], np.uint8)
    np.testing.assert_array_equal(overviews.average_alpha(alpha, 2), [[1, 0, 128]])


@pytest.mark.parametrize("steps", [(2,), (4,), (2, 8), (16,)])
def test_the_network_sees_averages_of_the_source(
    steps: tuple[int, ...], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of the source's own overviews, and not of decoded pixels."""
    pixels = np.indices((300, 270)).sum(axis=0) % 2 * 200 + smooth(1, 300, 270, high=50)
    pixels = pixels.astype(np.uint8)
    pixels[:, 20:90, 130:250] = 0
    source = write_tif(tmp_path / "a.tif", pixels, nodata=0)
    with rasterio.open(source, "r+") as dataset:
        dataset.build_overviews([2, 4, 8, 16], rasterio.enums.Resampling.nearest)
    seen: dict[tuple[int, TileIndex], Any] = {}
    store, encode = shard_coder.ShardCoder.code, shard_coder.encode_tiles

    def noted(self: Any, shard: TileIndex, *done: Any) -> Any:
        def kept(tiles: Any, *rest: Any, **options: Any) -> Any:
            seen[self._plan.pyramid, shard] = tiles
            return encode(tiles, *rest, **options)

        monkeypatch.setattr(shard_coder, "encode_tiles", kept)
        return store(self, shard, *done)

    monkeypatch.setattr(shard_coder.ShardCoder, "code", noted)
    with rasterio.open(source) as dataset:
        compress_raster(dataset, tmp_path / "a.ltchm", overviews=steps, workers=1, seamless=False, **SMALL)
    means, valid, before = pixels[0], pixels[0] != 0, 1
    for level, factor in enumerate(steps, start=1):
        means, valid = naive(means, valid, factor // before)
        before = factor
        for (found, shard), [(tile, known, _)] in seen.items():
            if found == level:
                part = np.s_[shard.iy * 128 : shard.iy * 128 + 128, shard.ix * 128 : shard.ix * 128 + 128]
                height, width = means[part].shape
                np.testing.assert_array_equal(known[0, :height, :width], valid[part])
                np.testing.assert_array_equal(tile[0, :height, :width], means[part])
        assert len([1 for found, _ in seen if found == level]) == -(-means.shape[0] // 128) * -(-means.shape[1] // 128)


# --- levels of a scene -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", CROPS, ids=lambda path: path.stem)
def test_holes_of_every_level(source: Path, tiny: Path, tmp_path: Path) -> None:
    path = compress_raster(source, tmp_path / "a.ltchm", overviews=(2, 4), **SMALL).path
    valid = valid_of(source)
    for level, factor in enumerate((1, 2, 4)):
        part = decompress_raster(path, tmp_path / f"{level}.tif", level=level).path
        expected = naive(valid, valid, factor)[1]
        np.testing.assert_array_equal(pixels_of(part)[3] != 0 if source == DRONE else valid_of(part), expected)
        before, after = description(source), description(part)
        with opened(source) as dataset:
            assert after["transform"] == dataset.transform @ rasterio.Affine.scale(factor)
        assert after["shape"] == expected.shape
        if level:
            before["tags"] = without_statistics(before["tags"])
        assert all(after[key] == before[key] for key in before.keys() - {"shape", "transform"})


def test_mask_and_nan_of_a_level(tiny: Path, tmp_path: Path) -> None:
    pixels, valid = smooth(2, 150, 140, "float32", 0, 1), np.ones((150, 140), bool)
    pixels[0, 3:50, 4:9], valid[101:] = np.nan, False
    path = compress_raster(write_tif(tmp_path / "a.tif", pixels, mask=valid), overviews=(4,), **SMALL).path
    restored = decompress_raster(path, tmp_path / "b.tif", level=1).path
    np.testing.assert_array_equal(masks_of(restored)[1], overviews.average_mask(valid, 4))
    # NaN that the mask calls valid is a value: it stays where a block has no other.
    only_nan = ~overviews.average_mask(~np.isnan(pixels[0]), 4)
    assert only_nan.sum() == 11
    np.testing.assert_array_equal(np.isnan(pixels_of(restored)[0]), only_nan)


def test_window_and_bands_of_a_level(tiny: Path, tmp_path: Path) -> None:
    path = compress_raster(CHIAPAS, tmp_path / "a.ltchm", overviews=(2,)).path
    whole = pixels_of(decompress_raster(path, tmp_path / "whole.tif", level=1).path)
    part = decompress_raster(path, tmp_path / "part.tif", level=1, window=(5, 7, 20, 30), bands=[8, 1]).path
    np.testing.assert_array_equal(pixels_of(part), whole[[7, 0], 5:25, 7:37])
    with opened(part) as dataset, opened(CHIAPAS) as source:
        assert dataset.transform @ (0, 0) == pytest.approx(source.transform @ (14, 10))
    with pytest.raises(UsageError, match="not inside the raster of 48 rows"):
        decompress_raster(path, tmp_path / "b.tif", level=1, window=(0, 0, 49, 1))
    with pytest.raises(UsageError, match="no pyramid level 2"):
        decompress_raster(path, tmp_path / "b.tif", level=2)
    with pytest.raises(UsageError, match="no pyramid level -1"):
        decompress_raster(path, tmp_path / "b.tif", level=-1)


def test_open_a_level(tiny: Path, tmp_path: Path) -> None:
    path = compress_raster(SAR, tmp_path / "a.ltchm", overviews=(2,)).path
    with ltchm_geo.open(path) as full, ltchm_geo.open(path, level=1) as dataset:
        np.testing.assert_array_equal(dataset.band_data.values, decoded(path, 1))
        assert dataset.band_data.data.name != full.band_data.data.name
        np.testing.assert_allclose(dataset.x, full.x.values.reshape(-1, 2).mean(axis=1))
        np.testing.assert_allclose(dataset.y, full.y.values.reshape(-1, 2).mean(axis=1))
    with pytest.raises(UsageError, match="no pyramid level 3"):
        ltchm_geo.open(path, level=3)


def test_quality_of_overviews(tiny: Path, tmp_path: Path) -> None:
    path = compress_raster(COAST, tmp_path / "a.ltchm", quality=1, overviews=(2, 4), overview_quality=100).path
    with ContainerReader(path) as reader:
        assert reader.meta.overviews == (Overview(2, 112), Overview(4, 112))
        payloads = [reader.tile_payload("g0", TileIndex(0, 0), level) for level in reader.meta.pyramid]
    assert [payload[3] for payload in payloads] == [0, 112, 112]
    levels = ltchm_geo.info(path).to_dict()["levels"]
    assert [(level["factor"], level["quality"]) for level in levels] == [(1, 1), (2, 100), (4, 100)]
    with pytest.raises(UsageError, match="quality must be"):
        compress_raster(COAST, tmp_path / "b.ltchm", overviews=(2,), overview_quality=0)


def test_equal_scenes_are_equal_files(tiny: Path, tmp_path: Path) -> None:
    paths = [
        compress_raster(DRONE, tmp_path / n, overviews=(2, 4), preview=True, workers=1, **SMALL).path for n in "ab"
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_damage_in_an_overview(tiny: Path, tmp_path: Path) -> None:
    path = compress_raster(COAST, tmp_path / "a.zarr", overviews=(2,), **SMALL).path
    shard = path / "1/g0/c/0/0/1"
    data = bytearray(shard.read_bytes())
    data[9] ^= 1
    shard.write_bytes(data)
    for deep in (False, True):
        report = ltchm_geo.verify(path, deep=deep)
        assert [(problem.array, problem.tile) for problem in report.problems] == [("1/g0", (0, 1))]
        assert report.tiles == 9 + 4
    decompress_raster(path, tmp_path / "a.tif")
    with pytest.raises(CorruptTileError, match=r"tile \(0, 1\) of 1/g0"):
        decompress_raster(path, tmp_path / "b.tif", level=1)
    found = decompress_raster(path, tmp_path / "b.tif", level=1, allow_damaged=True)
    assert [(damage.array, damage.tile) for damage in found.damaged] == [("1/g0", (0, 1))]


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr")
def test_zarr_reads_overviews(tiny: Path, tmp_path: Path) -> None:
    path = compress_raster(SAR, tmp_path / "a.zarr", overviews=(2, 8)).path
    with xr.open_zarr(path, group="2", consolidated=False, mask_and_scale=False) as dataset:
        np.testing.assert_array_equal(dataset.g0.values, decoded(path, 2))
        with ltchm_geo.open(path, level=2) as opened_scene:
            np.testing.assert_array_equal(dataset.x, opened_scene.x)
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]
    assert attributes["multiscales"]["resampling_method"] == "average"
    assert [(entry["asset"], entry["transform"]["scale"]) for entry in attributes["multiscales"]["layout"]] == [
        ("0", [1, 1]),
        ("1", [2, 2]),
        ("2", [4, 4]),
    ]
    assert attributes["zarr_conventions"][0]["name"] == "multiscales"


def test_levels_that_wait_leave_nothing(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, *arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    class FullFile:
        seek = read = full
        write = full

        def close(self) -> None:
            pass

    monkeypatch.setattr(overviews.tempfile, "TemporaryFile", lambda **_: FullFile())
    with pytest.raises(DestinationError, match="disk full"):
        compress_raster(COAST, tmp_path / "a.ltchm", overviews=(2,))
    assert not list(tmp_path.iterdir())


@given(st.integers(1, 10).map(lambda power: 2**power), st.floats(-500, 500), st.floats(-500, 500))
def test_scaled_georeferencing_points_to_the_same_places(factor: int, row: float, column: float) -> None:
    """A point in pixels, counted from the corner, divided by the factor is the same point."""
    rpcs = {"line_off": 99.5, "samp_off": 12.0, "line_scale": 50.0, "samp_scale": 70.0}
    georef = Georef(transform=(3.0, 1.0, 7.0, -1.0, 2.0, 9.0), rpcs=rpcs, gcps=({"row": row, "col": column},))
    scaled = georef.scaled(factor)
    full, small = rasterio.Affine(*georef.transform or ()), rasterio.Affine(*scaled.transform or ())
    assert small @ (column / factor, row / factor) == pytest.approx(full @ (column, row))
    assert scaled.gcps[0] == {"row": row / factor, "col": column / factor}
    # RPCs count from the centre of the first pixel.
    before = (row - 0.5 - rpcs["line_off"]) / rpcs["line_scale"]
    after = (row / factor - 0.5 - (scaled.rpcs or {})["line_off"]) / (scaled.rpcs or {})["line_scale"]
    assert after == pytest.approx(before)
