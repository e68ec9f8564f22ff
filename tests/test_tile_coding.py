from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasters import smooth

from ltchm_geo._json import encode_number
from ltchm_geo.bitstream import TileMode, TilePayload
from ltchm_geo.engine import Engine, load_engine
from ltchm_geo.errors import CorruptContainerError, CorruptTileError, DesynchronisedError, WeightsNotFoundError
from ltchm_geo.masks import encode_mask
from ltchm_geo.radiometry import UINT8_MAPPING, BandMapping
from ltchm_geo.tile_coding import GroupCoding
from ltchm_geo.tile_decoder import check_latents, decode_for_zarr, decode_tiles, tile_validity
from ltchm_geo.tile_encoder import encode_tiles
from ltchm_geo.tiles import CutTile, pad_tile
from ltchm_geo.types import Shape2d

T = 128
LEVEL = 56
NAN = float("nan")
Pixels = NDArray[Any]


@pytest.fixture
def engine(tiny: object) -> Engine:
    return load_engine(device="cpu")


def coding(
    bands: int = 3, dtype: str = "uint8", fill: Any = None, nodata: Any = None, mapping: BandMapping = UINT8_MAPPING
) -> GroupCoding:
    return GroupCoding(np.dtype(dtype), (mapping,) * bands, (fill,) * bands, (nodata,) * bands)


def picture(bands: int = 3, dtype: str = "uint8", low: float = 10, high: float = 240, seed: int = 0) -> Pixels:
    """Rough enough that exact coding never wins."""
    noise = np.random.default_rng(seed).uniform(0, (high - low) / 2, (bands, T, T))
    return (smooth(bands, T, T, "float64", low, (low + high) / 2) + noise).astype(dtype)


def everywhere(pixels: Pixels) -> NDArray[np.bool_]:
    return np.ones(pixels.shape, bool)


def modes(payloads: Sequence[bytes]) -> list[TileMode]:
    return [TilePayload.unpack(data).mode for data in payloads]


def through(pixels: Pixels, valid: NDArray[np.bool_], how: GroupCoding, engine: Engine) -> tuple[TileMode, Pixels]:
    (payload,) = encode_tiles([CutTile(pixels, valid)], how, engine, LEVEL)
    (decoded,) = decode_tiles([payload], how, engine, T)
    assert isinstance(decoded, np.ndarray)
    assert (decoded.shape, decoded.dtype) == (pixels.shape, pixels.dtype)
    return TilePayload.unpack(payload).mode, decoded


def bits(pixels: Pixels) -> Pixels:
    return np.ascontiguousarray(pixels).view(f"u{pixels.dtype.itemsize}")


# --- modes -----------------------------------------------------------------------------------------------------------


def test_latent(engine: Engine) -> None:
    pixels = picture()
    mode, decoded = through(pixels, everywhere(pixels), coding(), engine)
    assert mode == TileMode.LATENT
    assert decoded.std() > 0


def test_what_lies_beyond_the_scene_does_not_decide(engine: Engine) -> None:
    """A corner of the tile is all there is: a ramp, which exact coding says in fewer bytes than the network."""
    ramp = np.add.outer(np.arange(30), np.arange(30)).astype(np.uint8)
    pixels = pad_tile(np.stack([ramp] * 3), T)
    (payload,) = encode_tiles([CutTile(pixels, everywhere(pixels), Shape2d(30, 30))], coding(), engine, LEVEL)
    assert modes([payload]) == [TileMode.PREDICTED]


def test_empty(engine: Engine) -> None:
    pixels = picture()
    mode, decoded = through(pixels, ~everywhere(pixels), coding(fill=7, nodata=7), engine)
    assert mode == TileMode.EMPTY
    assert (decoded == 7).all()


@pytest.mark.parametrize("values", [(1.5, NAN, -0.0), (np.inf, -np.inf, 0.0), (5e-324, -1e308, 3.0)])
def test_constant_is_exact(values: tuple[float, ...], engine: Engine) -> None:
    pixels = np.repeat(np.array(values), T * T).reshape(3, T, T)
    mode, decoded = through(pixels, everywhere(pixels), coding(dtype="float64"), engine)
    assert mode == TileMode.CONSTANT
    np.testing.assert_array_equal(bits(decoded), bits(pixels))


def test_zeros_of_both_signs_are_no_constant(engine: Engine) -> None:
    pixels = np.zeros((1, T, T), np.float32)
    pixels[0, 3, 4] = -0.0
    mode, _ = through(pixels, everywhere(pixels), coding(1, "float32"), engine)
    assert mode != TileMode.CONSTANT


