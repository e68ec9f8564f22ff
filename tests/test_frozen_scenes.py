"""Scenes written by earlier releases, with the weights that are installed, decode to what they did."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rasters import CHIAPAS, DRONE, SAR, description, pixels_of

import ltchm_geo
from ltchm_geo import decompress_raster
from ltchm_geo.bitstream import TileMode, TilePayload
from ltchm_geo.container import ContainerReader
from ltchm_geo.pyramid import Overview
from ltchm_geo.types import TileIndex

VECTORS = Path(__file__).parent / "vectors"


def psnr_of(source: Path, restored: Path) -> list[float]:
    """PSNR of each colour band."""
    return [band.psnr for band in ltchm_geo.compare_rasters(source, restored).bands if not np.isinf(band.psnr)]


@pytest.mark.parametrize(
    ("name", "source", "psnr"),
    [("drone.ltchm", DRONE, (24.748, 24.482, 24.897)), ("sar.zarr", SAR, (20.535, 22.113))],
)
def test_scenes_of_version_0(name: str, source: Path, psnr: tuple[float, ...], tmp_path: Path) -> None:
    """Written before there were overviews."""
    path = VECTORS / "scene_v0" / name
    assert ltchm_geo.verify(path, deep=True).ok
    found = ltchm_geo.info(path).meta
    assert (found.overviews, list(found.pyramid), found.halo, found.guarantee) == ((), [0], 0, None)
    restored = decompress_raster(path, tmp_path / "a.tif").path
    assert description(restored) == description(source)
    assert psnr_of(source, restored) == pytest.approx(psnr, abs=0.01)
    if source == DRONE:
        np.testing.assert_array_equal(pixels_of(restored)[3], pixels_of(source)[3])


def test_a_scene_of_version_0_has_no_overviews() -> None:
    with ContainerReader(VECTORS / "scene_v0" / "drone.ltchm") as reader:
        document = replace(reader.meta, overviews=(Overview(2, 0),)).to_dict()
    document["format"] = 0
    with pytest.raises(ltchm_geo.errors.CorruptContainerError, match=r"unknown keys: .*overviews"):
        type(reader.meta).from_dict(document)


def modes(path: Path) -> list[TileMode]:
    """Of the tiles of the only band group."""
    with ContainerReader(path) as reader:
        tiles = [TileIndex(*index) for index in np.ndindex(*reader.meta.grid.shape)]
        return [TilePayload.unpack(reader.tile_payload("g0", tile)).mode for tile in tiles]


def test_neighbouring_latents_of_version_2(tmp_path: Path) -> None:
    path = VECTORS / "scene_v2" / "drone.ltchm"
    assert ltchm_geo.verify(path, deep=True).ok
    assert (ltchm_geo.info(path).meta.halo, modes(path)) == (1, [TileMode.LATENT] * 4)
    restored = decompress_raster(path, tmp_path / "a.tif").path
    assert psnr_of(DRONE, restored) == pytest.approx((24.545, 24.273, 24.726), abs=0.01)


def test_bounded_errors_of_version_2(tmp_path: Path) -> None:
    path = VECTORS / "scene_v2" / "drone-within-20.ltchm"
    assert ltchm_geo.verify(path, deep=True).ok
    assert {TileMode.CORRECTED, TileMode.PREDICTED} == set(modes(path))
    restored = decompress_raster(path, tmp_path / "a.tif").path
    assert description(restored) == description(DRONE)
    found, expected = pixels_of(restored).astype(int), pixels_of(DRONE).astype(int)
    np.testing.assert_array_equal(found[3], expected[3])
    assert np.abs(found - expected)[:, expected[3] > 0].max() == 20


def test_components_and_extents_of_version_3(tmp_path: Path) -> None:
    path = VECTORS / "scene_v3" / "chiapas.ltchm"
    assert ltchm_geo.verify(path, deep=True).ok
    with ContainerReader(path) as reader:
        payload = TilePayload.unpack(reader.tile_payload("g0", TileIndex(0, 0)))
    assert (payload.mode, payload.extent) == (TileMode.COMPONENTS, (6, 7))
    restored = decompress_raster(path, tmp_path / "a.tif").path
    assert description(restored) == description(CHIAPAS)
    expected = (31.019, 31.469, 30.744, 26.261, 26.956, 28.995, 29.592)
    assert psnr_of(CHIAPAS, restored) == pytest.approx(expected, abs=0.01)


def test_seamless_extents_of_version_3(tmp_path: Path) -> None:
    path = VECTORS / "scene_v3" / "drone.ltchm"
    assert ltchm_geo.verify(path, deep=True).ok
    assert (ltchm_geo.info(path).meta.halo, modes(path)) == (1, [TileMode.LATENT] * 4)
    with ContainerReader(path) as reader:
        payloads = [TilePayload.unpack(reader.tile_payload("g0", TileIndex(*i))) for i in np.ndindex(2, 2)]
    assert [payload.extent for payload in payloads] == [None, (8, 3), (5, 8), (5, 3)]
    restored = decompress_raster(path, tmp_path / "a.tif").path
    assert psnr_of(DRONE, restored) == pytest.approx((24.113, 23.732, 24.495), abs=0.01)


@pytest.mark.parametrize(
    ("name", "source", "psnr"),
    [
        ("drone.ltchm", DRONE, (24.737, 24.335, 25.092)),
        ("chiapas.zarr", CHIAPAS, (29.853, 30.12, 29.399, 25.072, 25.803, 27.939, 28.8)),
    ],
)
def test_short_descriptions_of_version_4(name: str, source: Path, psnr: tuple[float, ...], tmp_path: Path) -> None:
    """Without what has its default, and as a single file without a manifest."""
    path = VECTORS / "scene_v4" / name
    assert ltchm_geo.verify(path, deep=True).ok
    restored = decompress_raster(path, tmp_path / "a.tif").path
    assert description(restored) == description(source)
    assert psnr_of(source, restored) == pytest.approx(psnr, abs=0.01)
