"""What the two ways of a tile, `tile_encoder` and `tile_decoder`, must agree on besides its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .components import ComponentTransform
from .georef import Number
from .masks import representable
from .radiometry import BandMapping

__all__ = ["GroupCoding", "Mask", "Pixels"]

Pixels = NDArray[Any]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class GroupCoding:
    """What coding a tile of one band group takes besides the network.

    Attributes
    ----------
    dtype : np.dtype
        Of the scene.
    mapping : tuple of BandMapping
        Per band, data units to the model's range.
    fill : tuple
        Per band, what masked pixels hold; None where none are masked.
    nodata : tuple
        Per band, the value no valid pixel may take on decoding; None without.
    halo : int
        1 where the network sees one latent of a tile's neighbours, else 0.
    max_error : tuple of float, or None
        Per band, the largest error a pixel may have, 0 for none; None where errors have no bound.
    transform : ComponentTransform or None
        What the network is given instead of the bands; never where errors have a bound.
    """

    dtype: np.dtype[Any]
    mapping: tuple[BandMapping, ...]
    fill: tuple[Number | None, ...]
    nodata: tuple[Number | None, ...]
    halo: int = 0
    max_error: tuple[float, ...] | None = None
    transform: ComponentTransform | None = None

    @property
    def bands(self) -> int:
        """Bands of the group."""
        return len(self.mapping)

    @property
    def holes(self) -> tuple[Number | None, ...]:
        """Per band, `fill` if a pixel can hold it: a nodata value of -9999 marks no pixel of a uint8 band."""
        return tuple(None if v is None or not representable(v, self.dtype) else v for v in self.fill)
