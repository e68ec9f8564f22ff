"""Pixels of any type as pictures for the eye: three channels of 8 bits, and PNG files of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .georef_rasterio import quiet_open

__all__ = ["Stretch", "display_bands", "encode_picture", "write_png"]

_PERCENTILES = (2.0, 98.0)
_JPEG_QUALITY = 75


def display_bands(colorinterp: list[str], alpha: int | None) -> tuple[int, ...]:
    """0-based bands to show as red, green and blue: by their colour interpretation, else the first three (or one)."""
    named = [colorinterp.index(name) for name in ("red", "green", "blue") if name in colorinterp]
    if len(named) == 3:
        return tuple(named)
    coded = [band for band in range(len(colorinterp)) if band != alpha]
    return tuple(coded[:3]) if len(coded) >= 3 else tuple(coded[:1])


@dataclass(frozen=True)
class Stretch:
    """What becomes black and what white, per band in data units.

    Attributes
    ----------
    low, high : tuple of float
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, pixels: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> Stretch:
        """0 to 255 for uint8, else from the 2nd to the 98th percentile of each band's valid finite pixels.

        Parameters
        ----------
        pixels : (bands, h, w)
        valid : bool that broadcasts to the same shape, or None
        """
        if pixels.dtype == np.uint8:
            return cls((0.0,) * len(pixels), (255.0,) * len(pixels))
        known = np.isfinite(pixels) if valid is None else np.broadcast_to(valid, pixels.shape) & np.isfinite(pixels)
        limits = [np.percentile(b[k], _PERCENTILES) if k.any() else (0, 1) for b, k in zip(pixels, known, strict=True)]
        return cls(tuple(float(a) for a, _ in limits), tuple(float(b) if b > a else float(a) + 1 for a, b in limits))

    def apply(self, pixels: NDArray[Any], valid: NDArray[np.bool_] | None = None, hole: int = 255) -> NDArray[np.uint8]:
        """One or three bands (bands, h, w) as (3, h, w) uint8; pixels that hold no data become `hole`."""
        low, high = (np.array(v, np.float64)[:, None, None] for v in (self.low, self.high))
        with np.errstate(invalid="ignore", over="ignore"):
            scaled = (pixels.astype(np.float64) - low) / (high - low) * 255
        known = np.isfinite(scaled) if valid is None else np.broadcast_to(valid, pixels.shape) & np.isfinite(scaled)
        shown = np.where(known, np.clip(np.rint(scaled), 0, 255), hole).astype(np.uint8)
        return np.broadcast_to(shown, (3, *shown.shape[1:]))


def encode_picture(picture: NDArray[np.uint8], driver: str) -> bytes:
    """A picture (1, 3 or 4, h, w) as the bytes of a "JPEG" or "PNG" file; the fourth band is opacity."""
    from rasterio.io import MemoryFile

    options = {"quality": _JPEG_QUALITY} if driver == "JPEG" else {}
    count, height, width = picture.shape
    profile = {"driver": driver, "count": count, "height": height, "width": width, "dtype": "uint8"}
    with MemoryFile() as file:
        with quiet_open(file.name, "w", **profile, **options) as out:
            out.write(picture)
        return bytes(file.read())


def write_png(path: str | os.PathLike[str], picture: NDArray[np.uint8]) -> Path:
    """Write (3, h, w) uint8 as a PNG file, replacing one of that name."""
    path = Path(path)
    path.write_bytes(encode_picture(picture, "PNG"))
    return path