def test_constant_but_for_holes(engine: Engine) -> None:
    pixels, valid = picture(), everywhere(picture())
    valid[:, 20:40, 30:] = False
    valid[1] = False  # a band without any valid pixel
    pixels[valid] = 77
    mode, decoded = through(pixels, valid, coding(fill=0), engine)
    assert mode == TileMode.CONSTANT
    np.testing.assert_array_equal(decoded, np.where(valid, 77, 0))


def test_exact_where_that_is_smaller(engine: Engine) -> None:
    pixels = np.full((3, T, T), 5, np.uint8)
    pixels[0, :, 64:] = 9
    valid = everywhere(pixels)
    valid[:, 10:] = False  # few pixels: only then it is tried
    mode, decoded = through(pixels, valid, coding(fill=0), engine)
    assert mode in (TileMode.LOSSLESS, TileMode.PREDICTED)
    np.testing.assert_array_equal(decoded[valid], pixels[valid])


def test_one_call_for_all_modes(engine: Engine) -> None:
    pixels, constant = picture(), np.full((3, T, T), 9, np.uint8)
    whole = everywhere(pixels)
    tiles = [CutTile(pixels, whole), CutTile(constant, whole), CutTile(pixels, ~whole)]
    payloads = encode_tiles(tiles, coding(fill=0), engine, LEVEL)
    assert modes(payloads) == [TileMode.LATENT, TileMode.CONSTANT, TileMode.EMPTY]
    assert encode_tiles(tiles[1:], coding(fill=0), engine, LEVEL) == payloads[1:]
    assert encode_tiles([], coding(), engine, LEVEL) == []
    assert decode_tiles([], coding(), engine, T) == []


# --- masks, outliers, bands ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bands", [1, 2, 3])
@pytest.mark.parametrize("shared", [True, False])
def test_masks_are_exact(bands: int, shared: bool, engine: Engine) -> None:
    pixels = picture(bands, low=1)
    pixels[pixels == 0] = 1
    valid = np.random.default_rng(1).random((bands, T, T)) > 0.3
    if shared:
        valid[:] = valid[0]
    pixels[~valid] = 0
    mode, decoded = through(pixels, valid, coding(bands, fill=0, nodata=0), engine)
    assert mode == TileMode.LATENT
    np.testing.assert_array_equal(decoded != 0, valid)


