from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from decodable import BROKEN, DECODABLE, pixels, write_decodable
from forked import exit_code, needs_fork
from rasters import (
    CHIAPAS,
    COAST,
    DRONE,
    TOKYO,
    description,
    masks_of,
    opened,
    pixels_of,
    same,
    smooth,
    without_statistics,
    write_tif,
)

from ltchm_geo import compress_raster, decompress_raster, scene_decoder
from ltchm_geo.container import ContainerReader
from ltchm_geo.errors import (
    CorruptTileError,
    DestinationError,
    DestinationExistsError,
    NotAContainerError,
    UsageError,
    WeightsNotFoundError,
)
from ltchm_geo.tiles import TileGrid
from ltchm_geo.types import PixelBox, TileIndex

SMALL: dict[str, Any] = {"tile_size": 128, "shard_tiles": 1}


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_decodable(tmp_path / "scene.ltchm")


@pytest.fixture
def coast(tiny: Path, tmp_path: Path) -> Path:
    return compress_raster(COAST, tmp_path / "coast.ltchm", **SMALL).path


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# --- parts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "window", [(0, 0, 150, 220), (0, 0, 1, 1), (149, 219, 1, 1), (60, 100, 70, 90), (10, 64, 64, 128)]
)
def test_window(window: tuple[int, int, int, int], scene: Path) -> None:
    y, x, height, width = window
    path = decompress_raster(scene, window=window).path
    assert path == scene.with_suffix(".tif")
    np.testing.assert_array_equal(pixels_of(path), pixels()[:, y : y + height, x : x + width])
    whole = decompress_raster(scene, scene.with_name("whole.tif")).path
    np.testing.assert_array_equal(masks_of(path), masks_of(whole)[:, y : y + height, x : x + width])
    with opened(path) as part, opened(whole) as dataset:
        assert part.transform[:6] == (10, 0, 5e5 + 10 * x, 0, -10, 4e6 - 10 * y)
        assert (part.descriptions, part.colorinterp) == (dataset.descriptions, dataset.colorinterp)


def test_window_of_a_real_scene(coast: Path, tmp_path: Path) -> None:
    """Metadata move along, and the pixels are those of the whole."""
    whole = decompress_raster(coast, tmp_path / "whole.tif").path
    part = decompress_raster(coast, tmp_path / "part.tif", window=(100, 50, 140, 230)).path
    np.testing.assert_array_equal(pixels_of(part), pixels_of(whole)[:, 100:240, 50:280])
    first, second = description(whole), description(part)
    changed = {key for key in first if first[key] != second[key]}
    assert changed == {"shape", "transform", "tags"}
    a, b, c, d, e, f = first["transform"][:6]
    assert second["transform"][:6] == pytest.approx((a, b, c + 50 * a, d, e, f + 100 * e))
    assert second["tags"] == without_statistics(first["tags"])


@pytest.mark.parametrize(
    ("part", "kept"),
    [
        ({}, True),
        ({"window": (0, 0, 200, 300), "bands": [2]}, True),
        ({"window": (0, 0, 200, 299)}, False),
        ({"bounds": (500_000, 3_998_990, 500_500, 4_000_000)}, False),
        ({"level": 1}, False),
    ],
    ids=str,
)
def test_statistics_of_the_whole(part: dict[str, Any], kept: bool, tmp_path: Path) -> None:
    source = write_tif(tmp_path / "a.tif", smooth(2, 200, 300))
    found = {"STATISTICS_MEAN": "7", "STATISTICS_VALID_PERCENT": "9", "sensor": "x"}
    with rasterio.open(source, "r+") as dataset:
        for band in (1, 2):
            dataset.update_tags(band, **found)
            dataset.update_tags(band, ns="LAB", STATISTICS_MEAN="8")
    scene = compress_raster(source, lossless=True, overviews=(2,), **SMALL).path
    with opened(decompress_raster(scene, tmp_path / "b.tif", **part).path) as dataset:
        assert dataset.tags(1) == (found if kept else {"sensor": "x"})
        assert dataset.tags(1, ns="LAB") == {"STATISTICS_MEAN": "8"}


