"""Multi-scale structural similarity (Wang, Simoncelli and Bovik, 2003), block by block.

Computed by the package pytorch-msssim: five scales, Gaussian window of 11 pixels. An image is cut into blocks of at
most 1024 x 1024 pixels (see `cut`); its MS-SSIM is the mean over the blocks, weighted by their area. A block in which a
pixel is missing (nodata, mask, NaN) does not count: a made-up value there would be measured instead. Each band is an
image of its own.
"""

from __future__ import annotations

import importlib.util
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK", "MIN_SIDE", "MsSsimStats", "available", "cut", "ms_ssim"]

BLOCK = 1024
MIN_SIDE = 161  # the window must still fit after four halvings


def available() -> bool:
    """Whether pytorch-msssim is installed."""
    return importlib.util.find_spec("pytorch_msssim") is not None


def cut(side: int) -> list[tuple[int, int]]:
    """Begin and end of the blocks along one side of an image; together they cover it.

    Blocks are 1024 pixels long. Where less than half of that would remain, the last but one is cut in half, and its
    second half joins the rest: no block is too small to count unless the image is.
    """
    ends = [*range(0, side, BLOCK), side]
    if len(ends) > 2 and side - ends[-2] < BLOCK // 2:
        ends[-2] -= BLOCK // 2
    return list(pairwise(ends))


def ms_ssim(
    reference: NDArray[Any],
    test: NDArray[Any],
    peak: float,
    low: float = 0.0,
    valid: NDArray[np.bool_] | None = None,
) -> float | None:
    """MS-SSIM of one band.

    Parameters
    ----------
    reference, test : (h, w) arrays of one shape, any real types
    peak : float
        Range of the data: 255 for 8 bits.
    low : float
        Where that range begins. The measure compares mean brightness too, so it must know what is black.
    valid : (h, w) bool, or None

    Returns
    -------
    0 to 1; None if there is no block of at least 161 x 161 pixels that are all valid.

    Raises
    ------
    ImportError
        If pytorch-msssim is not installed.
    """
    stats = MsSsimStats(peak, low)
    for y0, y1 in cut(reference.shape[0]):
        for x0, x1 in cut(reference.shape[1]):
            inside = slice(y0, y1), slice(x0, x1)
            stats.add(reference[inside], test[inside], None if valid is None else valid[inside])
    return stats.value


class MsSsimStats:
    """MS-SSIM of one band, gathered from the blocks of an image.

    Parameters
    ----------
    peak, low : see `ms_ssim`
    """

    def __init__(self, peak: float, low: float = 0.0):
        self._peak, self._low = peak, low
        self._sum, self._area = 0.0, 0

    def add(self, reference: NDArray[Any], test: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> None:
        """Take in one block, (h, w) arrays; it is passed over if it is too small or has holes."""
        small = min(reference.shape) < MIN_SIDE
        if small or not self._peak > 0 or not (valid is None or valid.all()):
            return
        if not (np.isfinite(reference).all() and np.isfinite(test).all()):
            return
        self._sum += reference.size * self._measure(reference, test)
        self._area += reference.size

    def _measure(self, reference: NDArray[Any], test: NDArray[Any]) -> float:
        import torch
        from pytorch_msssim import ms_ssim as measure

        def scaled(pixels: NDArray[Any]) -> torch.Tensor:
            # To 0..1 in double precision first: float32 loses the small differences of large numbers.
            values = (pixels.astype(np.float64) - self._low) / self._peak
            return torch.from_numpy(values.astype(np.float32))[None, None]

        with torch.inference_mode():
            return float(measure(scaled(reference), scaled(test), data_range=1.0))

    @property
    def value(self) -> float | None:
        """Mean over the blocks, 0 to 1; None if none counted."""
        return self._sum / self._area if self._area else None
