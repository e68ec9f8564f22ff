from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ltchm_geo.errors import CorruptTileError
from ltchm_geo.masks import decode_mask, encode_mask, fill_masked, valid_pixels

shapes = st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40))


@given(shapes.flatmap(lambda shape: hnp.arrays(bool, shape)))
def test_masks_come_back_exactly(valid: np.ndarray) -> None:
    decoded = decode_mask(encode_mask(valid), valid.shape)
    assert decoded.dtype == bool
    assert (decoded == valid).all()


def test_typical_masks_are_small() -> None:
    y, x = np.mgrid[:256, :256]
    footprint = np.repeat((y + 3 * x > 300)[None], 3, axis=0)
    assert len(encode_mask(footprint)) < 300
    assert len(encode_mask(np.ones((3, 256, 256), bool))) < 40


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"\x02" + zlib.compress(bytes(8)),
        b"\x01" + zlib.compress(bytes(7)),
        b"\x01" + zlib.compress(bytes(9)),
        b"\x00" + zlib.compress(bytes(8)),
        b"\x01" + zlib.compress(bytes(8))[:-1],
        b"\x01" + zlib.compress(bytes(8)) + b"x",
        b"\x01" + zlib.compress(bytes(100_000_000)),
        b"\x01" + b"not deflated",
    ],
)
def test_damaged_masks_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptTileError):
        decode_mask(data, (2, 8, 8))


# --- which pixels are valid ------------------------------------------------------------------------------------------


def test_nodata_per_band_and_mask_combine() -> None:
    pixels = np.array([[[0, 1, 2]], [[0, 1, 2]]], np.uint8)
    valid = valid_pixels(pixels, [0, 2], np.array([[True, False, True]]))
    assert valid.tolist() == [[[False, False, True]], [[True, False, False]]]


def test_nan_is_a_hole_unless_there_is_another_nodata() -> None:
    pixels = np.array([[[np.nan, -9999.0, 1.0]]], np.float32).repeat(3, axis=0)
    valid = valid_pixels(pixels, [None, float("nan"), -9999])
    assert valid[:, 0].tolist() == [[False, True, True], [False, True, True], [True, False, True]]


@pytest.mark.parametrize("nodata", [-1, 300, 0.5, float("inf")])
def test_nodata_no_pixel_can_hold_marks_none(nodata: float) -> None:
    assert valid_pixels(np.arange(256, dtype=np.uint8).reshape(1, 16, 16), [nodata]).all()


def test_nodata_is_compared_in_the_bands_precision() -> None:
    assert not valid_pixels(np.full((1, 1, 1), 0.1, np.float32), [0.1]).any()
    assert valid_pixels(np.zeros((1, 1, 1), np.float32), [1e300]).all()


# --- filling ---------------------------------------------------------------------------------------------------------


@given(
    shapes.flatmap(
        lambda s: st.tuples(hnp.arrays(np.float32, s, elements=st.floats(0, 1, width=32)), hnp.arrays(bool, s))
    )
)
def test_filling_leaves_valid_pixels_and_their_range(case: tuple[np.ndarray, np.ndarray]) -> None:
    pixels, valid = case
    filled = fill_masked(np.where(valid, pixels, np.nan).astype(np.float32), valid)
    assert filled.dtype == np.float32
    assert (filled[valid] == pixels[valid]).all()
    for plane, known, mask in zip(filled, pixels, valid, strict=True):
        low, high = (known[mask].min(), known[mask].max()) if mask.any() else (0.5, 0.5)
        assert (plane >= low - 1e-5).all()
        assert (plane <= high + 1e-5).all()


def test_filling_continues_the_pixels_at_the_rim() -> None:
    y, x = np.mgrid[:256, :256]
    pixels = (0.5 + 0.2 * np.sin(x / 20) + 0.2 * np.cos(y / 30)).astype(np.float32)[None]
    valid = ((x - 128) ** 2 + (y - 100) ** 2 > 60**2)[None] & (x + y > 80)[None]
    filled = fill_masked(np.where(valid, pixels, np.float32(0)), valid)
    steps = [np.abs(np.diff(filled, axis=axis)).max() for axis in (1, 2)]
    assert max(steps) < 0.03  # the image itself changes by up to 0.01 a pixel


def test_nothing_to_fill_copies_nothing() -> None:
    pixels = np.zeros((1, 8, 8), np.float32)
    assert fill_masked(pixels, np.ones((1, 8, 8), bool)) is pixels
