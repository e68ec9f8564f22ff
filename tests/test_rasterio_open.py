from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from decodable import DECODABLE, pixels, write_decodable
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.errors import RasterioError, RasterioIOError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from rasters import CHIAPAS, COAST, CROPS, opened, smooth, write_tif
from scenes import MASK
from test_virtual_tiff import GEOREFS

import ltchm_geo
from ltchm_geo import rasterio_door
from ltchm_geo.container import ContainerReader
from ltchm_geo.errors import NotAContainerError, WeightsNotFoundError
from ltchm_geo.georef_rasterio import read_bands, read_georef
from ltchm_geo.scene_decoder import SceneDecoder
from ltchm_geo.types import PixelBox, TileIndex

SHAPE = DECODABLE.shape


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_decodable(tmp_path / "scene.ltchm")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with ltchm_geo.rasterio_open(write_decodable(tmp_path_factory.mktemp("scene") / "a.ltchm")) as found:
        yield found


def assert_same(found: Any, expected: Any) -> None:
    assert (found.shape, found.count, found.dtypes) == (expected.shape, expected.count, expected.dtypes)
    assert read_georef(found) == read_georef(expected)
    assert read_bands(found) == read_bands(expected)
    assert found.mask_flag_enums == expected.mask_flag_enums
    np.testing.assert_array_equal(found.read(), expected.read())
    np.testing.assert_array_equal(found.read_masks(), expected.read_masks())
    np.testing.assert_array_equal(found.dataset_mask(), expected.dataset_mask())


@pytest.mark.parametrize("source", CROPS, ids=lambda path: path.stem)
def test_is_what_decompressing_gives(source: Path, tiny: Path, tmp_path: Path) -> None:
    path = ltchm_geo.compress_raster(source, tmp_path / "a.zarr", tile_size=128, shard_tiles=1).path
    expected = ltchm_geo.decompress_raster(path, tmp_path / "a.tif").path
    with ltchm_geo.rasterio_open(path) as found, opened(expected) as restored:
        assert_same(found, restored)


@pytest.mark.parametrize("name", ["points", "rotated pole"])
def test_control_points_and_side_car(name: str, tmp_path: Path) -> None:
    path = write_decodable(tmp_path / "a.ltchm", meta=replace(DECODABLE, georef=GEOREFS[name]))
    with (
        ltchm_geo.rasterio_open(path) as found,
        opened(ltchm_geo.decompress_raster(path).path) as restored,
    ):
        assert_same(found, restored)
        np.testing.assert_array_equal(found.dataset_mask() != 0, MASK)


def test_overviews(tiny: Path, tmp_path: Path) -> None:
    path = ltchm_geo.compress_raster(CHIAPAS, tmp_path / "a.ltchm", tile_size=128, overviews=(2, 4)).path
    with ltchm_geo.rasterio_open(path) as found:
        assert found.overviews(1) == [2, 4]
        for level, shape in ((1, (48, 50)), (2, (24, 25))):
            with opened(ltchm_geo.decompress_raster(path, tmp_path / f"{level}.tif", level=level).path) as restored:
                np.testing.assert_array_equal(found.read(out_shape=(8, *shape)), restored.read())


def test_only_the_overview_is_decoded(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_tif(tmp_path / "a.tif", smooth(1, 512, 512))
    path = ltchm_geo.compress_raster(source, tile_size=128, overviews=(2, 4)).path
    levels: list[int] = []
    original = SceneDecoder.read_group

    def noted(self: SceneDecoder, group: Any, box: Any, pyramid: int = 0) -> Any:
        levels.append(pyramid)
        return original(self, group, box, pyramid)

    monkeypatch.setattr(SceneDecoder, "read_group", noted)
    with ltchm_geo.rasterio_open(path) as found:
        for shape, level in (((128, 128), 2), ((200, 200), 1), ((256, 256), 1), ((400, 400), 0), ((600, 600), 0)):
            found.read(1, out_shape=shape)
            assert levels.pop(0) == level
            assert levels == []  # all of it at once
            found._virtual.close()


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_window(data: st.DataObject, dataset: Any) -> None:
    row, column = data.draw(st.integers(0, SHAPE.y - 1)), data.draw(st.integers(0, SHAPE.x - 1))
    height, width = data.draw(st.integers(1, SHAPE.y - row)), data.draw(st.integers(1, SHAPE.x - column))
    bands = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    found = dataset.read(bands, window=Window(column, row, width, height))
    expected = pixels()[np.array(bands) - 1, row : row + height, column : column + width]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # rasterio 1.4 with affine 3
def test_ways_to_read(dataset: Any) -> None:
    whole = pixels()
    np.testing.assert_array_equal(dataset.read(2, window=((10, 20), (30, 50))), whole[1, 10:20, 30:50])
    out = np.zeros((2, 150, 220), np.uint8)
    dataset.read([1, 5], out=out)
    np.testing.assert_array_equal(out, whole[[0, 4]])
    np.testing.assert_array_equal(dataset.read([3], None, Window(0, 0, 5, 6)), whole[2:3, :6, :5])
    beyond = dataset.read(1, window=Window(-10, -20, 30, 40), boundless=True, fill_value=99)
    np.testing.assert_array_equal(beyond[20:, 10:], whole[0, :20, :20])
    assert (beyond[:20] == 99).all()
    masked = dataset.read(1, masked=True)
    np.testing.assert_array_equal(masked.mask, ~MASK)
    point = next(dataset.sample([(5e5 + 10 * 100.5, 4e6 - 10 * 70.5)]))
    np.testing.assert_array_equal(point, whole[:, 70, 100])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"indexes": 6}, IndexError),
        ({"indexes": 0}, IndexError),
    ],
)
def test_what_rasterio_refuses_is_still_refused(
    arguments: dict[str, Any], error: type[Exception], dataset: Any
) -> None:
    with pytest.raises(error):
        dataset.read(**arguments)


