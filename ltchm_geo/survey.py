"""Stage 3: a look at the whole scene before coding, to choose each band's mapping.

Memory does not grow with the scene: integers are counted in an exact histogram, floats sampled evenly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .errors import UnsupportedRasterError
from .georef import Number
from .radiometry import UINT8_MAPPING, BandMapping

__all__ = ["BandStatistics", "Survey"]

Mask = NDArray[np.bool_]

PERCENTILES = (0.05, 99.95)
_TAIL = 0.25  # tails up to this fraction of the percentile range are mapped, not kept as outliers
_HEADROOM = (0.05, 0.25)  # below and above the percentiles otherwise: bright ends matter more (clouds, roofs, metal)
_SAMPLE, _LEAST_SAMPLE = 1_000_000, 50_000  # values kept of a band of floats
_ALL_SAMPLES = 16_000_000  # of all bands, where that leaves enough for each
_FLOAT_LIMIT = 1e300  # beyond, differences overflow; such values are outliers


@dataclass(frozen=True)
class BandStatistics:
    """What a survey found in one band.

    Parameters
    ----------
    minimum, maximum : finite valid pixels' extremes, None without any
    low, high : their 0.05 and 99.95 percentiles, None without any
    fill : first value met in a hole (what the raster holds under its mask), None without holes
    """

    minimum: Number | None
    maximum: Number | None
    low: float | None
    high: float | None
    fill: Number | None


class Survey:
    """Statistics of a scene's bands, gathered block by block.

    The result depends on the pixels and, for floats, slightly on the order of the blocks: feed them in a fixed order.
    Not thread-safe.

    Parameters
    ----------
    dtype : the raster's data type
    bands : number of bands
    """

    def __init__(self, dtype: DTypeLike, bands: int):
        self._dtype = np.dtype(dtype)
        if self._dtype.kind == "f":
            size = min(_SAMPLE, max(_LEAST_SAMPLE, _ALL_SAMPLES // max(bands, 1)))
            self._bands: list[_Accumulator] = [_FloatAccumulator(size) for _ in range(bands)]
        elif self._dtype.kind in "iu" and self._dtype.itemsize <= 2:
            self._bands = [_IntegerAccumulator(self._dtype) for _ in range(bands)]
        else:
            raise UnsupportedRasterError(f"cannot survey {self._dtype}: convert the raster to 16 bits or floats")
        self._fill: list[Number | None] = [None] * bands

    def add(self, pixels: NDArray[Any], valid: Mask, bands: Sequence[int] | None = None) -> None:
        """Take in a block.

        Parameters
        ----------
        pixels : (n, h, w) array in the raster's own type
        valid : (n, h, w) bool
        bands : the n 0-based band numbers; all bands if None
        """
        for band, plane, mask in zip(bands or range(len(self._bands)), pixels, valid, strict=True):
            values = plane[mask]
            if values.size:
                self._bands[band].add(values)
            if self._fill[band] is None and values.size < plane.size:
                self._fill[band] = plane[~mask][0].item()

    def statistics(self, band: int) -> BandStatistics:
        """What was found so far in one band (0-based)."""
        found = self._bands[band]
        low, high = found.percentiles() or (None, None)
        return BandStatistics(found.minimum, found.maximum, low, high, self._fill[band])

    def mapping(self, band: int) -> BandMapping:
        """The mapping to use for one band (0-based).

        8-bit bands always map [0, 255]. Others map all values if the tails beyond the percentiles are short; if not,
        the percentiles with some headroom, which leaves the rest as outliers.
        """
        if self._dtype == np.uint8:
            return UINT8_MAPPING
        found = self.statistics(band)
        if found.minimum is None or found.maximum is None or found.low is None or found.high is None:
            return BandMapping.between(0.0, 0.0)
        lower, upper = (float(np.clip(end, -_FLOAT_LIMIT, _FLOAT_LIMIT)) for end in (found.minimum, found.maximum))
        spread = found.high - found.low
        if upper - lower > (1 + _TAIL) * spread:
            lower = max(lower, found.low - _HEADROOM[0] * spread)
            upper = min(upper, found.high + _HEADROOM[1] * spread)
        if self._dtype.kind != "f":
            lower, upper = math.floor(lower), math.ceil(upper)
        return BandMapping.between(float(lower), float(upper))


class _Accumulator(Protocol):
    @property
    def minimum(self) -> Number | None:
        """Least finite value, None without any."""

    @property
    def maximum(self) -> Number | None:
        """Greatest finite value, None without any."""

    def add(self, values: NDArray[Any]) -> None:
        """Take in a flat, non-empty array."""

    def percentiles(self) -> tuple[float, float] | None:
        """`PERCENTILES` of the finite values, None without any."""


class _IntegerAccumulator:
    """Exact histogram of at most 16-bit integers."""

    def __init__(self, dtype: np.dtype[Any]):
        limits = np.iinfo(dtype)
        self._lowest = int(limits.min)
        self._histogram = np.zeros(int(limits.max) - self._lowest + 1, np.int64)

    @property
    def minimum(self) -> int | None:
        present = np.flatnonzero(self._histogram)
        return int(present[0]) + self._lowest if present.size else None

    @property
    def maximum(self) -> int | None:
        present = np.flatnonzero(self._histogram)
        return int(present[-1]) + self._lowest if present.size else None

    def add(self, values: NDArray[Any]) -> None:
        self._histogram += np.bincount(values.astype(np.int32) - self._lowest, minlength=self._histogram.size)

    def percentiles(self) -> tuple[float, float] | None:
        cumulated = np.cumsum(self._histogram)
        if not cumulated[-1]:
            return None
        ranks = np.array(PERCENTILES) / 100 * (cumulated[-1] - 1)
        low, high = np.searchsorted(cumulated, ranks, side="right") + self._lowest
        return float(low), float(high)


class _FloatAccumulator:
    """Exact extremes, and every n-th value; n doubles whenever the sample gets too large."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.minimum: Number | None = None
        self.maximum: Number | None = None
        self._sample: list[NDArray[np.float64]] = []
        self._kept = 0
        self._step = 1
        self._skip = 0  # values to pass over before the next one is taken

    def add(self, values: NDArray[Any]) -> None:
        finite = values[np.isfinite(values)].astype(np.float64)
        if not finite.size:
            return
        self.minimum = float(min(finite.min(), math.inf if self.minimum is None else self.minimum))
        self.maximum = float(max(finite.max(), -math.inf if self.maximum is None else self.maximum))
        taken = finite[self._skip :: self._step].clip(-_FLOAT_LIMIT, _FLOAT_LIMIT)
        self._skip = (self._skip - finite.size) % self._step
        self._sample.append(taken)
        self._kept += taken.size
        while self._kept > self._size:
            self._thin()

    def percentiles(self) -> tuple[float, float] | None:
        if self.minimum is None:
            return None
        low, high = np.percentile(np.concatenate(self._sample), PERCENTILES)
        return float(low), float(high)

    def _thin(self) -> None:
        sample = np.concatenate(self._sample)
        if sample.size % 2:
            self._skip += self._step  # the next one due would have had an odd number in the sample
        self._sample = [sample[::2].copy()]
        self._kept = self._sample[0].size
        self._step *= 2
