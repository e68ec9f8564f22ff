"""What the two ways of a tile, `tile_encoder` and `tile_decoder`, must agree on besides its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .georef import Number
from .masks import representable
from .radiometry import BandMapping

__all__ = ["GroupCoding", "Mask", "Pixels", "to_bands", "to_channels"]

Pixels = NDArray[Any]
Mask = NDArray[np.bool_]

#: Which band of a group feeds each of the network's three channels.
_CHANNELS = {1: (0, 0, 0), 2: (0, 1, 1), 3: (0, 1, 2)}


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
    """

    dtype: np.dtype[Any]
    mapping: tuple[BandMapping, ...]
    fill: tuple[Number | None, ...]
    nodata: tuple[Number | None, ...]
    halo: int = 0
    max_error: tuple[float, ...] | None = None

    @property
    def bands(self) -> int:
        """Bands of the group, 1 to 3."""
        return len(self.mapping)

    @property
    def holes(self) -> tuple[Number | None, ...]:
        """Per band, `fill` if a pixel can hold it: a nodata value of -9999 marks no pixel of a uint8 band."""
        return tuple(None if v is None or not representable(v, self.dtype) else v for v in self.fill)


def to_channels(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The network's three channels (3, T, T) from a group's bands (1 to 3, T, T)."""
    return values[list(_CHANNELS[len(values)])]


def to_bands(values: NDArray[np.float32], bands: int) -> NDArray[np.float32]:
    """Three channels back to the group's bands; channels that carried the same band are averaged."""
    channels = np.array(_CHANNELS[bands])
    return np.stack([values[channels == band].mean(axis=0) for band in range(bands)])
