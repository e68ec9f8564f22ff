"""What can be compressed: the protocol that rasters on disk (`raster`) and xarray objects (`array_source`) fulfil."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import UsageError
from .georef import BandInfo, Georef, Number, native_nodata
from .masks import representable
from .source_files import Files
from .types import PixelBox, Shape2d

__all__ = ["MaskKind", "Purpose", "Source", "declare_nodata", "mask_kind"]

MaskKind = Literal["none", "nodata", "alpha", "mask", "nan"]
#: What is to be done with the pixels: code them lossily, within a bound, or exactly. Each takes more rasters.
Purpose = Literal["lossy", "bounded", "exact"]


class Source(Protocol):
    """A raster to compress. Reading is safe from any number of threads.

    Attributes
    ----------
    name : str
        Path or name, for messages.
    shape : Shape2d
    dtype : np.dtype
        One of `PIXEL_DTYPES`, or of `EXACT_DTYPES` unless opened for lossy coding; all bands share it.
    bands : tuple of BandInfo
    georef : Georef
    alpha : int or None
        0-based number of the alpha band.
    mask_kind : "mask" (a mask band), "alpha", "nodata", "nan" (floats whose NaN are holes) or "none"
        What marks holes in this raster; the first that applies. Nodata values may come on top of an alpha or mask band.
    classes : bool
        Whether pixels are names (classes, palettes, flags), not amounts. Only if opened for exact coding.
    address : str or None
        What other processes open it by; None for open datasets and arrays.
    nbytes_file : int or None
        Size of the raster's files on disk, side-car files included; None where there are none.
    files : Files
        What is read on this machine: nothing may be written there.
    """

    name: str
    shape: Shape2d
    dtype: np.dtype[Any]
    bands: tuple[BandInfo, ...]
    georef: Georef
    alpha: int | None
    mask_kind: MaskKind
    classes: bool
    address: str | None
    nbytes_file: int | None
    files: Files

    @property
    def raw_bytes(self) -> int:
        """Size of the pixels uncompressed."""
        return self.shape.y * self.shape.x * len(self.bands) * self.dtype.itemsize

    def read(self, box: PixelBox, bands: Sequence[int]) -> NDArray[Any]:
        """Read pixels.

        Parameters
        ----------
        box : PixelBox
            Must lie inside the raster.
        bands : 0-based band numbers

        Returns
        -------
        (bands, box.height, box.width) array of the raster's own type.

        Raises
        ------
        SourceReadError
            If the file is damaged there.
        """

    def read_mask(self, box: PixelBox) -> NDArray[np.bool_] | None:
        """What the alpha or mask band says: (box.height, box.width), True = valid; None where there is no such band.

        Only alpha 0 is invalid: translucent pixels have colours worth keeping. Nodata is not looked at here.
        """


def mask_kind(dtype: np.dtype[Any], nodata: Number | None, *, alpha: bool, mask: bool) -> MaskKind:
    """See `Source.mask_kind`; `alpha` and `mask` say whether there is such a band."""
    if mask:
        return "mask"
    if alpha:
        return "alpha"
    if nodata is not None and not math.isnan(nodata):
        return "nodata"
    return "nan" if dtype.kind == "f" else "none"


def declare_nodata(bands: Sequence[BandInfo], nodata: Number, dtype: np.dtype[Any], name: str) -> tuple[BandInfo, ...]:
    """The bands of a raster with this nodata value, but for alpha, whatever they declare.

    Raises
    ------
    UsageError
        No pixel of the type can hold it.
    """
    value = native_nodata(nodata, dtype)
    if not representable(value, dtype):
        raise UsageError(f"no pixel of {name}, which is {dtype.name}, can be the nodata value {nodata:g}")
    return tuple(band if band.colorinterp == "alpha" else replace(band, nodata=value) for band in bands)
