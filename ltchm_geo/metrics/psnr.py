"""Pixel errors: mean squared error, PSNR, largest and mean error, gathered block by block."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["ErrorStats", "known_peak", "psnr"]

_HALF = 1 << 32


def psnr(
    reference: NDArray[Any],
    test: NDArray[Any],
    peak: float | None = None,
    valid: NDArray[np.bool_] | None = None,
) -> float:
    """Peak signal-to-noise ratio, 10 log10(peak² / MSE), over all pixels of two arrays.

    Parameters
    ----------
    reference, test : arrays of one shape, any real types
    peak : float or None
        Range of the data, 255 for 8 bits; None takes the range of the reference's valid pixels.
    valid : bool array that broadcasts to the shape, or None
        Only True pixels count.

    Returns
    -------
    Decibels; inf if all pixels agree, NaN if none count.
    """
    stats = ErrorStats()
    stats.add(reference, test, valid)
    return stats.psnr(peak)


def known_peak(dtype: DTypeLike) -> float | None:
    """The range that PSNR is taken against by convention: 255 for 8 bits; None, the data's own, for other types."""
    return 255.0 if np.dtype(dtype) == np.uint8 else None


class ErrorStats:
    """Errors (test - reference) of one band, gathered from any number of blocks in constant memory.

    Sums are kept in double precision. Infinities of the same sign agree, and so do two NaN. Thread-safe.

    Attributes
    ----------
    count : int
        Pixels that counted so far.
    max_abs : float
        Largest absolute error; 0 as long as nothing counted.
    minimum, maximum : float
        Extremes of the finite pixels of the reference; inf and -inf as long as there are none.
    """

    def __init__(self) -> None:
        self.count = 0
        self.max_abs = 0.0
        self.minimum, self.maximum = math.inf, -math.inf
        self._sum = self._squares = 0.0
        self._lock = threading.Lock()

    def add(self, reference: NDArray[Any], test: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> None:
        """Take in one block.

        Parameters
        ----------
        reference, test : arrays of one shape
        valid : bool array that broadcasts to the shape, or None
            Only True pixels count.

        Raises
        ------
        ValueError
            If the shapes do not fit.
        """
        if reference.shape != test.shape:
            raise ValueError(f"the reference is {reference.shape}, the test {test.shape}")
        if valid is not None and not valid.all():
            valid = np.broadcast_to(valid, reference.shape)
            reference, test = reference[valid], test[valid]
        if not reference.size:
            return
        with np.errstate(invalid="ignore", over="ignore"):
            error = _differences(reference, test).ravel()
            if reference.dtype.kind == "f":
                # Infinities and NaN have no difference, yet they may agree.
                alike = (np.isinf(reference) & (reference == test)) | (np.isnan(reference) & np.isnan(test))
                error[alike.ravel()] = 0
            largest, total, squares = float(np.abs(error).max()), float(error.sum()), float(np.vdot(error, error))
        finite = reference if reference.dtype.kind != "f" else reference[np.isfinite(reference)]
        with self._lock:
            self.count += error.size
            self.max_abs = largest if math.isnan(largest) else max(self.max_abs, largest)
            self._sum += total
            self._squares += squares
            if finite.size:
                self.minimum = min(self.minimum, float(finite.min()))
                self.maximum = max(self.maximum, float(finite.max()))

    @property
    def mse(self) -> float:
        """Mean squared error; NaN if nothing counted."""
        return self._squares / self.count if self.count else math.nan

    @property
    def mean_error(self) -> float:
        """Mean signed error, the bias of the test; NaN if nothing counted."""
        return self._sum / self.count if self.count else math.nan

    @property
    def data_range(self) -> float:
        """Largest less smallest finite pixel of the reference; NaN without any."""
        return self.maximum - self.minimum if self.maximum >= self.minimum else math.nan

    def psnr(self, peak: float | None = None) -> float:
        """PSNR in decibels for a data range of `peak`, or of `data_range` if None.

        inf if all pixels agree; NaN if nothing counted, or the range is not positive.
        """
        peak = self.data_range if peak is None else peak
        if self.mse == 0:
            return math.inf
        if math.isnan(self.mse) or not peak > 0:
            return math.nan
        return 20 * math.log10(peak) - 10 * math.log10(self.mse) if math.isfinite(self.mse) else -math.inf


def _differences(reference: NDArray[Any], test: NDArray[Any]) -> NDArray[np.float64]:
    """test - reference in double precision, 0 only where they are equal."""
    if all(array.dtype.kind == "f" or array.dtype.itemsize < 8 for array in (reference, test)):
        return np.subtract(test, reference, dtype=np.float64)
    # Neighbours above 2**53 would be the same double: the halves of 64 bits are exact, and so are their differences.
    (high, low), (high_before, low_before) = _halves(test), _halves(reference)
    return (high - high_before) * _HALF + (low - low_before)


def _halves(values: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Exact doubles high and low with values = high * 2**32 + low."""
    if values.dtype.kind == "f":
        exact = values.astype(np.float64)
        return np.trunc(exact / _HALF), np.where(np.isinf(exact), 0, np.fmod(exact, _HALF))
    wide = values if values.dtype == np.uint64 else values.astype(np.int64)
    return (wide >> 32).astype(np.float64), (wide & (_HALF - 1)).astype(np.float64)
