"""What a scene promises about its pixels."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from ._json import require_keys, require_list

__all__ = ["Guarantee"]


@dataclass(frozen=True)
class Guarantee:
    """How far a decoded pixel may be from the one that was coded, on every machine.

    Parameters
    ----------
    max_error : tuple of float
        Per band in file order, in data units; 0 for exact pixels. Holds for every valid pixel; NaN and infinities are
        exact.
    classes : bool
        Whether pixels are names rather than amounts (palettes, classes, flags): overviews take the value most frequent
        in a block, never one between two others.
    """

    max_error: tuple[float, ...]
    classes: bool = False

    def __post_init__(self) -> None:
        bounds, largest = self.max_error, sys.float_info.max
        if not all(isinstance(b, int | float) and not isinstance(b, bool) and 0 <= b <= largest for b in bounds):
            raise ValueError("a guaranteed error is no number from 0 on that a double can hold")
        if not isinstance(self.classes, bool):
            raise ValueError(f"classes is {self.classes!r}, not true or false")

    @property
    def lossless(self) -> bool:
        """Whether every pixel is exact, those under a mask included."""
        return not any(self.max_error)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` gives an equal guarantee back."""
        return {"max_error": list(self.max_error), "classes": self.classes}

    @classmethod
    def from_dict(cls, found: Any) -> Guarantee:
        """Strict inverse of `to_dict`; ValueError says what is wrong."""
        found = require_keys(found, {"max_error", "classes"}, what="guarantee")
        return cls(tuple(require_list(found["max_error"], "max_error")), found["classes"])
