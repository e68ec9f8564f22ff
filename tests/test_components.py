"""Many bands as components of each other: smaller, and all that a scene promises still holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasters import CHIAPAS, DATA, FARMLAND, SAR, TOKYO, pixels_of, smooth, write_tif

import ltchm_geo
from ltchm_geo import compress_raster, decompress_raster
from ltchm_geo.bitstream import TileMode, TilePayload
from ltchm_geo.cli.main import cli
from ltchm_geo.components import MAX_COMPONENTS, ComponentTransform, Moments, to_bands, to_channels
from ltchm_geo.container import ContainerReader
from ltchm_geo.engine import Engine, load_engine
from ltchm_geo.errors import CorruptContainerError, CorruptTileError
from ltchm_geo.radiometry import UINT8_MAPPING, mixed_groups
from ltchm_geo.scene_decoder import SceneDecoder
from ltchm_geo.tile_coding import GroupCoding
from ltchm_geo.tile_decoder import check_latents, decode_tiles
from ltchm_geo.tile_encoder import encode_tiles
from ltchm_geo.tiles import CutTile
from ltchm_geo.types import TileIndex

MOUNTAINS = DATA / "mountains_s2_12band_i16.tif"
T = 128


def moments(values: NDArray[Any]) -> Moments:
    found = Moments(len(values))
    found.add(values.reshape(len(values), -1).astype(np.float32))
    return found


def transform_of(values: NDArray[Any]) -> ComponentTransform:
    found = moments(values).transform()
    assert found is not None
    return found


def picture(bands: int, seed: int = 0) -> NDArray[np.uint8]:
    """Bands that have much in common, rough enough that exact coding never wins."""
    rng = np.random.default_rng(seed)
    common, own = rng.uniform(0, 120, (1, T, T)), rng.uniform(0, 30, (bands, T, T))
    return (smooth(bands, T, T, "float64", 10, 90) + common + own).astype(np.uint8)


def coding(pixels: NDArray[Any], transform: ComponentTransform | None, **options: Any) -> GroupCoding:
    count = len(pixels)
    return GroupCoding(
        pixels.dtype, (UINT8_MAPPING,) * count, (0,) * count, (None,) * count, transform=transform, **options
    )


@pytest.fixture
def engine(tiny: object) -> Engine:
    return load_engine(device="cpu")


# --- the transform ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
def test_planes_come_back_from_the_channels(count: int) -> None:
    values = np.random.default_rng(0).random((count, 4, 4), np.float32)
    channels = to_channels(values)
    assert channels.shape == (3, 4, 4)
    np.testing.assert_allclose(to_bands(channels, count), values, rtol=1e-6)


@settings(deadline=None)
@given(st.integers(4, MAX_COMPONENTS), st.integers(0, 10**6))
def test_bands_come_back_from_their_planes(bands: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.clip(rng.random((bands, bands)) @ rng.random((bands, 400)) / bands, 0, 1).reshape(bands, 20, 20)
    transform = transform_of(values)
    planes = transform.planes(values.astype(np.float32))
    assert [len(part) for part in planes] == list(transform.passes)
    np.testing.assert_allclose(transform.bands(planes), values, atol=1e-5)
    # An error of the planes is as large in the bands: nothing is amplified.
    matrix = np.array(transform.matrix) / 1024
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(bands), atol=0.02)
    # What the bands share is in the first plane.
    assert planes[0].var() >= 0.99 * values.var(axis=(1, 2)).max()
    assert ComponentTransform.from_dict(transform.to_dict()) == transform


@pytest.mark.parametrize(
    ("bands", "passes"),
    [(2, [1, 1]), (3, [1, 1, 1]), (4, [1, 3]), (5, [1, 1, 3]), (8, [1, 1, 3, 3]), (12, [1, 1, 3, 3, 3, 1])],
)
def test_strong_components_are_coded_by_themselves(bands: int, passes: list[int]) -> None:
    transform = transform_of(np.random.default_rng(1).random((bands, 30, 30)))
    assert list(transform.passes) == passes
    assert [transform.level(number, 60) for number in range(2)] == [35, 35 if passes[1] == 1 else 60]
    assert transform.level(0, 10) == 0


def test_few_bands_that_are_alike_stay_as_they_are() -> None:
    grey = np.random.default_rng(2).random((1, 30, 30)).repeat(3, 0)
    alike = grey + 0.05 * np.random.default_rng(3).random((3, 30, 30))
    for count in (2, 3):
        assert moments(alike[:count]).transform() is None
        assert moments(np.random.default_rng(4).random((count, 30, 30))).transform() is not None
    assert Moments(5).transform() is None


def test_which_bands_go_together() -> None:
    assert mixed_groups(["gray"]) == []
    assert mixed_groups(["red", "green", "blue", "alpha", "undefined"]) == [(0, 1, 2, 4)]
    assert [len(part) for part in mixed_groups(["undefined"] * 40)] == [14, 13, 13]


@pytest.mark.parametrize(
    "change",
    [
        {"passes": [3]},
        {"passes": [1, 4]},
        {"passes": [1, 1, 0, 3]},
        {"passes": "13"},
        {"centre": [0, 0, 0, 5000]},
        {"centre": [0, 0, 0, 0.5]},
        {"centre": [0] * 17},
        {"matrix": [[1, 2, 3, 4]] * 3},
        {"matrix": [[1, 2, 3]] * 4},
        {"matrix": [[10**9, 2, 3, 4]] * 4},
        {"matrix": [[True, 2, 3, 4]] * 4},
        {"matrix": 7},
        {"more": 1},
    ],
)
def test_malformed_transforms(change: dict[str, Any]) -> None:
    plain = transform_of(np.random.default_rng(5).random((4, 30, 30))).to_dict()
    with pytest.raises(ValueError, match=r".+"):
        ComponentTransform.from_dict({**plain, **change})


# --- tiles -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bands", [2, 4, 7])
def test_tiles(bands: int, engine: Engine) -> None:
    pixels = picture(bands)
    valid = np.ones(pixels.shape, bool)
    valid[:, 30:50, 20:60] = False
    how = coding(
        pixels,
        transform_of(pixels / 255) if bands > 3 else ComponentTransform((1, 1), ((724, 724), (724, -724)), (400, 400)),
    )
    tiles = [CutTile(pixels, valid), CutTile(picture(bands, 1), valid)]
    payloads = encode_tiles(tiles, how, engine, 60)
    assert [TilePayload.unpack(data).mode for data in payloads] == [TileMode.COMPONENTS] * 2
    assert payloads == [encode_tiles([tile], how, engine, 60)[0] for tile in tiles]
    assert check_latents(payloads, how, engine, T) == [None, None]
    for (original, _, _), restored in zip(tiles, decode_tiles(payloads, how, engine, T), strict=True):
        assert isinstance(restored, np.ndarray)
        assert (restored.shape, restored.dtype) == (original.shape, original.dtype)
        assert (restored[~valid] == 0).all()


def test_a_pass_that_holds_nothing_takes_no_stream(engine: Engine) -> None:
    pixels = picture(1).repeat(4, 0)
    how = coding(pixels, transform_of(pixels / 255))
    (data,) = encode_tiles([CutTile(pixels, np.ones(pixels.shape, bool))], how, engine, 40)
    assert [bool(stream) for stream in TilePayload.unpack(data).streams(2)] == [True, False]
    (restored,) = decode_tiles([data], how, engine, T)
    assert isinstance(restored, np.ndarray)
    assert np.ptp(restored.astype(int), axis=0).max() <= 3  # but for how the matrix is rounded, alike as they were


def test_exact_where_that_is_smaller(engine: Engine) -> None:
    pixels = np.full((6, T, T), 77, np.uint8)
    pixels[1::2, 100:103, 50:60] = 200
    how = coding(pixels, transform_of(picture(6) / 255))
    (data,) = encode_tiles([CutTile(pixels, np.ones(pixels.shape, bool))], how, engine, 40)
    assert TilePayload.unpack(data).mode in (TileMode.LOSSLESS, TileMode.PREDICTED)
    np.testing.assert_array_equal(decode_tiles([data], how, engine, T)[0], pixels)


def test_damage_stays_in_its_tile(engine: Engine) -> None:
    pixels = picture(5)
    how, plain = coding(pixels, transform_of(pixels / 255)), coding(pixels[:3], None)
    whole = CutTile(pixels, np.ones(pixels.shape, bool))
    (sound,) = encode_tiles([whole], how, engine, 40)
    payload = TilePayload.unpack(sound)
    streams = payload.streams(3)
    hurt = bytearray(streams[1])
    hurt[20] ^= 1
    (latent,) = encode_tiles([CutTile(pixels[:3], whole.valid[:3])], plain, engine, 40)

    def components(*parts: bytes, more: bytes = b"") -> bytes:
        return TilePayload(TileMode.COMPONENTS, 40, body=TilePayload.components_body(parts) + more).pack()

    bad = [
        components(streams[0], bytes(hurt), streams[2]),
        components(*streams[:2]),
        components(*streams, more=b"x"),
        components(*streams)[:-1],
        latent,
    ]
    first, *others = decode_tiles([sound, *bad], how, engine, T)
    assert isinstance(first, np.ndarray)
    assert all(isinstance(found, CorruptTileError) for found in others)
    for other in (plain, coding(pixels, None, max_error=(1.0,) * 5)):
        assert isinstance(decode_tiles([sound], other, engine, T)[0], CorruptTileError)


# --- scenes ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("source", [CHIAPAS, FARMLAND, SAR, MOUNTAINS], ids=lambda path: path.stem)
def test_windows_and_bands_show_what_the_whole_shows(source: Path, tmp_path: Path) -> None:
    scene = compress_raster(source, tmp_path / "a.ltchm", tile_size=T, overviews=(2,), quality=70).path
    assert ltchm_geo.verify(scene, deep=True).ok
    whole = pixels_of(decompress_raster(scene, tmp_path / "a.tif").path)
    with ContainerReader(scene) as reader:
        (group,) = reader.meta.groups
        assert group.transform is not None
        for tile in (TileIndex(*index) for index in np.ndindex(*reader.meta.grid.shape)):
            box = reader.meta.grid.tile_box(tile)
            found = SceneDecoder(reader, "cpu").read(box, [1])
            np.testing.assert_array_equal(found[0], whole[(1, *box.slices)])


@pytest.mark.usefixtures("tiny")
def test_the_old_way_on_demand(tmp_path: Path) -> None:
    scene = tmp_path / "a.ltchm"
    compress_raster(CHIAPAS, scene, decorrelate=False)
    meta = ltchm_geo.info(scene).meta
    assert [(group.bands, group.transform) for group in meta.groups] == [
        ((0, 1, 2), None),
        ((3, 4, 5), None),
        ((6, 7), None),
    ]
    run = CliRunner().invoke(cli, ["compress", str(CHIAPAS), str(tmp_path / "b.ltchm"), "--no-decorrelate"])
    assert run.exit_code == 0, run.output
    assert (tmp_path / "b.ltchm").read_bytes() == scene.read_bytes()


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("options", [{"lossless": True}, {"max_error": 20}])
def test_guarantees_know_no_components(options: dict[str, Any], tmp_path: Path) -> None:
    meta = ltchm_geo.info(compress_raster(CHIAPAS, tmp_path / "a.ltchm", **options).path).meta
    assert all(group.transform is None for group in meta.groups)


@pytest.mark.usefixtures("tiny")
def test_holes_and_outliers_of_single_bands(tmp_path: Path) -> None:
    pixels = smooth(5, 150, 140, "float32", 0, 1) + np.random.default_rng(6).random((5, 150, 140), np.float32)
    pixels[1, 3:50, 4:9], pixels[3, 100, 100], pixels[4, 20, 30] = np.nan, 1e9, np.inf
    source = write_tif(tmp_path / "a.tif", pixels)
    scene = compress_raster(source, tmp_path / "a.ltchm", tile_size=T).path
    restored = pixels_of(decompress_raster(scene, tmp_path / "b.tif").path)
    np.testing.assert_array_equal(np.isnan(restored), np.isnan(pixels))
    assert (restored[3, 100, 100], restored[4, 20, 30]) == (np.float32(1e9), np.inf)


@pytest.mark.usefixtures("tiny")
def test_a_scene_without_a_pixel_that_is_whole(tmp_path: Path) -> None:
    """Then nothing tells how the bands go together."""
    pixels = picture(4)
    pixels[0, :, :64] = pixels[1, :, 64:] = 0
    source = write_tif(tmp_path / "a.tif", pixels, nodata=0)
    scene = compress_raster(source, tmp_path / "a.ltchm", tile_size=T).path
    assert not any(group.transform for group in ltchm_geo.info(scene).meta.groups)
    restored = pixels_of(decompress_raster(scene, tmp_path / "b.tif").path)
    np.testing.assert_array_equal(restored == 0, pixels == 0)


@pytest.mark.parametrize("source", [MOUNTAINS, SAR, FARMLAND, CHIAPAS], ids=lambda path: path.stem)
def test_components_are_smaller_and_better(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the weights that are installed: what the transform is for."""
    monkeypatch.delenv("LTCHM_WEIGHTS", raising=False)

    def figures(decorrelate: bool, quality: int) -> tuple[int, float]:
        result = compress_raster(
            source, tmp_path / "a.ltchm", quality=quality, decorrelate=decorrelate, measure=True, overwrite=True
        )
        psnr = [value for value in result.psnr or () if np.isfinite(value)]
        return result.bytes, float(np.mean(psnr))

    size, psnr = figures(False, 75)
    smaller, better = figures(True, 75)
    assert smaller < size
    assert better > psnr


@pytest.mark.usefixtures("tiny")
def test_natural_colours_are_left_alone(tmp_path: Path) -> None:
    scene = compress_raster(TOKYO, tmp_path / "a.ltchm").path
    assert not any(group.transform for group in ltchm_geo.info(scene).meta.groups)


@pytest.mark.usefixtures("tiny")
def test_a_transform_in_an_older_format_is_refused(tmp_path: Path) -> None:
    with ContainerReader(compress_raster(CHIAPAS, tmp_path / "a.ltchm").path) as reader:
        found = reader.meta.to_dict()
    assert type(reader.meta).from_dict(found) == reader.meta
    for change in ({"format": 2}, {"guarantee": {"max_error": [1.0] * 8, "classes": False}, "halo": 0}):
        with pytest.raises((CorruptContainerError, ltchm_geo.errors.UsageError)):
            type(reader.meta).from_dict({**found, **change})