def test_positional_windows(tmp_path: Path, touched: list[Any]) -> None:
    """They decode what they need: a damaged tile elsewhere matters to nobody."""
    path = write_decodable(tmp_path / "a.ltchm", broken=("g0", TileIndex(2, 3)))
    with ltchm_geo.rasterio_open(path) as found:
        touched.clear()
        part = found.read(1, None, Window(0, 0, 64, 64))
        np.testing.assert_array_equal(part, pixels()[0, :64, :64])
        assert touched == [("g0", (0, 0))]
        masked = found.read(1, None, Window(0, 0, 64, 64), True, (32, 32), rasterio.enums.Resampling.nearest)
        assert masked.mask.shape == (32, 32)


def test_preparing_tells_of_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a guess at what reading will need."""
    path = write_decodable(tmp_path / "a.ltchm", broken=("g0", TileIndex(2, 3)))
    with ltchm_geo.rasterio_open(path) as found:
        prepare = found._virtual.prepare
        whole = PixelBox(0, 0, *SHAPE)
        monkeypatch.setattr(found._virtual, "prepare", lambda level, _, bands: prepare(level, whole, bands))
        np.testing.assert_array_equal(found.read(1, window=Window(0, 0, 64, 64)), pixels()[0, :64, :64])


def test_a_window_outside(dataset: Any) -> None:
    assert dataset.read(1, window=Window(500, 500, 10, 10)).size == 0  # as of any rasterio dataset


def test_warping(scene: Path) -> None:
    with opened(ltchm_geo.decompress_raster(scene).path) as restored, ltchm_geo.rasterio_open(scene) as found:
        warped = []
        for source in (restored, found):
            with WarpedVRT(source, src_crs="EPSG:32631", crs="EPSG:3857") as vrt:
                warped.append(vrt.read())
        np.testing.assert_array_equal(*warped)


def test_a_rasterio_dataset_of_the_scene(scene: Path) -> None:
    with ltchm_geo.rasterio_open(scene) as found:
        assert isinstance(found, rasterio.DatasetReader)
        assert Path(found.name).name == "scene.tif"
        assert (found.mode, found.driver, found.closed) == ("r", "GTiff", False)
    assert found.closed
    found.close()
    with pytest.raises(RasterioIOError, match="closed"):
        found.read(1)


def test_threads_with_a_dataset_each(scene: Path) -> None:
    def read(_: int) -> bool:
        with ltchm_geo.rasterio_open(scene) as found:
            return bool(np.array_equal(found.read(), pixels()))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(24)))


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
def test_opened_here_read_there_closed_elsewhere(scene: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = ltchm_geo.rasterio_open(scene)
    beyond = Window(-10, -10, 240, 170)

    def read() -> tuple[Any, ...]:
        return found.read(), found.read_masks(1), found.read(1, window=beyond, boundless=True, masked=True)

    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        whole, mask, framed = one.submit(read).result()
        other.submit(found.close).result()
    np.testing.assert_array_equal(whole, pixels())
    np.testing.assert_array_equal(mask != 0, MASK)
    np.testing.assert_array_equal(framed.data[10:160, 10:230], pixels()[0])
    assert found.closed
    assert capfd.readouterr().err == ""


def test_threads_that_share_a_dataset(dataset: Any) -> None:
    def read(number: int) -> bool:
        window = Window(10 * number, 5 * number, 70, 60)
        return bool(
            np.array_equal(dataset.read(window=window), pixels()[:, window.toslices()[0], window.toslices()[1]])
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, [number % 15 for number in range(60)]))


def test_forgotten_datasets_close_themselves(scene: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def forget() -> None:
        ltchm_geo.rasterio_open(scene).read(1)

    threads = [threading.Thread(target=forget) for _ in range(3)]
    for thread in threads:
        thread.start()
        thread.join()
    forget()
    gc.collect()
    assert capfd.readouterr().err == ""


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_damaged_tile(tmp_path: Path) -> None:
    path = write_decodable(tmp_path / "a.ltchm", broken=("g0", TileIndex(1, 1)))
    with ltchm_geo.rasterio_open(path) as found:
        with pytest.raises(RasterioIOError, match=r"tile \(1, 1\) of g0") as caught:
            found.read()
        assert isinstance(caught.value, OSError)
        np.testing.assert_array_equal(found.read(5), pixels()[4])
        np.testing.assert_array_equal(found.read(1, window=Window(0, 0, 64, 150)), pixels()[0, :, :64])


def test_a_damaged_tile_that_may_be(tmp_path: Path) -> None:
    path = write_decodable(tmp_path / "a.ltchm", broken=("g0", TileIndex(1, 1)))
    expected = pixels()
    expected[:3, 64:128, 64:128] = np.array([0, 0, 7])[:, None, None]
    with ltchm_geo.rasterio_open(path, allow_damaged=True) as found:
        np.testing.assert_array_equal(found.read(), expected)
    with ltchm_geo.open(path, allow_damaged=True) as dataset:
        np.testing.assert_array_equal(dataset.band_data, expected)


def test_a_damaged_tile_on_ways_we_do_not_see(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_decodable(tmp_path / "a.ltchm", broken=("g0", TileIndex(1, 1)))
    with ltchm_geo.rasterio_open(path) as found, WarpedVRT(found, src_crs="EPSG:32631", crs="EPSG:3857") as vrt:
        with pytest.raises(RasterioError):
            vrt.read(1)
        assert "tile (1, 1) of g0" in caplog.text
    with pytest.raises(RasterioIOError, match=r"tile \(1, 1\)"), ltchm_geo.rasterio_open(path, cache_bytes=1) as found:
        found.read(1)  # nothing is decoded ahead into so small a cache


def test_a_failure_is_not_told_of_another_call(tmp_path: Path) -> None:
    path = write_decodable(tmp_path / "a.ltchm", broken=("g0", TileIndex(1, 1)))
    found = ltchm_geo.rasterio_open(path)
    with (
        WarpedVRT(found, src_crs="EPSG:32631", crs="EPSG:3857") as vrt,
        pytest.raises(RasterioError),
    ):
        vrt.read(1)
    found.close()
    with pytest.raises(RasterioIOError, match="closed"):
        found.read(1)


def test_a_damaged_mask(tmp_path: Path) -> None:
    path = write_decodable(tmp_path / "a.zarr")
    shard = path / DECODABLE.shard_key("mask", TileIndex(0, 0))
    shard.write_bytes(b"\xff" + shard.read_bytes()[1:])
    with ltchm_geo.rasterio_open(path) as found:
        for _ in range(2):
            with pytest.raises(RasterioIOError, match=r"tile \(0, 0\) of mask"):
                found.read_masks(1)
        np.testing.assert_array_equal(found.read(5), pixels()[4])


def test_no_scene(tmp_path: Path) -> None:
    with pytest.raises(NotAContainerError):
        ltchm_geo.rasterio_open(COAST)
    with pytest.raises(NotAContainerError, match="no such file"):
        ltchm_geo.rasterio_open(tmp_path / "a.ltchm")


def test_missing_weights_are_told_on_opening(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ltchm_geo.compress_raster(COAST, tmp_path / "a.ltchm").path
    monkeypatch.setenv("LTCHM_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsNotFoundError):
        ltchm_geo.rasterio_open(path)


def test_files_are_closed_when_opening_fails(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[ContainerReader] = []
    original = ContainerReader.close

    def noted(self: ContainerReader) -> None:
        closed.append(self)
        original(self)

    monkeypatch.setattr(ContainerReader, "close", noted)
    monkeypatch.setattr(rasterio_door, "quiet_open", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ltchm_geo.rasterio_open(scene)
    assert len(closed) == 1
