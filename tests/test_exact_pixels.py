from __future__ import annotations

import math
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ltchm_geo.corrections import SLACK, add_correction, encode_correction
from ltchm_geo.errors import CorruptTileError, DesynchronisedError
from ltchm_geo.exact_pixels import decode_pixels, encode_bounded, encode_exact, same_bits, within
from ltchm_geo.predictive import decode_planes, encode_planes
from ltchm_geo.radiometry import BandMapping
from ltchm_geo.types import EXACT_DTYPES, Shape2d

VECTORS = Path(__file__).parent / "vectors" / "predicted_v1.npz"
NAN = float("nan")
shapes = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))

Pixels = NDArray[Any]
Mask = NDArray[np.bool_]


@st.composite
def tiles(draw: st.DrawFn) -> tuple[Pixels, Mask]:
    """Any pixels of any type, NaN, infinities and negative zeros among them, and which are known."""
    pixels = draw(hnp.arrays(np.dtype(draw(st.sampled_from(EXACT_DTYPES))), draw(shapes)))
    return pixels, draw(hnp.arrays(bool, pixels.shape, fill=st.just(True)))


def picture(dtype: str, side: int = 80, bands: int = 3) -> Pixels:
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:side, :side]
    base = 60 * np.sin(x / 9 + np.arange(bands)[:, None, None]) * np.cos(y / 11) + 100 + rng.normal(0, 3, (side, side))
    return base.astype(dtype)


# --- exact -----------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(tiles())
def test_any_pixels_come_back_bit_by_bit(tile: tuple[Pixels, Mask]) -> None:
    pixels, known = tile
    body, lost = encode_exact(pixels, known)
    decoded = decode_pixels(body, known & ~lost, pixels.dtype)
    assert decoded.dtype == pixels.dtype
    assert (same_bits(pixels, decoded) | ~known | lost).all()
    assert not (lost & ~known).any()


@pytest.mark.parametrize("dtype", EXACT_DTYPES)
def test_pictures_come_back_and_take_less(dtype: str) -> None:
    pixels = picture(dtype)
    known = np.ones(pixels.shape, bool)
    body, lost = encode_exact(pixels, known)
    assert same_bits(pixels, decode_pixels(body, known & ~lost, pixels.dtype))[known & ~lost].all()
    assert len(body) < 0.95 * pixels.nbytes


