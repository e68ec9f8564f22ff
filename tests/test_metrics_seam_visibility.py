from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ltchm_geo import metrics

TILE = 32
SHAPE = (3, 300, 280)  # the last tiles are clipped
REFERENCE = np.random.default_rng(1).integers(0, 256, SHAPE).astype(np.float64)


def seam_visibility(reference: np.ndarray, test: np.ndarray, tile: int = TILE, **options: Any) -> float:
    return metrics.seam_visibility(reference, test, tile, **{"period": 8, **options})


def noise(seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, SHAPE)


def offsets(strength: float, side: int = TILE) -> np.ndarray:
    """A constant for each tile: Gaussian, of the given standard deviation."""
    tiles = np.random.default_rng(3).normal(0, strength, (3, -(-SHAPE[1] // side), -(-SHAPE[2] // side)))
    return np.kron(tiles, np.ones((1, side, side)))[:, : SHAPE[1], : SHAPE[2]]


def test_one_for_an_error_that_knows_no_tiles() -> None:
    white = noise()
    assert seam_visibility(REFERENCE, REFERENCE + white) == pytest.approx(1, abs=0.05)
    smooth = sum(np.roll(white, shift, (1, 2)) for shift in range(4))
    assert seam_visibility(REFERENCE, REFERENCE + smooth) == pytest.approx(1, abs=0.05)


def test_an_offset_of_every_tile_shows_by_its_energy() -> None:
    # Neighbouring pixels of white noise differ by 2 sigma² in the mean, neighbouring tiles by 2 strength².
    found = seam_visibility(REFERENCE, REFERENCE + noise() + offsets(1.5))
    assert found == pytest.approx(1 + 1.5**2, rel=0.15)
    assert seam_visibility(REFERENCE, REFERENCE + noise() + offsets(5)) > 20
    assert seam_visibility(np.zeros(SHAPE), offsets(5)) == math.inf


def test_seams_of_other_tiles_do_not_count() -> None:
    error = noise() + offsets(5)
    assert seam_visibility(REFERENCE, REFERENCE + np.roll(error, 13, (1, 2))) == pytest.approx(1, abs=0.05)


def test_a_pattern_that_is_everywhere_is_no_seam() -> None:
    test = REFERENCE + noise() + offsets(2, side=8)
    assert seam_visibility(REFERENCE, test, 96, period=8) == pytest.approx(1, abs=0.15)
    assert seam_visibility(REFERENCE, test, 96, period=1) > 3
    assert seam_visibility(REFERENCE, test + offsets(8, side=96), 96, period=8) > 5


def test_nothing_to_see() -> None:
    assert seam_visibility(REFERENCE, REFERENCE + 3) == 1
    assert math.isnan(seam_visibility(REFERENCE[:, :TILE, :TILE], REFERENCE[:, :TILE, :TILE] + 1))
    assert math.isfinite(seam_visibility(REFERENCE[0, :TILE], (REFERENCE + noise())[0, :TILE]))


def test_invalid_pixels_do_not_count() -> None:
    test = REFERENCE + noise()
    valid = np.ones(SHAPE[1:], bool)
    valid[:, TILE] = False
    spoilt = np.where(valid, test, test + 1000)
    assert seam_visibility(REFERENCE, spoilt) > 100
    assert seam_visibility(REFERENCE, spoilt, valid=valid) == pytest.approx(1, abs=0.05)
    spoilt[:, ~valid] = math.nan
    assert seam_visibility(REFERENCE, spoilt) == pytest.approx(1, abs=0.05)


def test_unsigned_pixels_do_not_wrap() -> None:
    reference = np.full((64, 64), 3, np.uint8)
    test = reference.copy()
    test[:, 10] = 2
    assert seam_visibility(reference, test, 16) == seam_visibility(reference.astype(float), test.astype(float), 16)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="period of 16"):
        metrics.seam_visibility(REFERENCE, REFERENCE, 16)
    with pytest.raises(ValueError, match="the test"):
        seam_visibility(REFERENCE, REFERENCE[:1])


# --- the visible part ------------------------------------------------------------------------------------------------


def test_steps_are_those_of_means() -> None:
    across, inside = metrics.seam_step(REFERENCE, REFERENCE + noise(), 32)
    # The mean of 4 x 16 pixels of white noise has a variance of 1 / 64, a difference of two twice that.
    assert across == pytest.approx((2 / 64) ** 0.5, rel=0.1)
    assert inside == pytest.approx((2 / 64) ** 0.5, rel=0.1)
    across, inside = metrics.seam_step(REFERENCE, REFERENCE + noise() + offsets(1), 32)
    assert across == pytest.approx((2 + 2 / 64) ** 0.5, rel=0.1)
    assert inside == pytest.approx((2 / 64) ** 0.5, rel=0.1)


def test_steps_where_there_is_nothing() -> None:
    assert metrics.seam_step(REFERENCE, REFERENCE + 3, 32) == pytest.approx((0, 0), abs=1e-9)
    across, inside = metrics.seam_step(REFERENCE[:, :30, :30], REFERENCE[:, :30, :30] + 1, 32)
    assert math.isnan(across)
    assert inside == pytest.approx(0)
    hidden = np.zeros(SHAPE[1:], bool)
    assert all(map(math.isnan, metrics.seam_step(REFERENCE, REFERENCE, 32, hidden)))
    with pytest.raises(ValueError, match="period of 16"):
        metrics.seam_step(REFERENCE, REFERENCE, 16)
