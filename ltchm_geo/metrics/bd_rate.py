"""Bjontegaard deltas: how far one rate-distortion curve lies from another, by the package `bjontegaard`.

Curves are interpolated with Akima splines over log10(rate), which follow the points more closely than the polynomial of
the original proposal (C. Herglotz et al., "Beyond Bjontegaard", ICIP 2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ltchm_geo.errors import UsageError, installing

__all__ = ["MIN_OVERLAP", "bd_problem", "bd_psnr", "bd_rate"]

Curve = Sequence[tuple[float, float]]

MIN_OVERLAP = 0.5  # of the shorter curve: with less, the few shared points say little about the curves


def bd_rate(anchor: Curve, test: Curve) -> float:
    """Mean difference in rate at equal quality.

    Parameters
    ----------
    anchor, test : sequences of (rate, quality)
        Quality in decibels (PSNR, or MS-SSIM by `ms_ssim_db`), rates in any one unit; any number of points, in any
        order. A point of infinite quality (lossless) lies on no curve and is left out.

    Returns
    -------
    Percent: -20 means that the test needs 20 % less than the anchor. NaN where `bd_problem` names a reason.

    Raises
    ------
    UsageError
        If the package bjontegaard is not installed.
    """
    return math.nan if bd_problem(anchor, test) else _delta("bd_rate", anchor, test)


def bd_psnr(anchor: Curve, test: Curve) -> float:
    """Mean difference in quality at equal rate, in decibels; positive where the test is better.

    Parameters and errors as for `bd_rate`. NaN where `bd_problem(..., axis="rate")` names a reason.
    """
    return math.nan if bd_problem(anchor, test, axis="rate") else _delta("bd_psnr", anchor, test)


def bd_problem(anchor: Curve, test: Curve, axis: str = "quality") -> str | None:
    """Why two curves have no Bjontegaard delta; None if they have one.

    Parameters
    ----------
    anchor, test : see `bd_rate`
    axis : "quality" or "rate"
        What must overlap: qualities for `bd_rate`, rates for `bd_psnr`.
    """
    for name, curve in (("anchor", anchor), ("test", test)):
        if problem := _curve_problem(curve):
            return f"the {name} {problem}"
    (low, high), (other_low, other_high) = (_span(curve, axis) for curve in (anchor, test))
    shared = min(high, other_high) - max(low, other_low)
    share = max(shared, 0.0) / min(high - low, other_high - other_low)
    if share < MIN_OVERLAP:
        return f"the curves share {share:.0%} of the shorter one's {axis}, less than {MIN_OVERLAP:.0%}"
    return None


def _points(curve: Curve) -> list[tuple[float, float]]:
    return sorted({(rate, quality) for rate, quality in curve if quality != math.inf})


def _span(curve: Curve, axis: str) -> tuple[float, float]:
    first, *_, last = _points(curve)
    return (first[1], last[1]) if axis == "quality" else (math.log10(first[0]), math.log10(last[0]))


def _curve_problem(curve: Curve) -> str | None:
    points = _points(curve)
    if len(points) < 2:
        return f"has too few points of finite quality: {len(points)}, and a curve needs two"
    if not all(math.isfinite(rate) and rate > 0 and math.isfinite(quality) for rate, quality in points):
        return "has a point without a number for its quality or a positive rate"
    if any(right[0] <= left[0] or right[1] <= left[1] for left, right in pairwise(points)):
        return "does not rise: more rate must mean more quality"
    return None


def _delta(function: str, anchor: Curve, test: Curve) -> float:
    try:
        import bjontegaard
    except ImportError as error:
        raise UsageError(f"BD-rates need the package bjontegaard: {installing('bench')}") from error
    columns: list[Any] = [np.array(column) for curve in (anchor, test) for column in zip(*_points(curve), strict=True)]
    # min_overlap=0 silences its warning: the overlap was judged above.
    options = {"method": "akima", "require_matching_points": False, "min_overlap": 0}
    return float(getattr(bjontegaard, function)(*columns, **options))
