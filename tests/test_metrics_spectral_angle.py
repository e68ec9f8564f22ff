from __future__ import annotations

import math

import numpy as np
import pytest
import sewar
from hypothesis import given
from hypothesis import strategies as st

from ltchm_geo.metrics import SpectralAngleStats, spectral_angle


def image(*spectra: tuple[float, ...]) -> np.ndarray:
    """(bands, 1, pixels) of the given spectra."""
    return np.array(spectra, np.float64).T[:, None]


@pytest.mark.parametrize(
    ("reference", "test", "degrees"),
    [
        pytest.param((1, 0), (0, 5), 90, id="orthogonal"),
        pytest.param((3, 4), (300, 400), 0, id="brighter"),
        pytest.param((1, 0, 0), (1, 1, 0), 45, id="half"),
        pytest.param((1, 2), (-1, -2), 180, id="opposite"),
        pytest.param((1, 0), (1, 1e-5), math.degrees(1e-5), id="tiny, where arccos would give 0"),
    ],
)
def test_known_angles(reference: tuple[float, ...], test: tuple[float, ...], degrees: float) -> None:
    assert spectral_angle(image(reference), image(test)) == pytest.approx(degrees, rel=1e-4, abs=1e-6)


def test_equal_to_sewar() -> None:
    rng = np.random.default_rng(2)
    reference = rng.integers(0, 4000, (6, 30, 20), np.uint16)
    test = (reference + rng.integers(0, 300, reference.shape)).astype(np.uint16)
    reference[:, 3, 4] = 0
    expected = math.degrees(sewar.sam(np.moveaxis(reference, 0, -1), np.moveaxis(test, 0, -1)))
    assert spectral_angle(reference, test) == pytest.approx(expected, rel=1e-9)
    assert spectral_angle(reference, reference) == 0


def test_only_whole_spectra_count() -> None:
    reference = image((1, 0), (1, 0), (0, 0), (1, 0), (math.nan, 1))
    test = image((1, 1), (0, 1), (1, 0), (0, 0), (1, 1))
    valid = np.ones(reference.shape, bool)
    assert spectral_angle(reference, test) == pytest.approx(67.5)  # 45 and 90; the others have no angle
    valid[1, 0, 1] = False
    assert spectral_angle(reference, test, valid) == pytest.approx(45)
    assert spectral_angle(reference, test, valid[:, :, :].all(axis=0)) == pytest.approx(45)
    assert math.isnan(spectral_angle(reference, test, np.zeros((1, 5), bool)))


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_bands_and_blocks_add_up(split: int, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference, test = rng.integers(0, 9, (2, 7, 10, 4))
    valid = rng.random(reference.shape) < 0.95
    stats = SpectralAngleStats()
    for part in (np.s_[:, :rows], np.s_[:, rows:]):
        for bands in (slice(split), slice(split, None)):
            stats.add_bands(reference[part][bands], test[part][bands], valid[part][bands])
        stats.finish_block()
    assert stats.mean == pytest.approx(spectral_angle(reference, test, valid), nan_ok=True)


def test_shapes_must_fit() -> None:
    with pytest.raises(ValueError, match="the test"):
        spectral_angle(np.zeros((2, 3, 3)), np.zeros((3, 3, 3)))