@pytest.mark.parametrize("bands", [1, 2, 3])
def test_each_band_reaches_the_network(bands: int, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network that changes nothing, bands come back as they were, in their places."""
    seen: list[Pixels] = []

    def encode(x: Pixels, level: int, clock: object, sides: None, extents: object) -> list[bytes]:
        seen.append(x)
        return [b"not smaller than exact" * 10] * len(x)

    monkeypatch.setattr(engine, "encode", encode)
    monkeypatch.setattr(engine, "decode_latents", lambda streams, *_, **__: (None, np.ones(len(streams), bool)))
    monkeypatch.setattr(engine, "synthesise", lambda *_, **__: seen[-1])
    pixels = picture(bands, "int16", -3000, 9000)
    mapping = BandMapping.between(-3000.0, 9000.0)
    mode, decoded = through(pixels, everywhere(pixels), coding(bands, "int16", mapping=mapping), engine)
    assert mode == TileMode.LATENT
    assert seen[-1].shape == (1, 3, T, T)
    np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_outliers_are_exact(dtype: str, engine: Engine) -> None:
    pixels, valid = picture(2, dtype, 0, 1), np.ones((2, T, T), bool)
    odd = [NAN, np.inf, -np.inf, 1e30, -0.001, 1.0001]
    pixels[1, 5, 3:9] = odd
    pixels[0, -1, -1] = 2.5
    valid[0, 0, 0], pixels[0, 0, 0] = False, 99  # an outlier in a hole is none
    how = coding(2, dtype, fill=-9999.0, nodata=-9999.0, mapping=BandMapping.between(0.0, 1.0))
    mode, decoded = through(pixels, valid, how, engine)
    assert mode == TileMode.LATENT
    np.testing.assert_array_equal(bits(decoded[1, 5, 3:9]), bits(pixels[1, 5, 3:9]))
    assert (decoded[0, -1, -1], decoded[0, 0, 0]) == (2.5, -9999)
    rest = np.isfinite(pixels) & (pixels >= 0) & (pixels <= 1)
    assert ((decoded[rest] >= 0) & (decoded[rest] <= 1)).all()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_tile(data: st.DataObject, engine: Engine) -> None:
    """Masks and outliers survive exactly, and no valid pixel turns into nodata, whatever the tile is."""
    dtype = np.dtype(data.draw(st.sampled_from(["uint8", "uint16", "int16", "float32", "float64"])))
    bands = data.draw(st.integers(1, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    low, high = data.draw(st.sampled_from([(0, 255), (0, 9), (100, 100), (3, 4)]))
    pixels = rng.integers(low, high, (bands, T, T), endpoint=True).astype(dtype)
    nodata = data.draw(st.sampled_from([low, high, 1, (low + high) // 2]))
    odd = rng.random(pixels.shape) < data.draw(st.sampled_from([0, 1e-4, 0.1]))
    pixels[odd & (pixels != nodata)] = 251 if nodata != 251 else 250
    valid = pixels != nodata
    mapping = UINT8_MAPPING if dtype == np.uint8 else BandMapping.between(float(low), float(high))
    how = coding(bands, dtype.name, nodata, nodata, mapping)
    _, decoded = through(pixels, valid, how, engine)
    np.testing.assert_array_equal(decoded != nodata, valid)
    outside = valid & ((pixels < mapping.low) | (pixels > mapping.high))
    np.testing.assert_array_equal(decoded[outside], pixels[outside])


# --- batches, damage -------------------------------------------------------------------------------------------------


def test_payloads_do_not_depend_on_the_batch(engine: Engine) -> None:
    how = coding(fill=0)
    tiles = [CutTile(picture(seed=seed), everywhere(picture())) for seed in range(6)]
    together = encode_tiles(tiles, how, engine, LEVEL)
    assert together == [encode_tiles([tile], how, engine, LEVEL)[0] for tile in tiles]
    assert together[::-1] == encode_tiles(tiles[::-1], how, engine, LEVEL)
    decoded = decode_tiles(together, how, engine, T)
    for payload, pixels in zip(together, decoded, strict=True):
        np.testing.assert_array_equal(decode_tiles([payload], how, engine, T)[0], pixels)


def test_levels_may_differ_from_tile_to_tile(engine: Engine) -> None:
    tile, how = CutTile(picture(), everywhere(picture())), coding()
    payloads = [encode_tiles([tile], how, engine, level)[0] for level in (0, 112, 0)]
    assert [TilePayload.unpack(p).level for p in payloads] == [0, 112, 0]
    decoded = decode_tiles(payloads, how, engine, T)
    np.testing.assert_array_equal(decoded[0], decoded[2])
    assert not np.array_equal(decoded[0], decoded[1])


def test_damage_stays_in_its_tile(engine: Engine) -> None:
    how = coding(fill=0)
    tiles = [CutTile(picture(seed=seed), everywhere(picture())) for seed in range(3)]
    payloads = encode_tiles(tiles, how, engine, LEVEL)
    sound = decode_tiles(payloads, how, engine, T)
    hurt = bytearray(payloads[1])
    hurt[len(hurt) // 2] ^= 1
    decoded = decode_tiles([payloads[0], bytes(hurt), b"\0", payloads[2]], how, engine, T)
    assert isinstance(decoded[1], DesynchronisedError)
    assert isinstance(decoded[2], CorruptTileError)
    np.testing.assert_array_equal(decoded[0], sound[0])
    np.testing.assert_array_equal(decoded[3], sound[2])
    checked = check_latents([payloads[0], bytes(hurt), payloads[2]], how, engine, T)
    assert [type(error) for error in checked] == [type(None), DesynchronisedError, type(None)]


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (TilePayload(TileMode.CONSTANT, body=b"12"), "2 bytes"),
        (TilePayload(TileMode.LOSSLESS, body=b"12"), ""),
        (TilePayload(TileMode.EMPTY), "masked"),
        (TilePayload(TileMode.CONSTANT, mask=b"\x07", body=b"123"), "flags"),
        (TilePayload(TileMode.CONSTANT, mask=encode_mask(np.zeros((3, T, T), bool)), body=b"123"), "masked"),
        (TilePayload(TileMode.CONSTANT, outliers=b"x", body=b"123"), ""),
        (TilePayload(TileMode.LATENT, 5, body=b""), ""),
        (TilePayload(TileMode.LATENT, 5, body=b"\xff" * 999), ""),
    ],
    ids=lambda value: getattr(value, "mode", None) and value.mode.name,
)
def test_hostile_payloads(payload: TilePayload, message: str, engine: Engine) -> None:
    (decoded,) = decode_tiles([payload.pack()], coding(), engine, T)
    assert isinstance(decoded, CorruptTileError)
    assert message in str(decoded)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200), mode=st.sampled_from(list(TileMode)))
def test_any_bytes_decode_or_are_refused(body: bytes, mode: TileMode, engine: Engine) -> None:
    data = bytes([mode.version, mode, 0, LEVEL if mode.networked else 0]) + body
    (decoded,) = decode_tiles([data], coding(), engine, T)
    assert isinstance(decoded, np.ndarray | CorruptTileError)


@pytest.mark.parametrize("tile", [64, 192])
def test_tiles_the_network_cannot_code(tile: int, engine: Engine) -> None:
    data = TilePayload(TileMode.LATENT, 5, body=b"123").pack()
    (decoded,) = decode_tiles([data], coding(), engine, tile)
    assert isinstance(decoded, CorruptTileError)
    assert str(tile) in str(decoded)


def test_no_weights_named(engine: Engine) -> None:
    latent = encode_tiles([CutTile(picture(), everywhere(picture()))], coding(), engine, LEVEL)[0]
    exact = TilePayload(TileMode.CONSTANT, body=b"\1\2\3").pack()
    first, second = decode_tiles([latent, exact], coding(), None, T)
    assert "names no weights" in str(first)
    assert isinstance(second, np.ndarray)


def test_a_bound_leaves_nothing_to_the_network(engine: Engine) -> None:
    """A scene with a guarantee has no LATENT tiles: nothing holds their pixels to a bound."""
    (payload,) = encode_tiles([CutTile(picture(), everywhere(picture()))], coding(), engine, LEVEL)
    assert modes([payload]) == [TileMode.LATENT]
    bounded = replace(coding(), max_error=(5.0,) * 3)
    for found in (decode_tiles([payload], bounded, engine, T), check_latents([payload], bounded, engine, T)):
        assert isinstance(found[0], CorruptTileError)
        assert "bounds its errors" in str(found[0])
    with pytest.raises(CorruptTileError, match="bounds its errors"):
        tile_validity(payload, bounded, T, None)


def test_what_the_network_says_does_not_hurt(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN and infinities that a hostile stream may provoke become pixels, without a warning."""
    (payload,) = encode_tiles([CutTile(picture(), everywhere(picture()))], coding(), engine, LEVEL)
    wild = np.array([NAN, np.inf, -np.inf, 1e38], np.float32).repeat(3 * T * T // 4).reshape(1, 3, T, T)
    monkeypatch.setattr(engine, "synthesise", lambda *_, **__: wild)
    for dtype in ("uint8", "float32"):
        (decoded,) = decode_tiles([payload], coding(dtype=dtype), engine, T)
        assert np.isfinite(decoded).all()


# --- zarr ------------------------------------------------------------------------------------------------------------


def configuration(how: GroupCoding, weights: str | None) -> dict[str, Any]:
    return {
        "format": 0,
        "weights": weights,
        "mapping": [[encode_number(n) for n in (m.offset, m.scale, m.low, m.high)] for m in how.mapping],
        "fill": [encode_number(n) for n in how.fill],
        "nodata": [encode_number(n) for n in how.nodata],
    }


def test_decode_for_zarr(engine: Engine) -> None:
    how = coding(2, "float32", NAN, NAN, BandMapping.between(0.0, 1.0))
    pixels = picture(2, "float32", 0, 1)
    pixels[0, :9] = NAN
    payloads = encode_tiles([CutTile(pixels, ~np.isnan(pixels))] * 2, how, engine, LEVEL)
    expected = decode_tiles(payloads, how, engine, T)
    found = decode_for_zarr(payloads, configuration(how, engine.sha256), (2, T, T), "float32")
    np.testing.assert_array_equal(found, expected)
    assert np.isnan(np.asarray(found[0])[0, :9]).all()
    damaged = [payloads[0], payloads[1][:-9]]
    sound, error = decode_for_zarr(damaged, configuration(how, engine.sha256), (2, T, T), "float32")
    np.testing.assert_array_equal(sound, expected[0])
    assert isinstance(error, CorruptTileError)
    with pytest.raises(WeightsNotFoundError):
        decode_for_zarr(payloads, configuration(how, "ab" * 32), (2, T, T), "float32")


def test_decode_for_zarr_needs_no_weights_for_exact_tiles() -> None:
    exact = TilePayload(TileMode.CONSTANT, body=b"\1\2\3").pack()
    (found,) = decode_for_zarr([exact], configuration(coding(), None), (3, T, T), np.uint8)
    assert (np.asarray(found)[1] == 2).all()


def test_almost_constant_tiles_are_exact_and_tiny(engine: Engine) -> None:
    pixels = np.full((3, T, T), 77, np.uint8)
    pixels[1, 100:103, 50:60] = 200
    mode, decoded = through(pixels, everywhere(pixels), coding(), engine)
    assert mode in (TileMode.LOSSLESS, TileMode.PREDICTED)
    np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize("shape", [(), (128, 128), (2, 128, 128), (3, 128, 64), (3, 100, 100), (3, 2048, 2048)])
def test_decode_for_zarr_takes_tiles_alone(shape: tuple[int, ...]) -> None:
    """A store may say anything of the chunks of its arrays."""
    exact = TilePayload(TileMode.CONSTANT, body=b"\1\2\3").pack()
    with pytest.raises(CorruptContainerError, match="no tiles of 3 band"):
        decode_for_zarr([exact], configuration(coding(), None), shape, np.uint8)
    with pytest.raises(CorruptContainerError, match="type complex64"):
        decode_for_zarr([exact], configuration(coding(), None), (3, T, T), "complex64")
