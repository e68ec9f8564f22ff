from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
from decodable import DECODABLE, pixels, write_decodable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasters import CHIAPAS, COAST, CROPS, SAR, description, masks_of, opened, pixels_of, smooth, write_tif
from scenes import MASK

import ltchm_geo
from ltchm_geo.container import ContainerReader
from ltchm_geo.errors import CorruptTileError, UsageError
from ltchm_geo.georef import RPC_SCALARS, RPC_VECTORS, Georef
from ltchm_geo.scene_decoder import SceneDecoder
from ltchm_geo.tile_cache import TileCache
from ltchm_geo.tiles import TileGrid
from ltchm_geo.types import PixelBox, Shape2d, TileIndex
from ltchm_geo.virtual_tiff import VirtualTiff
from ltchm_geo.virtual_tiff_layout import Image, Plane, pack_head, plan_images
from ltchm_geo.virtual_tiff_tags import Tag, directory_size, pack_directory, scene_template


@contextmanager
def virtual(path: Path) -> Iterator[VirtualTiff]:
    with ContainerReader(path) as reader:
        yield VirtualTiff(SceneDecoder(reader))


def written(path: Path) -> Path:
    """The virtual file of a scene, as a real one."""
    target = path.with_suffix(".virtual.tif")
    with virtual(path) as file:
        target.write_bytes(file.read(0, file.size))
        if file.aux_xml is not None:
            target.with_name(target.name + ".aux.xml").write_bytes(file.aux_xml)
    return target


def assert_as_decompressed(path: Path) -> None:
    found, expected = written(path), ltchm_geo.decompress_raster(path, path.with_suffix(".tif")).path
    assert description(found) == description(expected)
    np.testing.assert_array_equal(pixels_of(found), pixels_of(expected))
    np.testing.assert_array_equal(masks_of(found), masks_of(expected))


@pytest.mark.parametrize("source", CROPS, ids=lambda path: path.stem)
def test_is_what_decompressing_gives(source: Path, tiny: Path, tmp_path: Path) -> None:
    path = ltchm_geo.compress_raster(source, tmp_path / "a.ltchm", tile_size=128, shard_tiles=2).path
    assert_as_decompressed(path)


def test_alpha_between_bands_and_a_mask(tmp_path: Path) -> None:
    path = write_decodable(tmp_path / "a.ltchm")
    assert_as_decompressed(path)
    with opened(written(path)) as dataset:
        np.testing.assert_array_equal(dataset.read(), pixels())
        np.testing.assert_array_equal(dataset.read_masks(1) != 0, MASK)


_NUMBERS = [1.0] + [0.001 * i for i in range(19)]
_POINTS = [(0, 0, 10.0, 50.0), (0, 220, 11.0, 50.0), (150, 0, 10.0, 49.0), (150, 220, 11.0, 49.0)]
_WGS84 = CRS.from_epsg(4326).to_wkt()
_ROTATED_POLE = CRS.from_proj4(
    "+proj=ob_tran +o_proj=longlat +o_lat_p=39 +lon_0=18 +to_meter=0.0174533 +R=6371229"
).to_wkt(version="WKT2_2019")
GEOREFS = {
    "points": Georef(
        gcps=tuple(
            {"row": r, "col": c, "x": x, "y": y, "z": 0.0, "id": str(i), "info": ""}
            for i, (r, c, x, y) in enumerate(_POINTS)
        ),
        gcps_crs=_WGS84,
    ),
    "rpcs": Georef(rpcs=dict.fromkeys(RPC_SCALARS, 5.0) | dict.fromkeys(RPC_VECTORS, _NUMBERS)),
    "rotated": Georef(crs=_WGS84, transform=(0.1, 0.02, 7, 0.02, -0.1, 50), tags={"": {"AREA_OR_POINT": "Point"}}),
    "tags": Georef(crs=_WGS84, transform=(0.1, 0, 7, 0, -0.1, 50), tags={"": {"ä": "ö"}, "SPACE": {"a": "<&>"}}),
    "long tags": Georef(tags={"": {"HISTORY": "long " * 10_000}}),
    # Which only a side-car file can hold.
    "rotated pole": Georef(crs=_ROTATED_POLE, transform=(0.1, 0, 7, 0, -0.1, 50)),
}


@pytest.mark.parametrize("georef", GEOREFS.values(), ids=GEOREFS)
def test_everything_a_raster_knows(georef: Georef, tmp_path: Path) -> None:
    bands = tuple(
        replace(band, scale=0.1 * i + 0.1, offset=float(i), unit="K", tags={"": {"wavelength": f"{i}"}}, nodata=0)
        for i, band in enumerate(DECODABLE.bands)
    )
    path = write_decodable(tmp_path / "a.ltchm", meta=replace(DECODABLE, georef=georef, bands=bands))
    assert_as_decompressed(path)
    with virtual(path) as file:
        assert (file.aux_xml is not None) == (georef is GEOREFS["rotated pole"])


@pytest.mark.parametrize("source", [COAST, SAR], ids=lambda path: path.stem)
def test_overviews(source: Path, tiny: Path, tmp_path: Path) -> None:
    path = ltchm_geo.compress_raster(source, tmp_path / "a.ltchm", tile_size=128, overviews=(2, 4)).path
    with opened(written(path)) as dataset:
        assert [dataset.overviews(band) for band in dataset.indexes] == [[2, 4]] * dataset.count
    for level in (1, 2):
        expected = ltchm_geo.decompress_raster(path, tmp_path / f"{level}.tif", level=level).path
        with rasterio.open(written(path), overview_level=level - 1) as dataset:
            np.testing.assert_array_equal(dataset.read(), pixels_of(expected))
            valid = (dataset.read_masks() != 0) & ~np.isnan(dataset.read())
            np.testing.assert_array_equal(valid, masks_of(expected))


