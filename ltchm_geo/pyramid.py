"""The overviews of a scene: which there are, and how large. Integers only.

Pyramid level 0 is the scene at full resolution; level k is its overview k - 1. A pixel of an overview with factor f
stands for the f x f pixels of the scene from (f y, f x) on; in the last row and column there may be fewer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ._json import require_integer, require_keys
from .bitstream import MAX_LEVEL
from .errors import UsageError
from .types import Shape2d

__all__ = [
    "LARGE",
    "MAX_STEP",
    "PREVIEW_SIDE",
    "Overview",
    "automatic_factors",
    "cascade",
    "check_overviews",
    "preview_factor",
    "reduced",
]

MAX_STEP = 64  # of a factor over the one before: divides the side of every shard
LARGE = 2048  # scenes with a longer side than this get overviews and a preview by default
PREVIEW_SIDE = 512  # of the longer side of a stored preview
_SMALL = 512


@dataclass(frozen=True)
class Overview:
    """One overview.

    Parameters
    ----------
    factor : int
        Pixels of the scene per pixel of the overview, along each side: a power of two, at least 2.
    level : int
        Quality level 0..112 it was made with.
    """

    factor: int
    level: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` gives an equal overview back."""
        return {"factor": self.factor, "level": self.level}

    @classmethod
    def from_dict(cls, found: Any) -> Overview:
        """Inverse of `to_dict`; ValueError says what is wrong. `check_overviews` looks at the numbers."""
        return cls(**require_keys(found, {"factor", "level"}, what="overview"))


def reduced(shape: Shape2d, factor: int) -> Shape2d:
    """Rows and columns of an overview; what is left over at the lower and right edge makes one more."""
    return Shape2d(-(-shape.y // factor), -(-shape.x // factor))


def automatic_factors(shape: Shape2d) -> tuple[int, ...]:
    """Factors of the overviews a scene gets by default: 4, 8, 16, ... until one is at most 512 pixels long.

    None for a scene of up to 2048 pixels. There is no factor 2: that overview alone would take a quarter of the scene
    again, and a reader makes it from full resolution four times as slowly as it would read it.
    """
    longer = max(shape)
    if longer <= LARGE:
        return ()
    factors = [4]
    while max(reduced(shape, factors[-1])) > _SMALL:
        factors.append(2 * factors[-1])
    return tuple(factors)


def preview_factor(shape: Shape2d, side: int = PREVIEW_SIDE) -> int:
    """The largest factor whose level is still at least `side` pixels long, so less than twice that; 1 without any."""
    factor = 1
    while max(reduced(shape, factor)) > 1 and max(reduced(shape, 2 * factor)) >= side:
        factor *= 2
    return factor


def cascade(factors: Iterable[int]) -> list[int]:
    """The factors to make one after the other to get at those wanted: 1, ascending, each at most `MAX_STEP` times."""
    made = [1]
    for factor in sorted(set(factors)):
        while factor > MAX_STEP * made[-1]:
            made.append(MAX_STEP * made[-1])
        if factor > made[-1]:
            made.append(factor)
    return made


def check_overviews(shape: Shape2d, overviews: Sequence[Overview]) -> None:
    """Raise `UsageError` unless factors are ascending powers of two, and levels exist."""
    before = 1
    for overview in overviews:
        factor = require_integer(overview.factor, "overview factor")
        if factor < 2 or factor & (factor - 1) or factor > max(shape):
            raise UsageError(f"overview factor {factor} is not a power of two from 2 to the scene's longer side")
        if factor <= before:
            raise UsageError(f"overview factor {factor} after {before}: each must be larger than the one before it")
        if not 0 <= require_integer(overview.level, "quality level of an overview") <= MAX_LEVEL:
            raise UsageError(f"quality level {overview.level} of an overview is outside 0..{MAX_LEVEL}")
        before = factor
