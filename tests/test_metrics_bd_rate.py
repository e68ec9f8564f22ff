from __future__ import annotations

import math
import sys
from typing import Any

import bjontegaard
import numpy as np
import pytest

from ltchm_geo.errors import UsageError
from ltchm_geo.metrics import bd_problem, bd_psnr, bd_rate

Curve = list[tuple[float, float]]

# The example of the package's documentation: x265 with two presets.
ANCHOR: Curve = [(9487.76, 40.037), (4593.60, 38.615), (2486.44, 36.845), (1358.24, 34.851)]
TEST: Curve = [(9787.80, 40.121), (4469.00, 38.651), (2451.52, 36.970), (1356.24, 34.987)]
DENSE: Curve = [(0.1, 22.0), (0.2, 25.0), (0.4, 28.5), (0.8, 32.0), (1.6, 35.0), (3.2, 39.0)]


def scaled(curve: Curve, rate: float = 1.0, quality: float = 0.0) -> Curve:
    return [(r * rate, q + quality) for r, q in curve]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(("ours", "package"), [(bd_rate, "bd_rate"), (bd_psnr, "bd_psnr")])
def test_equal_to_the_package_on_its_own_example(ours: Any, package: str, order: int) -> None:
    columns = [np.array(column) for curve in (ANCHOR, TEST) for column in zip(*curve, strict=True)]
    expected = getattr(bjontegaard, package)(*columns, method="akima")
    assert ours(ANCHOR[::order], TEST[::order]) == pytest.approx(expected, rel=1e-12)


def test_the_example_is_close_to_other_interpolations() -> None:
    # By hand: straight lines in log rate, through the points, integrated over the shared qualities.
    grid = np.linspace(34.987, 40.037, 20_001)
    logs = [np.interp(grid, *np.array(sorted((q, math.log10(r)) for r, q in curve)).T) for curve in (ANCHOR, TEST)]
    by_hand = 100 * (10 ** float((logs[1] - logs[0]).mean()) - 1)
    assert bd_rate(ANCHOR, TEST) == pytest.approx(by_hand, abs=0.3)


def test_known_shifts() -> None:
    assert bd_rate(DENSE, scaled(DENSE, rate=0.8)) == pytest.approx(-20)
    assert bd_psnr(DENSE, scaled(DENSE, quality=0.7)) == pytest.approx(0.7)
    assert bd_rate(DENSE, DENSE) == bd_psnr(DENSE, DENSE) == 0


def test_curves_may_have_different_numbers_of_points_and_ranges() -> None:
    assert bd_rate(DENSE, scaled(DENSE, rate=1.25)[1:4]) == pytest.approx(25, abs=1)
    assert bd_rate(DENSE, [*scaled(DENSE, rate=0.5), (9.0, math.inf)]) == pytest.approx(-50)
    assert bd_rate(DENSE, DENSE * 2) == 0


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        pytest.param(scaled(DENSE, quality=12), "share 29%", id="hardly overlap"),
        pytest.param(scaled(DENSE, quality=40), "share 0%", id="apart"),
        pytest.param([(1.0, 30.0)], "test has too few", id="one point"),
        pytest.param([(1.0, 30.0), (2.0, math.nan)], "without a number", id="not measured"),
        pytest.param([(1.0, 30.0), (2.0, 29.0), (3.0, 33.0)], "does not rise", id="falling"),
        pytest.param([(0.0, 23.0), (2.0, 29.0)], "positive rate", id="free"),
    ],
)
def test_what_has_no_delta_says_why(test: Curve, reason: str) -> None:
    assert reason in str(bd_problem(DENSE, test))
    assert math.isnan(bd_rate(DENSE, test))


def test_equal_rates_are_needed_for_a_quality_delta() -> None:
    faraway = scaled(DENSE, rate=1000)
    assert bd_rate(DENSE, faraway) == pytest.approx(99_900)
    assert "rate" in str(bd_problem(DENSE, faraway, axis="rate"))
    assert math.isnan(bd_psnr(DENSE, faraway))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bjontegaard", None)
    with pytest.raises(UsageError, match=r"\.\[bench\]"):
        bd_rate(ANCHOR, TEST)
