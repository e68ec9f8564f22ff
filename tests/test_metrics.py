from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import pytorch_msssim
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ltchm_geo.metrics import ErrorStats, MsSsimStats, ms_ssim, ms_ssim_db, psnr
from ltchm_geo.metrics.ms_ssim import BLOCK, MIN_SIDE, cut

images = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=3, max_side=12))


def test_psnr_of_a_known_error() -> None:
    reference = np.full((3, 4), 100, np.uint8)
    assert psnr(reference, reference + np.uint8(5), 255.0) == pytest.approx(20 * math.log10(255 / 5))


def test_psnr_without_a_peak_takes_the_range_of_valid_pixels() -> None:
    reference = np.array([-9999.0, 10.0, 30.0])
    valid = reference > 0
    assert psnr(reference, reference + 2, valid=valid) == pytest.approx(20 * math.log10(20 / 2))


@pytest.mark.parametrize(
    ("reference", "test", "peak", "expected"),
    [
        pytest.param([1.0, 2.0], [1.0, 2.0], 1.0, math.inf, id="equal"),
        pytest.param([], [], 1.0, math.nan, id="nothing"),
        pytest.param([5.0, 5.0], [5.0, 6.0], None, math.nan, id="constant reference has no range"),
        pytest.param([0.0, math.inf], [0.0, math.inf], 1.0, math.inf, id="equal infinities"),
        pytest.param([0.0, math.inf], [0.0, 3.0], 1.0, -math.inf, id="lost infinity"),
    ],
)
def test_psnr_at_the_edges(reference: list[float], test: list[float], peak: float | None, expected: float) -> None:
    assert psnr(np.array(reference), np.array(test), peak) == pytest.approx(expected, nan_ok=True)


def test_unsigned_pixels_do_not_wrap() -> None:
    stats = ErrorStats()
    stats.add(np.array([200, 3], np.uint8), np.array([100, 5], np.uint8))
    assert (stats.max_abs, stats.mean_error, stats.mse) == (100, -49, 5002)


@pytest.mark.parametrize(
    ("reference", "test", "error"),
    [
        (np.int64(2**53), np.int64(2**53 + 1), 1),
        (np.int64(-(2**63)), np.int64(2**63 - 1), 2**64),
        (np.uint64(2**64 - 1), np.uint64(2**64 - 2), -1),
        (np.uint64(2**64 - 1), np.int64(-1), -(2**64)),
        (np.int8(-1), np.uint64(2**64 - 1), 2**64),
        (np.int64(2**53 + 1), np.float64(2**53), -1),
        (np.float64(-(2.0**53)), np.int64(-(2**53) - 1), -1),
        (np.float64(1e-30), np.int64(0), -1e-30),
        (np.int64(5), np.float64(math.inf), math.inf),
    ],
)
def test_whole_numbers_of_64_bits_are_told_apart(reference: np.generic, test: np.generic, error: float) -> None:
    stats = ErrorStats()
    stats.add(np.array([reference]), np.array([test]))
    assert (stats.max_abs, stats.mean_error) == (abs(error), error)
    same = ErrorStats()
    same.add(np.array([reference]), np.array([reference]))
    assert same.max_abs == 0