@pytest.mark.parametrize(
    ("values", "bits"),
    [
        (np.rint, 5.5),  # floats that hold whole numbers
        (lambda picture: np.rint(picture * 4) / 100, 7.5),  # decimals
        (lambda picture: np.rint(picture * 2) / 1024, 6.5),  # fractions
        (lambda picture: (np.rint(picture / 40) * 9973.1).clip(-1e9), 2.5),  # few values, far apart
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_on_a_grid_cost_what_the_integers_would(values: Any, bits: float, dtype: str) -> None:
    pixels = values(picture("float64")).astype(dtype)
    pixels[0, 3, 4] = NAN
    known = np.ones(pixels.shape, bool)
    body, lost = encode_exact(pixels, known)
    decoded = decode_pixels(body, known & ~lost, pixels.dtype)
    assert (same_bits(pixels, decoded) | lost).all()
    assert 8 * len(body) / pixels.size < bits


def test_constants_and_padding_cost_next_to_nothing() -> None:
    flat = np.full((1, 256, 256), 7, np.uint16)
    assert len(encode_exact(flat, np.ones(flat.shape, bool))[0]) < 20
    noise = np.random.default_rng(1).integers(0, 65536, (1, 60, 70)).astype(np.uint16)
    padded = np.pad(noise, ((0, 0), (0, 196), (0, 186)), mode="edge")
    alone, around = (len(encode_exact(p, np.ones(p.shape, bool))[0]) for p in (noise, padded))
    assert around <= alone + 8


# --- within a bound --------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(tiles(), st.data())
def test_no_pixel_is_off_by_more_than_the_bound(tile: tuple[Pixels, Mask], data: st.DataObject) -> None:
    pixels, known = tile
    some = st.sampled_from([0, 0.5, 1, 4, 16, 1e-3, 1e6]) | st.floats(0, 1e300)
    bounds = data.draw(st.lists(some, min_size=len(pixels), max_size=len(pixels)))
    nodata = data.draw(st.sampled_from([None, 0, 3, 255, -9999.5, NAN]))
    if nodata is not None and not math.isnan(nodata):
        known = known & (pixels != nodata)
    body, lost = encode_bounded(pixels, known, bounds, [nodata] * len(pixels))
    decoded = decode_pixels(body, known & ~lost, pixels.dtype)
    kept = known & ~lost
    assert not (lost & ~known).any()
    assert not ((decoded == nodata) & kept).any()
    for plane, found, where, bound in zip(pixels, decoded, kept, bounds, strict=True):
        for one, other in zip(plane[where].tolist(), found[where].tolist(), strict=True):
            assert one == other or abs(one - other) <= bound or (math.isnan(one) and math.isnan(other))


@pytest.mark.parametrize(("bound", "most"), [(0, 5.2), (1, 3.7), (4, 2.1), (16, 0.8)])
def test_wider_bounds_take_less(bound: int, most: float) -> None:
    pixels = picture("uint16")
    known = np.ones(pixels.shape, bool)
    body, lost = encode_bounded(pixels, known, [bound] * 3, [None] * 3)
    assert not lost.any()
    assert within(pixels, decode_pixels(body, known, pixels.dtype), [bound] * 3).all()
    assert 8 * len(body) / pixels.size < most


@pytest.mark.parametrize("value", [NAN, math.inf])
def test_values_on_no_grid_do_not_cost_the_bound(value: float) -> None:
    pixels = picture("float32")
    pixels[:, ::7, ::7] = value
    known = np.ones(pixels.shape, bool)
    body, lost = encode_bounded(pixels, known, [0.5] * 3, [-9999] * 3)
    np.testing.assert_array_equal(lost, ~np.isfinite(pixels))
    assert len(body) < 0.5 * len(encode_exact(pixels, known)[0])


def test_the_least_integer_is_too_large_for_linear_prediction() -> None:
    """It has no absolute value; zeros of uint64 are coded as it."""
    pixels = np.stack([np.zeros((64, 64)), picture("uint64", side=64, bands=1)[0]]).astype(np.uint64)
    both, alone = (encode_exact(p, np.ones(p.shape, bool))[0] for p in (pixels, pixels[1:]))
    assert len(both) < len(alone) + 100
    known = pixels != pixels[1, 0, 0]
    assert (decode_pixels(encode_exact(pixels, known)[0], known, pixels.dtype) == pixels)[known].all()


def test_what_is_not_known_does_not_forbid_linear_prediction() -> None:
    planes = picture("int64", side=64)
    known = np.ones(planes.shape, bool)
    known[:, 20:30, 20:30] = False
    body = encode_planes(planes, known)
    planes[~known] = np.iinfo(np.int64).min
    assert encode_planes(planes, known)[:40] == body[:40]


def test_distances_of_the_widest_integers() -> None:
    pixels = np.array([[[0, 2**64 - 1]]], np.uint64)
    assert within(pixels, pixels[..., ::-1], [1e18]).tolist() == [[[False, False]]]
    assert within(np.array([[[-(2**63)]]]), np.array([[[-(2**63) + 5]]]), [5]).all()


# --- corrections -----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_corrections_hold_wherever_the_base_lies_within_the_slack(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["uint8", "uint16", "int16", "float32", "float64"]))
    nodata = data.draw(st.sampled_from([None, 0, 100]))
    bound = data.draw(st.sampled_from([1, 4, 16]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    pixels = picture(dtype, side=24, bands=2)
    known = (rng.random(pixels.shape) < 0.9) & (pixels != (NAN if nodata is None else nodata))
    mappings = [BandMapping.between(0, 255)] * 2
    base = np.clip(pixels + rng.normal(0, 20, pixels.shape), 0, 255)
    coded = encode_correction(pixels, known, base, mappings, [bound] * 2, [nodata] * 2)
    assert coded is not None
    body, lost = coded
    for _ in range(4):
        elsewhere = base + rng.uniform(-1, 1, base.shape) * SLACK * 255
        decoded = add_correction(body, elsewhere, known & ~lost, pixels.dtype, [nodata] * 2)
        kept = known & ~lost
        assert (within(pixels, decoded, [bound] * 2) | ~kept).all()
        assert not ((decoded == nodata) & kept).any()
    assert lost.sum() < 0.02 * lost.size


def test_no_correction_where_the_slack_is_a_large_part_of_the_bound() -> None:
    pixels = picture("uint16")
    base, mappings = pixels.astype(np.float64), [BandMapping.between(0, 60_000)] * 3
    assert encode_correction(pixels, np.ones(pixels.shape, bool), base, mappings, [1] * 3, [None] * 3) is None


# --- hostile and frozen ----------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_is_refused_or_gives_pixels(data: st.DataObject) -> None:
    """Whatever the bytes, decoding ends, stays in bounds, and says CorruptTileError or gives a whole tile."""
    dtype = np.dtype(data.draw(st.sampled_from(EXACT_DTYPES)))
    pixels = picture("float64", side=12).astype(dtype)
    known = np.ones(pixels.shape, bool)
    sound = encode_bounded(pixels, known, [data.draw(st.sampled_from([0, 3]))] * 3, [None] * 3)[0]
    body = bytearray(data.draw(st.sampled_from([sound, b""])) or data.draw(st.binary(max_size=120)))
    for _ in range(data.draw(st.integers(0, 3))):
        if body:
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_pixels(bytes(body[: data.draw(st.integers(0, len(body)))]), known, dtype)
    except CorruptTileError:
        return
    assert decoded.shape == pixels.shape
    assert decoded.dtype == dtype


def test_a_wrong_sample_is_noticed() -> None:
    planes = picture("int64", side=20)
    data = bytearray(encode_planes(planes, np.ones(planes.shape, bool)))
    data[len(data) // 2] ^= 16
    with pytest.raises(DesynchronisedError):
        decode_planes(bytes(data), np.ones(planes.shape, bool))
    data = encode_planes(planes, np.ones(planes.shape, bool)) + b"more than its tail"
    with pytest.raises(DesynchronisedError):
        decode_planes(data, np.ones(planes.shape, bool))


def test_an_extent_beyond_the_tile_is_refused() -> None:
    planes = picture("int64", side=20)
    data = encode_planes(planes, np.ones(planes.shape, bool))
    with pytest.raises(CorruptTileError, match="not for this tile"):
        decode_planes(data, np.ones((3, 19, 20), bool))
    cut, extent = decode_planes(
        encode_planes(planes, np.ones(planes.shape, bool), Shape2d(5, 7)), np.ones(planes.shape, bool)
    )
    assert extent == (5, 7)
    np.testing.assert_array_equal(cut[:, :5, :7], planes[:, :5, :7])


def frozen_cases() -> dict[str, tuple[Pixels, Mask, list[float]]]:
    small = partial(picture, side=24)
    holes = np.ones((3, 24, 24), bool)
    holes[:, 5:10, 8:20] = False
    whole = np.ones(holes.shape, bool)
    return {
        "uint16": (small("uint16"), whole, [0, 0, 0]),
        "uint8_holes": (small("uint8"), holes, [0, 0, 0]),
        "int64": (small("int64") * 10**15, whole, [0, 0, 0]),
        "float32": (small("float32"), whole, [0, 0, 0]),
        "decimals": (np.rint(small("float64") * 10) / 100, whole, [0, 0, 0]),
        "classes": ((small("uint8") // 40) * 50, whole, [0, 0, 0]),
        "uint16_bounded": (small("uint16"), whole, [1, 4, 16]),
        "float64_bounded": (small("float64"), holes, [0.5, 0.5, 0.125]),
    }


@pytest.mark.parametrize("case", frozen_cases())
def test_frozen_payloads_decode_to_what_they_did(case: str) -> None:
    """Bytes written by the first version; LTCHM_REGEN=1 makes them anew, which is a new format version."""
    pixels, known, bounds = frozen_cases()[case]
    if os.environ.get("LTCHM_REGEN") == "1":
        stored = dict(np.load(VECTORS)) if VECTORS.exists() else {}
        body, lost = encode_bounded(pixels, known, bounds, [None] * 3)
        decoded = np.where(known & ~lost, decode_pixels(body, known & ~lost, pixels.dtype), 0)
        parts = {"body": np.frombuffer(body, np.uint8), "kept": known & ~lost, "pixels": decoded}
        np.savez_compressed(VECTORS, **stored | {f"{case}.{name}": part for name, part in parts.items()})
    stored = np.load(VECTORS)
    body, kept, expected = (stored[f"{case}.{name}"] for name in ("body", "kept", "pixels"))
    decoded = decode_pixels(body.tobytes(), kept, expected.dtype)
    assert same_bits(decoded, expected)[kept].all()
