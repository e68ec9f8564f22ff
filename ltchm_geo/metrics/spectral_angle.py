"""Spectral angle (Kruse et al., 1993): how much colours turned, whatever became of their brightness."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SpectralAngleStats", "spectral_angle"]


def spectral_angle(reference: NDArray[Any], test: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> float:
    """Mean angle between the spectra of two images, pixel by pixel.

    Parameters
    ----------
    reference, test : (bands, h, w) arrays of one shape, any real types
    valid : bool array that broadcasts to the shape, or None
        A pixel counts only if it is valid in every band.

    Returns
    -------
    Degrees, 0 to 180; NaN if no pixel counts. Pixels that are zero in all bands have no direction and do not count.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    stats = SpectralAngleStats()
    stats.add_bands(reference, test, valid)
    stats.finish_block()
    return stats.mean


class SpectralAngleStats:
    """Spectral angle of an image of any size, gathered block by block, and within a block by groups of bands.

    Call `add_bands` for each group of bands of a block, then `finish_block`.
    """

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0
        self._products: NDArray[np.float64] | None = None  # of the block in work: r·t, r·r, t·t

    def add_bands(self, reference: NDArray[Any], test: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> None:
        """Take in some bands of one block; parameters as for `spectral_angle`."""
        if reference.shape != test.shape:
            raise ValueError(f"the reference is {reference.shape}, the test {test.shape}")
        if self._products is None:
            self._products = np.zeros((3, *reference.shape[1:]))
        for band in range(len(reference)):
            ours, theirs = reference[band].astype(np.float64), test[band].astype(np.float64)
            if valid is not None and not valid.all():
                ours[~np.broadcast_to(valid, reference.shape)[band]] = np.nan  # which stays in the sums
            with np.errstate(over="ignore", invalid="ignore"):
                for total, left, right in zip(
                    self._products, (ours, ours, theirs), (theirs, ours, theirs), strict=True
                ):
                    total += left * right

    def finish_block(self) -> None:
        """All bands of the block are in: add up its angles."""
        if self._products is None:
            return
        dot, ours, theirs = self._products
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.sqrt(ours * theirs)  # of equal spectra exactly their dot product
            counts = (ours > 0) & (theirs > 0) & np.isfinite(dot) & np.isfinite(norms)
        dot, norms = dot[counts], norms[counts]
        # Not arccos, which loses small angles.
        angles = np.arctan2(np.sqrt(np.maximum((norms - dot) * (norms + dot), 0)), dot)
        self._sum += float(angles.sum())
        self._count += angles.size
        self._products = None

    @property
    def mean(self) -> float:
        """Mean angle in degrees over the finished blocks; NaN if no pixel counted."""
        return math.degrees(self._sum / self._count) if self._count else math.nan