@given(images, st.integers(0, 2**32 - 1))
def test_blocks_add_up(reference: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    test, valid = rng.integers(0, 256, reference.shape, np.uint8), rng.random(reference.shape) < 0.5
    whole, parts = ErrorStats(), ErrorStats()
    whole.add(reference, test, valid)
    for row in range(len(reference)):
        parts.add(reference[row], test[row], valid[row])
    error = (test.astype(int) - reference)[valid]
    assert whole.count == parts.count == error.size
    if error.size:
        assert whole.max_abs == parts.max_abs == np.abs(error).max()
        assert whole.mse == pytest.approx((error**2).mean()) == pytest.approx(parts.mse)
        assert whole.mean_error == pytest.approx(error.mean()) == pytest.approx(parts.mean_error)
        assert (whole.minimum, whole.maximum) == (reference[valid].min(), reference[valid].max())


def test_a_mask_may_be_shared_by_bands() -> None:
    stats = ErrorStats()
    stats.add(np.zeros((3, 2, 2)), np.ones((3, 2, 2)), np.array([[True, False], [False, False]]))
    assert stats.count == 3


def test_shapes_must_fit() -> None:
    with pytest.raises(ValueError, match=r"\(2,\), the test \(3,\)"):
        ErrorStats().add(np.zeros(2), np.zeros(3))


@given(st.integers(1, 20_000))
@settings(max_examples=300)
def test_cuts_cover_a_side_with_blocks_of_useful_size(side: int) -> None:
    parts = cut(side)
    assert parts[0][0] == 0
    assert parts[-1][1] == side
    assert all(end == begin for (_, end), (begin, _) in pairwise(parts))
    lengths = [end - begin for begin, end in parts]
    assert max(lengths) <= BLOCK
    assert len(parts) == 1 or min(lengths) >= BLOCK // 2
    assert all(begin % (BLOCK // 2) == 0 for begin, _ in parts)  # on borders of tiles: none is decoded twice


def noisy_pair(side: int = MIN_SIDE) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    smooth = np.add.outer(np.arange(side), np.arange(side)) % 200
    return smooth.astype(np.uint8), (smooth + rng.integers(0, 40, (side, side))).astype(np.uint8)


@pytest.mark.parametrize("shape", [(MIN_SIDE, MIN_SIDE), (200, 333), (512, 1024)])
@pytest.mark.parametrize("strength", [1, 40, 400])
def test_ms_ssim_is_that_of_the_reference_implementation(shape: tuple[int, int], strength: int) -> None:
    rng = np.random.default_rng(shape[1])
    reference = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % 200 + rng.integers(0, 9, shape)
    test = np.clip(reference + rng.integers(-strength, strength + 1, shape), 0, 255)
    tensors = [torch.from_numpy(image.astype(np.float32))[None, None] for image in (reference, test)]
    assert ms_ssim(reference, test, 255) == pytest.approx(
        float(pytorch_msssim.ms_ssim(*tensors, data_range=255)), abs=1e-5
    )


def test_ms_ssim_of_what_has_nothing_in_common_is_zero() -> None:
    reference, _ = noisy_pair()
    assert ms_ssim(reference, 255 - reference, 255) == 0


def test_ms_ssim_in_decibels() -> None:
    assert ms_ssim_db(0.99) == pytest.approx(20)
    assert ms_ssim_db(0) == 0
    assert ms_ssim_db(1) == math.inf


def test_ms_ssim_knows_where_the_range_begins() -> None:
    reference, test = noisy_pair()
    shifted = (reference.astype(np.float64) * 40 - 7000, test.astype(np.float64) * 40 - 7000)
    assert ms_ssim(*shifted, peak=255 * 40, low=-7000) == pytest.approx(ms_ssim(reference, test, 255), abs=1e-5)
    assert ms_ssim(reference, reference, 255) == pytest.approx(1)


@pytest.mark.parametrize(
    ("side", "hole", "peak"),
    [
        pytest.param(MIN_SIDE - 1, False, 255.0, id="too small"),
        pytest.param(MIN_SIDE, True, 255.0, id="a hole"),
        pytest.param(MIN_SIDE, False, 0.0, id="constant"),
        pytest.param(MIN_SIDE, False, math.nan, id="no pixel"),
    ],
)
def test_ms_ssim_that_cannot_be_measured(side: int, hole: bool, peak: float) -> None:
    reference, test = noisy_pair(side)
    valid = np.ones(reference.shape, bool)
    valid[3, 4] = not hole
    assert ms_ssim(reference, test, peak, valid=valid) is None


def test_blocks_count_by_their_area(monkeypatch: pytest.MonkeyPatch) -> None:
    stats = MsSsimStats(255.0)
    monkeypatch.setattr(stats, "_measure", lambda reference, test: float(reference[0, 0]))
    for value, rows in ((0, 200), (1, 400), (1, 100)):  # the last is too small to count
        block = np.full((rows, 300), value, np.uint8)
        stats.add(block, block)
    assert stats.value == pytest.approx(400 / 600)
