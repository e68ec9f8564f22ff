"""Stage 3b: the bands of a group as pictures that the network codes well, and back.

The network takes three channels and learnt pictures whose channels are much alike. Up to three bands are given to it as
they are. More are first turned into uncorrelated components, as multi-component transforms of JPEG 2000 do: nearly all
of what the bands share goes into the first, which is then coded by itself, in all three channels alike; what is left in
the others is little (docs/decisions/0015-components.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._json import require_integer, require_keys, require_list

__all__ = ["MAX_COMPONENTS", "ComponentTransform", "Moments", "to_bands", "to_channels"]

MAX_COMPONENTS = 16

#: Which band, or which plane of a pass, feeds each of the network's three channels.
_CHANNELS = {1: (0, 0, 0), 2: (0, 1, 1), 3: (0, 1, 2)}
#: Levels below that of the tile at which a pass is coded. The network weighs the mean error of three channels; where
#: these carry fewer planes, each would weigh 3 or 1.5 times as much: 16 log2 of that.
_LOWER = {1: 25, 2: 9, 3: 0}
#: How the components of a pass are mixed into its planes, so that the strongest is in all of them, as brightness is.
MIXING = {
    1: np.eye(1),
    2: np.array([[1, 1], [1, -1]]) / 2**0.5,
    3: np.array([[1, 1, 1], [1, 0, -2], [1, -1, 1]]) / np.sqrt([3, 2, 6]),
}
_UNIT, _LARGEST = 1024, 4096  # of stored numbers
_MIDDLE = 0.5  # of the model's range
_UNLIKE = 0.1  # share of all energy: with less outside the first component, three bands suit the network as they are

Values = NDArray[np.float32]


def to_channels(planes: Values) -> Values:
    """The network's three channels (3, h, w) from one to three planes (n, h, w)."""
    return planes[list(_CHANNELS[len(planes)])]


def to_bands(values: Values, count: int) -> Values:
    """Three channels back to `count` planes; channels that carried the same plane are averaged."""
    channels = np.array(_CHANNELS[count])
    return np.stack([values[channels == plane].mean(axis=0) for plane in range(count)])


