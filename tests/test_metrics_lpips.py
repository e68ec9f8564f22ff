"""LPIPS against frozen answers of the package lpips (see `make_lpips.py`)."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ltchm_geo.errors import WeightsNotFoundError
from ltchm_geo.metrics import lpips
from ltchm_geo.metrics.lpips import MIN_SIDE, WEIGHTS, _weights

ORACLE = Path(__file__).parent / "vectors" / "lpips_oracle.npz"


@pytest.fixture(scope="module")
def oracle() -> dict[str, np.ndarray]:
    with np.load(ORACLE, allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize("picture", ["noise", "blur", "blocks", "upside_down"])
def test_equal_to_the_package_to_the_third_decimal(oracle: dict[str, np.ndarray], picture: str) -> None:
    expected = float(oracle[f"distance.{picture}"])
    assert 0.1 < expected < 0.5
    assert lpips(oracle["reference"], oracle[picture]) == pytest.approx(expected, abs=2e-4)
    assert lpips(oracle[picture], oracle["reference"]) == pytest.approx(expected, abs=2e-4)


def test_the_oracle_says_which_version_answered(oracle: dict[str, np.ndarray]) -> None:
    assert str(oracle["lpips_version"]) == "0.1.4"


def test_the_convolutions_are_torchvisions() -> None:
    # Begin and end of the first row of the first filter, as torch prints them for torchvision's AlexNet.
    row = load_file(WEIGHTS)["conv.0.weight"][0, 0, 0]
    printed = [1.1864e-01, 9.4069e-02, 9.5435e-02, 5.5822e-02, 2.1575e-02, 4.9963e-02]
    np.testing.assert_allclose(row[[0, 1, 2, -3, -2, -1]], printed, rtol=1e-3)


def test_equal_pictures_and_other_ranges(oracle: dict[str, np.ndarray]) -> None:
    reference, test = oracle["reference"], oracle["noise"]
    assert lpips(reference, reference) == 0
    wide = [picture.astype(np.uint16) * 257 for picture in (reference, test)]
    assert lpips(*wide, peak=65535) == pytest.approx(lpips(reference, test), abs=1e-5)


def test_bad_shapes(oracle: dict[str, np.ndarray]) -> None:
    picture = oracle["reference"]
    for bad in (picture[:2], picture[0], picture[:, : MIN_SIDE - 1]):
        with pytest.raises(ValueError, match="three bands"):
            lpips(bad, bad)
    with pytest.raises(ValueError, match="the test"):
        lpips(picture, picture[:, 1:])
    assert lpips(picture[:, :MIN_SIDE, :MIN_SIDE], picture[:, -MIN_SIDE:, -MIN_SIDE:]) > 0


def test_missing_weights_are_named(oracle: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[_weights.__module__], "WEIGHTS", Path("nowhere.safetensors"))
    _weights.cache_clear()
    with pytest.raises(WeightsNotFoundError, match="install that again"):
        lpips(oracle["reference"], oracle["reference"])