@pytest.mark.parametrize(
    ("bounds", "window"),
    [
        ((5e5 + 640, 4e6 - 700, 5e5 + 900, 4e6 - 100), (10, 64, 60, 26)),  # the borders of pixels
        ((5e5 + 641, 4e6 - 699, 5e5 + 899, 4e6 - 101), (10, 64, 60, 26)),  # whatever they touch
        ((0.0, 0.0, 5e5 + 5, 9e9), (0, 0, 150, 1)),  # as much of it as there is
    ],
)
def test_bounds(bounds: tuple[float, ...], window: tuple[int, ...], scene: Path, tmp_path: Path) -> None:
    part = decompress_raster(scene, tmp_path / "part.tif", bounds=bounds).path
    expected = decompress_raster(scene, tmp_path / "window.tif", window=window).path
    assert same(part, expected)
    assert description(part) == description(expected)


def test_bounds_elsewhere(scene: Path) -> None:
    with pytest.raises(UsageError, match=r"does not touch \(0, 0, 1, 1\): .* covers \(500000.0, .*, 4000000.0\)"):
        decompress_raster(scene, bounds=(0, 0, 1, 1))
    assert files(scene.parent) == [scene.name]


@pytest.mark.parametrize("bands", [(1,), (4,), (5, 2), (3, 2, 1), (2, 2)])
def test_bands(bands: tuple[int, ...], scene: Path) -> None:
    path = decompress_raster(scene, bands=bands).path
    chosen = [band - 1 for band in bands]
    np.testing.assert_array_equal(pixels_of(path), pixels()[chosen])
    with opened(path) as dataset:
        assert dataset.descriptions == tuple(DECODABLE.bands[band].description for band in chosen)


def test_bands_and_window_of_a_real_scene(tiny: Path, tmp_path: Path) -> None:
    source = compress_raster(CHIAPAS, tmp_path / "a.ltchm").path
    whole = pixels_of(decompress_raster(source, tmp_path / "whole.tif").path)
    part = decompress_raster(source, tmp_path / "part.tif", bands=[8, 2], window=(9, 8, 30, 20)).path
    np.testing.assert_array_equal(pixels_of(part), whole[[7, 1], 9:39, 8:28])
    with opened(CHIAPAS) as dataset:
        assert description(part)["descriptions"] == (dataset.descriptions[7], dataset.descriptions[1])


def test_only_needed_tiles_are_decoded(scene: Path, touched: list[tuple[str, TileIndex]]) -> None:
    decompress_raster(scene, window=(70, 70, 10, 10), bands=[5])
    assert touched == [("g1", (1, 1))]