@dataclass(frozen=True)
class ComponentTransform:
    """How bands follow from planes that the network codes: band = centre + matrix (plane - 1/2), in the model's range.

    Parameters
    ----------
    passes : tuple of int
        How many of the planes, in order, each pass through the network carries: 1 to 3. As many planes as bands.
    matrix : tuple of tuple of int
        One row per band, one number per plane, in 1/1024.
    centre : tuple of int
        One number per band, in 1/1024.

    Raises
    ------
    ValueError
        Numbers out of range, or too many, or too few.
    """

    passes: tuple[int, ...]
    matrix: tuple[tuple[int, ...], ...]
    centre: tuple[int, ...]

    def __post_init__(self) -> None:
        bands = len(self.centre)
        if not 2 <= bands <= MAX_COMPONENTS or any(count not in _CHANNELS for count in self.passes):
            raise ValueError(f"a transform of {bands} bands in passes of {list(self.passes)}")
        if sum(self.passes) != bands or [len(row) for row in self.matrix] != [bands] * bands:
            raise ValueError(f"a transform of {bands} bands takes as many planes, and a square matrix")
        if not all(-_LARGEST <= number <= _LARGEST for row in (self.centre, *self.matrix) for number in row):
            raise ValueError(f"numbers of a transform lie outside {-_LARGEST}..{_LARGEST}")

    @classmethod
    def of(cls, mean: NDArray[np.float64], covariance: NDArray[np.float64]) -> ComponentTransform:
        """The Karhunen-Loeve transform of bands with this mean (B,) and covariance (B, B) in the model's range."""
        _, vectors = np.linalg.eigh(covariance)
        vectors = vectors[:, ::-1]
        vectors = vectors * np.where(vectors.sum(axis=0) < 0, -1, 1)
        passes, first, columns = _passes(len(mean)), 0, []
        for count in passes:
            columns.append(vectors[:, first : first + count] @ MIXING[count].T)
            first += count
        matrix = np.rint(_UNIT * np.concatenate(columns, axis=1)).astype(int)
        centre = np.rint(_UNIT * mean).astype(int)
        return cls(passes, tuple(map(tuple, matrix.tolist())), tuple(centre.tolist()))

    def level(self, number: int, level: int) -> int:
        """Quality level of a pass in a tile of quality level `level`."""
        return max(0, level - _LOWER[self.passes[number]])

    def planes(self, bands: Values) -> list[Values]:
        """The planes (n, h, w) of each pass from all bands (B, h, w)."""
        found = np.linalg.solve(self._matrix, (bands - self._centre).reshape(len(bands), -1)).astype(np.float32)
        return np.split(found.reshape(bands.shape) + np.float32(_MIDDLE), list(accumulate(self.passes))[:-1])

    def bands(self, planes: Sequence[Values]) -> Values:
        """All bands (B, h, w) from the planes of all passes: the inverse of `planes`."""
        joined = np.concatenate(planes) - _MIDDLE
        restored = self._matrix @ joined.reshape(len(joined), -1).astype(np.float64)
        return (restored.reshape(joined.shape) + self._centre).astype(np.float32)

    @property
    def _matrix(self) -> NDArray[np.float64]:
        return np.array(self.matrix) / _UNIT

    @property
    def _centre(self) -> NDArray[np.float64]:
        return np.array(self.centre)[:, None, None] / _UNIT

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` gives an equal transform back."""
        return {"passes": list(self.passes), "matrix": list(map(list, self.matrix)), "centre": list(self.centre)}

    @classmethod
    def from_dict(cls, found: Any) -> ComponentTransform:
        """Strict inverse of `to_dict`; ValueError says what is wrong."""
        found = require_keys(found, {"passes", "matrix", "centre"}, what="transform")

        def whole(numbers: Any, what: str) -> tuple[int, ...]:
            numbers = require_list(numbers, what)
            if len(numbers) > MAX_COMPONENTS:
                raise ValueError(f"{what} of a transform has {len(numbers)} entries")
            return tuple(require_integer(number, what) for number in numbers)

        rows = require_list(found["matrix"], "matrix")
        if len(rows) > MAX_COMPONENTS:
            raise ValueError(f"matrix of a transform has {len(rows)} rows")
        matrix = tuple(whole(row, "matrix") for row in rows)
        return cls(whole(found["passes"], "passes"), matrix, whole(found["centre"], "centre"))


def _passes(bands: int) -> tuple[int, ...]:
    """The strongest component by itself, of five bands and more also the second, the others in threes.

    Two or three bands are only mixed where the others are strong as well: each by itself.
    """
    alone = bands if bands < 4 else 1 if bands == 4 else 2
    rest = bands - alone
    return (1,) * alone + (3,) * (rest // 3) + ((rest % 3,) if rest % 3 else ())


class Moments:
    """Mean and covariance of bands, gathered block by block."""

    def __init__(self, bands: int):
        self._count, self._sum, self._products = 0, np.zeros(bands), np.zeros((bands, bands))

    def add(self, values: Values) -> None:
        """Take in the pixels (B, n) that are valid in all bands."""
        centred = values.astype(np.float64) - _MIDDLE
        self._count += values.shape[1]
        self._sum += centred.sum(axis=1)
        self._products += centred @ centred.T

    def transform(self) -> ComponentTransform | None:
        """What suits these bands; None for two or three much alike, and without pixels to tell from."""
        if self._count < 2:
            return None
        mean = self._sum / self._count
        covariance = self._products / self._count - np.outer(mean, mean)
        energies = np.linalg.eigvalsh(covariance)
        if len(mean) < 4 and energies[:-1].sum() <= _UNLIKE * energies.sum():
            return None
        return ComponentTransform.of(mean + _MIDDLE, covariance)
