"""Whether tiles that were coded apart can be seen in the picture, by single pixels and by what the eye sees of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["seam_step", "seam_visibility"]

_ACROSS, _ALONG = 4, 16


def seam_visibility(
    reference: NDArray[Any],
    test: NDArray[Any],
    tile: int = 256,
    valid: NDArray[np.bool_] | None = None,
    *,
    period: int = 16,
) -> float:
    """Energy of the error's gradient across tile borders, relative to the inside of tiles.

    Where tiles are coded apart their errors differ, and the error (test - reference) jumps at the border: a ratio of 2
    means jumps of twice the energy. Where an image is coded as a whole the border is a place like any other: 1.

    Codecs have patterns of their own: the error of a network whose latents stand for 16 x 16 pixels steps more at
    multiples of 16 than between them, all over the image, and tile borders are such multiples. So they are compared
    with the other multiples. An image with a handful of borders gives a rough value: what is on them counts, too.

    Parameters
    ----------
    reference, test : (bands, h, w) or (h, w) arrays of one shape, any real types
    tile : int
        Side of the tiles in pixels, counted from the upper left corner; more than a period.
    valid : bool array that broadcasts to the shape, or None
        Only True pixels count.
    period : int
        Pixels after which the codec's pattern repeats: 16 suits LTCHM and codecs with blocks of 4, 8 or 16 pixels; 1
        compares with all pixels.

    Returns
    -------
    0 to inf: mean squared difference of the error between the two sides of a border, divided by that between the two
    sides of the places one, two, ... periods after a border, over all rows, columns and bands. 1 if the error is
    constant, NaN if the image has no border.

    Raises
    ------
    ValueError
        If the shapes differ or the tile is too small.
    """
    error = _error(reference, test, tile, valid, period)
    across = _mean_square_step(error, lambda place: place % tile == 0)
    inside = _mean_square_step(error, lambda place: (place % tile != 0) & (place % tile % period == 0))
    if inside == 0 and across >= 0:
        return math.inf if across else 1.0
    return across / inside if inside else math.nan


def seam_step(
    reference: NDArray[Any],
    test: NDArray[Any],
    tile: int = 256,
    valid: NDArray[np.bool_] | None = None,
    *,
    period: int = 16,
) -> tuple[float, float]:
    """The visible part of seams: steps of the error's local mean, as they draw lines where the picture is smooth.

    Between the means of 4 pixels on either side and 16 along a border, in which single pixels' errors cancel.

    Parameters
    ----------
    As for `seam_visibility`.

    Returns
    -------
    (across, inside), in the data's units: root mean square of the steps across tile borders, and across the places
    whole periods after a border. Equal where nobody sees a seam. NaN where the image has no such place.

    Raises
    ------
    ValueError
        If the shapes differ or the tile is too small.
    """
    error = _error(reference, test, tile, valid, period)
    found = []
    for borders in (True, False):
        steps = [_steps_of_means(np.moveaxis(error, axis, -1), tile, period, borders) for axis in (-1, -2)]
        together = np.concatenate(steps)
        together = together[np.isfinite(together)]
        found.append(float(np.sqrt(np.mean(together**2))) if together.size else math.nan)
    return found[0], found[1]


def _error(
    reference: NDArray[Any], test: NDArray[Any], tile: int, valid: NDArray[np.bool_] | None, period: int
) -> NDArray[np.float64]:
    """test - reference, NaN where it does not count."""
    if reference.shape != test.shape:
        raise ValueError(f"the reference is {reference.shape}, the test {test.shape}")
    if not tile > period > 0:
        raise ValueError(f"tiles of {tile} pixels have no inside with a period of {period}")
    error: NDArray[np.float64] = test.astype(np.float64) - reference
    if valid is not None:
        error[~np.broadcast_to(valid, error.shape)] = np.nan
    return error


def _steps_of_means(error: NDArray[np.float64], tile: int, period: int, borders: bool) -> NDArray[np.float64]:
    """Steps along the last axis at tile borders, or at the other multiples of the period."""
    length = error.shape[-2] // _ALONG * _ALONG
    places = np.arange(period, error.shape[-1] - _ACROSS + 1, period)
    places = places[(places >= _ACROSS) & ((places % tile == 0) == borders)]
    if not length or not places.size:
        return np.empty(0)
    columns = places[:, None] + np.arange(-_ACROSS, _ACROSS)
    strips = error[..., :length, columns]  # (..., length, places, 2 x 4)
    means = strips.reshape(*strips.shape[:-1], 2, _ACROSS).mean(-1)
    steps = (means[..., 1] - means[..., 0]).reshape(*error.shape[:-2], -1, _ALONG, places.size).mean(-2)
    found: NDArray[np.float64] = steps.ravel()
    return found


def _mean_square_step(error: NDArray[np.float64], chosen: Callable[[NDArray[np.intp]], NDArray[np.bool_]]) -> float:
    """Mean squared difference between the pixels before and at the chosen rows and columns."""
    total, count = 0.0, 0
    for axis in (-1, -2):
        places = np.arange(1, error.shape[axis])
        places = places[chosen(places)]
        steps = np.take(error, places, axis) - np.take(error, places - 1, axis)
        steps = steps[np.isfinite(steps)]
        total, count = total + float(np.vdot(steps, steps)), count + steps.size
    return total / count if count else math.nan