def test_tiles_are_listed_shard_by_shard(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scene may claim to have more than there is memory for."""
    most, original = [0], TileGrid.covering

    def noted(self: TileGrid, box: PixelBox) -> list[TileIndex]:
        found = original(self, box)
        most.append(len(found))
        return found

    monkeypatch.setattr(TileGrid, "covering", noted)
    seen: list[tuple[int, int]] = []
    path = decompress_raster(scene, progress=lambda done, total: seen.append((done, total))).path
    np.testing.assert_array_equal(pixels_of(path), pixels())
    assert max(most) == DECODABLE.shard**2
    assert seen[-1] == (12, 12)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [[0, 1, 2], [4], [3]]),  # by band group, then alpha
        ({"bands": [5, 1, 4, 3, 1]}, [[0, 2, 0], [4], [3]]),
        ({"bands": [5, 1, 4]}, [[4, 0, 3]]),  # so few lie in one block
        ({"options": {"INTERLEAVE": "PIXEL"}}, [[0, 1, 2, 3, 4]]),
        ({"bands": [5, 1], "options": {"interleave": "band"}}, [[0], [4]]),
    ],
    ids=str,
)
def test_bands_that_are_held_at_once(
    options: dict[str, Any], expected: list[list[int]], scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    read = scene_decoder.SceneDecoder.read

    def noted(self: Any, box: Any, bands: Any, pyramid: int) -> Any:
        seen.append(list(bands))
        return read(self, box, bands, pyramid)

    monkeypatch.setattr(scene_decoder.SceneDecoder, "read", noted)
    path = decompress_raster(scene, workers=1, **options).path
    chosen = [band - 1 for band in options.get("bands", range(1, 6))]
    np.testing.assert_array_equal(pixels_of(path), pixels()[chosen])
    assert seen == 4 * expected


def test_creation_options(scene: Path) -> None:
    options = {"COMPRESS": "ZSTD", "blockxsize": "64", "BLOCKYSIZE": "32"}
    with opened(decompress_raster(scene, options=options).path) as dataset:
        assert (dataset.compression.name, dataset.block_shapes[0]) == ("zstd", (32, 64))


@pytest.mark.parametrize(
    "options",
    [
        {"window": (0, 0, 151, 1)},
        {"window": (-1, 0, 5, 5)},
        {"window": (0, 0, 0, 5)},
        {"window": (0, 0, 5)},
        {"window": "abcd"},
        {"window": (0.5, 0, 3, 3)},
        {"window": 5},
        {"window": (0, 0, 5, 5), "bounds": (0, 0, 1, 1)},
        {"bounds": (0, 0, 1)},
        {"bounds": (1, 0, 0, 1)},
        {"bounds": (0, 0, float("inf"), 1)},
        {"bounds": "abcd"},
        {"bounds": 5},
        {"bands": []},
        {"bands": [0]},
        {"bands": [6]},
        {"bands": "12"},
        {"bands": [1.0]},
        {"bands": 1.5},
        {"options": {"FOO": "1"}},
        {"options": {"COMPRESS": "nonsense"}},
        {"options": {"count": "1"}},
        {"options": {"NUM_THREADS": "4"}},
        {"level": 1},
        {"workers": 99},
    ],
    ids=str,
)
def test_bad_options(options: dict[str, Any], scene: Path) -> None:
    with pytest.raises(UsageError):
        decompress_raster(scene, **options)
    assert files(scene.parent) == [scene.name]


# --- damage ----------------------------------------------------------------------------------------------------------


def flip(path: Path, needle: bytes) -> None:
    """Change one byte in the middle of the only place where `needle` stands."""
    data = bytearray(path.read_bytes())
    assert data.count(needle) == 1
    data[data.index(needle) + len(needle) // 2] ^= 0x10
    path.write_bytes(data)


def test_a_damaged_tile_is_named_and_the_rest_restored(coast: Path, tmp_path: Path) -> None:
    compress_raster(COAST, coast, overwrite=True, seamless=False, **SMALL)  # tests/test_seams.py has the other case
    whole = pixels_of(decompress_raster(coast, tmp_path / "whole.tif").path)
    with ContainerReader(coast) as reader:
        payload = reader.tile_payload("g0", TileIndex(1, 1))
    flip(coast, payload)
    with pytest.raises(CorruptTileError, match=r"coast\.ltchm: tile \(1, 1\) of g0") as found:
        decompress_raster(coast)
    assert (found.value.array, found.value.tile) == ("g0", (1, 1))
    assert files(tmp_path) == ["coast.ltchm", "whole.tif"]
    result = decompress_raster(coast, allow_damaged=True)
    assert [(d.array, d.tile) for d in result.damaged] == [("g0", (1, 1))]
    assert result.to_dict()["damaged"][0]["tile"] == (1, 1)
    whole[:, 128:256, 128:256] = 0  # nodata
    np.testing.assert_array_equal(pixels_of(result.path), whole)
    # What does not need the tile does not mind it.
    assert not decompress_raster(coast, window=(0, 0, 128, 300), overwrite=True).damaged


def test_damage_behind_a_sound_checksum(tmp_path: Path) -> None:
    scene = write_decodable(tmp_path / "scene.ltchm", broken=("g0", TileIndex(1, 2)))
    with pytest.raises(CorruptTileError, match=r"scene\.ltchm: tile \(1, 2\) of g0: .*CONSTANT"):
        decompress_raster(scene)
    result = decompress_raster(scene, allow_damaged=True)
    expected = pixels()
    expected[:3, 64:128, 128:192] = np.array([0, 0, 7])[:, None, None]  # the bands' fill values, 0 for none
    np.testing.assert_array_equal(pixels_of(result.path), expected)


@pytest.mark.parametrize("plane", ["alpha", "mask"])
def test_damaged_planes(plane: str, scene: Path) -> None:
    with ContainerReader(scene) as reader:
        stored = reader.tile_payload(plane, TileIndex(2, 3))
    flip(scene, stored)
    with pytest.raises(CorruptTileError, match=rf"tile \(2, 3\) of {plane}"):
        decompress_raster(scene)
    result = decompress_raster(scene, allow_damaged=True)
    assert [(d.array, d.tile) for d in result.damaged] == [(plane, (2, 3))]
    np.testing.assert_array_equal(pixels_of(result.path)[[0, 1, 2, 4]], pixels()[[0, 1, 2, 4]])


def test_missing_weights(coast: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "none").mkdir()
    monkeypatch.setenv("LTCHM_WEIGHTS", str(tmp_path / "none"))
    with pytest.raises(WeightsNotFoundError, match="LTCHM_WEIGHTS"):
        decompress_raster(coast)
    with pytest.raises(WeightsNotFoundError):
        decompress_raster(coast, allow_damaged=True)
    assert not coast.with_suffix(".tif").exists()


# --- destination -----------------------------------------------------------------------------------------------------


def test_destination_is_protected(tiny: Path, tmp_path: Path) -> None:
    original = tmp_path / "scene.tif"
    original.write_bytes(TOKYO.read_bytes())
    scene = compress_raster(original).path
    for overwrite in (False, True):  # the default name is the original's: that has to be said to be replaced
        with pytest.raises(DestinationExistsError, match="made from"):
            decompress_raster(scene, overwrite=overwrite)
    with pytest.raises(DestinationError, match="scene itself"):
        decompress_raster(scene, scene, overwrite=True)
    with pytest.raises(DestinationError, match="folder"):
        decompress_raster(scene, tmp_path / "no" / "a.tif")
    assert original.read_bytes() == TOKYO.read_bytes()
    with pytest.raises(DestinationExistsError, match="--overwrite"):
        decompress_raster(scene, original)
    assert decompress_raster(scene, original, overwrite=True).bytes == original.stat().st_size
    with pytest.raises(DestinationError, match=r"s3://bucket/a\.tif: a GeoTIFF is written to a local disk"):
        decompress_raster(scene, "s3://bucket/a.tif")
    with pytest.raises(UsageError, match="another kind of file"):
        decompress_raster(scene, tmp_path / "a.png")
    assert files(tmp_path) == ["scene.ltchm", "scene.tif"]


def cancelled(done: int, total: int) -> None:
    if done > 2:
        raise KeyboardInterrupt


def test_cancelling_leaves_nothing(coast: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        decompress_raster(coast, progress=cancelled, workers=2)
    assert files(coast.parent) == [coast.name]
    old = coast.with_suffix(".tif")
    old.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        decompress_raster(coast, progress=cancelled, overwrite=True)
    assert old.read_bytes() == b"old"


def test_progress_and_shards_in_work(coast: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, held, most = threading.Lock(), 0, 0
    read = scene_decoder.SceneDecoder.read

    def counted(self: Any, box: Any, bands: Any, pyramid: int) -> Any:
        nonlocal held, most
        assert box.height <= 128
        assert box.width <= 128
        with lock:
            held += 1
            most = max(most, held)
        try:
            return read(self, box, bands, pyramid)
        finally:
            with lock:
                held -= 1

    monkeypatch.setattr(scene_decoder.SceneDecoder, "read", counted)
    seen: list[tuple[int, int]] = []
    decompress_raster(coast, workers=2, progress=lambda *step: seen.append(step))
    assert seen == [(n, 9) for n in range(10)]
    assert most <= 2


@needs_fork
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_in_a_forked_child(coast: Path, tmp_path: Path) -> None:
    """Whatever threads its parent had, it has none of them."""
    here = decompress_raster(coast, tmp_path / "here.tif", workers=2).path

    def restore() -> None:
        decompress_raster(coast, tmp_path / "there.tif", workers=2)

    assert exit_code(restore) == 0
    assert same(here, tmp_path / "there.tif")


def test_no_scene(tmp_path: Path) -> None:
    with pytest.raises(NotAContainerError, match="no such file"):
        decompress_raster(tmp_path / "missing.ltchm")
    with pytest.raises(NotAContainerError):
        decompress_raster(TOKYO, tmp_path / "a.tif")


def test_broken_is_broken() -> None:
    """The helper's damaged tile has a body that no tile of three or one bands can have."""
    assert len(BROKEN) - 4 not in (1, 3)


def test_folder_form_without_network(tmp_path: Path) -> None:
    result = decompress_raster(write_decodable(tmp_path / "scene.zarr"))
    np.testing.assert_array_equal(pixels_of(result.path), pixels())
    assert result.stages.keys() >= {"read", "tiles", "write"}


def test_alpha_scene_has_its_holes(tiny: Path, tmp_path: Path) -> None:
    """Bands alone, without the alpha band, are still restored."""
    scene = compress_raster(DRONE, tmp_path / "a.ltchm").path
    path = decompress_raster(scene, bands=[1, 2, 3]).path
    with opened(path) as dataset:
        assert dataset.count == 3