def test_masks_have_overviews(tiny: Path, tmp_path: Path) -> None:
    source = write_tif(tmp_path / "a.tif", smooth(2, 200, 300), mask=smooth(1, 200, 300)[0] > 60)
    path = ltchm_geo.compress_raster(source, tile_size=128, overviews=(2,)).path
    expected = ltchm_geo.decompress_raster(path, tmp_path / "1.tif", level=1).path
    with rasterio.open(written(path), overview_level=0) as dataset:
        np.testing.assert_array_equal(dataset.read_masks() != 0, masks_of(expected))


@pytest.mark.parametrize(("source", "expected"), [(COAST, "pixel"), (CHIAPAS, "pixel"), (SAR, "pixel")])
def test_bands_that_are_coded_together_lie_together(source: Path, expected: str, tiny: Path, tmp_path: Path) -> None:
    with opened(written(ltchm_geo.compress_raster(source, tmp_path / "a.ltchm").path)) as dataset:
        assert dataset.profile["interleave"] == expected


# --- pieces ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[VirtualTiff, bytes]]:
    with virtual(write_decodable(tmp_path_factory.mktemp("scene") / "a.ltchm")) as file:
        yield file, file.read(0, file.size)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_piece(data: st.DataObject, whole: tuple[VirtualTiff, bytes]) -> None:
    file, content = whole
    assert file.size == len(content)
    offset = data.draw(st.integers(0, file.size + 10))
    length = data.draw(st.one_of(st.integers(0, 50), st.integers(0, 2 * file.size)))
    assert file.read(offset, length) == content[offset : offset + length]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_shape(data: st.DataObject, tmp_path: Path) -> None:
    shape = Shape2d(data.draw(st.integers(1, 300)), data.draw(st.integers(1, 300)))
    meta = replace(DECODABLE, shape=shape, shard=data.draw(st.integers(1, 3)))
    images = plan_images(meta, scene_template(meta, "band"))
    spans = [(0, len(pack_head(images)))]
    for image in images:
        spans.append((image.offsets_at, image.offsets_at + 8 * image.tiles))
        spans.append((image.sizes_at, image.sizes_at + 4 * image.tiles))
        spans.append((image.data_at, image.data_at + image.tiles * image.tile_bytes))
    spans.sort()
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_only_needed_tiles_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, TileIndex]] = []
    original = ContainerReader.tile_payload

    def noted(self: ContainerReader, array: str, tile: TileIndex, *level: int) -> bytes:
        seen.append((array, tile))
        return original(self, array, tile, *level)

    monkeypatch.setattr(ContainerReader, "tile_payload", noted)
    with virtual(write_decodable(tmp_path / "a.ltchm")) as file:
        start = next(image.data_at for image in file._images if not image.is_mask)
        file.read(0, start)
        assert seen == []
        second = 12 * 4096  # tiles of the first band
        file.read(start + second + 2 * 4096 + 5, 4096)
        assert seen == [("g0", (0, 2)), ("g0", (0, 3))]
        file.read(start + 2 * 4096, 4096)
        assert len(seen) == 2


def test_a_damaged_tile_is_an_error(tmp_path: Path) -> None:
    with virtual(write_decodable(tmp_path / "a.ltchm", broken=("g0", TileIndex(1, 1)))) as file:
        start = next(image.data_at for image in file._images if not image.is_mask)
        with pytest.raises(CorruptTileError, match=r"tile \(1, 1\) of g0"):
            file.read(start, file.size)
        assert len(file.read(start, 4096)) == 4096


# --- very large ------------------------------------------------------------------------------------------------------


def test_arrays_of_a_giant_scene_are_never_made() -> None:
    grid = TileGrid(Shape2d(2**22, 2**22), 64, 64)
    image = Image(0, grid, ((Plane("g0", 0),),) * 1000, (), 64 * 64 * 8, data_at=2**50)
    assert image.tiles == 2**32 * 1000
    assert len(pack_head([image])) < 300
    last = image.tiles - 1
    assert image.offsets(last, last + 1) == (2**50 + last * 2**15).to_bytes(8, "little")
    assert image.locate(last) == ((2**16 - 1, 2**16 - 1), (("g0", 0),))


def test_what_is_too_much_to_prepare_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ContainerReader(write_decodable(tmp_path / "a.ltchm")) as reader:
        file = VirtualTiff(SceneDecoder(reader), TileCache(1000))
        monkeypatch.setattr(TileGrid, "covering", lambda *_: pytest.fail("listed"))
        file.prepare(0, PixelBox(0, 0, *DECODABLE.shape), [0])


def test_a_scene_too_large_to_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltchm_geo.virtual_tiff._MAX_SIZE", 1000)
    path = write_decodable(tmp_path / "a.ltchm")
    with pytest.raises(UsageError, match="more than programs can address"), virtual(path):
        pass


def test_directories_are_sorted_and_aligned() -> None:
    tags = [Tag.numbers(300, *range(5)), Tag.numbers(256, 7), Tag(299, 2, 3, b"ab\0")]
    packed = pack_directory(tags, 16, 99)
    assert len(packed) == directory_size(tags) == 16 + 3 * 20 + 24
    assert [int.from_bytes(packed[8 + 20 * i :][:2], "little") for i in range(3)] == [256, 299, 300]
    assert int.from_bytes(packed[8 + 60 :][:8], "little") == 99
    assert packed[-24:] == np.arange(5, dtype="<u4").tobytes() + bytes(4)
