"""Pixels of any type as pictures for the eye: three channels of 8 bits, and PNG files of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .georef_rasterio import quiet_open

if TYPE_CHECKING:
    from .scene_meta import SceneMeta

__all__ = ["Look", "Stretch", "display_bands", "encode_picture", "write_png"]

_PERCENTILES, _EXTREMES = (2.0, 98.0), (0.0, 100.0)
_JPEG_QUALITY = 75

Colors = tuple[tuple[int, ...], ...]


def display_bands(colorinterp: list[str], alpha: int | None) -> tuple[int, ...]:
    """0-based bands to show as red, green and blue: by their colour interpretation, else the first three (or one)."""
    named = [colorinterp.index(name) for name in ("red", "green", "blue") if name in colorinterp]
    if len(named) == 3:
        return tuple(named)
    coded = [band for band in range(len(colorinterp)) if band != alpha]
    return tuple(coded[:3]) if len(coded) >= 3 else tuple(coded[:1])


@dataclass(frozen=True)
class Look:
    """What is shown of a scene.

    Attributes
    ----------
    bands : tuple of int
        0-based: three as red, green and blue, or one as grey or in the colours of its table.
    classes : bool
        Whether their values are names: between two of them there is nothing, so they must not be averaged.
    colors : colours of the values 0, 1, ... of the one band, or None
    """

    bands: tuple[int, ...]
    classes: bool
    colors: Colors | None

    @classmethod
    def of(cls, meta: SceneMeta) -> Look:
        """How a scene is shown, by what it says of its bands."""
        bands = display_bands([band.colorinterp for band in meta.bands], meta.alpha)
        colors = meta.bands[bands[0]].colors or None
        classes = meta.guarantee is not None and meta.guarantee.classes
        return cls(bands if colors is None else bands[:1], classes or colors is not None, colors)

    @property
    def channels(self) -> int:
        """1 for a picture in grey, 3 for one in colours."""
        return len(self.bands) if self.colors is None else 3

    def stretch(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> Stretch:
        """What becomes of pixels (bands, h, w) of the bands that are shown: `Stretch.of`, or the colours of classes."""
        if self.colors is not None:
            return Stretch((), (), self.colors)
        return Stretch.between(_EXTREMES, pixels, valid) if self.classes else Stretch.of(pixels, valid)


@dataclass(frozen=True)
class Stretch:
    """What becomes black and what white, per band in data units; or the colours of the values 0, 1, ... of one band.

    Attributes
    ----------
    low, high : tuple of float
    colors : RGBA by value, or None
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    colors: Colors | None = None

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
        return cls.between(_PERCENTILES, pixels, valid)

    @classmethod
    def between(
        cls, percentiles: tuple[float, float], pixels: NDArray[Any], valid: NDArray[np.bool_] | None = None
    ) -> Stretch:
        """From one percentile of each band's valid finite pixels to the other; parameters are those of `of`."""
        known = np.isfinite(pixels) if valid is None else np.broadcast_to(valid, pixels.shape) & np.isfinite(pixels)
        limits = [np.percentile(b[k], percentiles) if k.any() else (0, 1) for b, k in zip(pixels, known, strict=True)]
        return cls(tuple(float(a) for a, _ in limits), tuple(float(b) if b > a else float(a) + 1 for a, b in limits))

    def apply(self, pixels: NDArray[Any], valid: NDArray[np.bool_] | None = None, hole: int = 255) -> NDArray[np.uint8]:
        """One or three bands (bands, h, w) as (3, h, w) uint8; pixels that hold no data become `hole`."""
        if self.colors is not None:
            return _painted(pixels[0], self.colors, valid, hole)
        low, high = (np.array(v, np.float64)[:, None, None] for v in (self.low, self.high))
        with np.errstate(invalid="ignore", over="ignore"):
            scaled = (pixels.astype(np.float64) - low) / (high - low) * 255
        known = np.isfinite(scaled) if valid is None else np.broadcast_to(valid, pixels.shape) & np.isfinite(scaled)
        shown = np.where(known, np.clip(np.rint(scaled), 0, 255), hole).astype(np.uint8)
        return np.broadcast_to(shown, (3, *shown.shape[1:]))


def _painted(pixels: NDArray[Any], colors: Colors, valid: NDArray[np.bool_] | None, hole: int) -> NDArray[np.uint8]:
    """Values (h, w) in their colours (3, h, w); those that the table has none for become `hole`, too."""
    known = (pixels >= 0) & (pixels < len(colors))
    table = np.array(colors, np.uint8)[:, :3]
    painted = table[np.where(known, pixels, 0).astype(np.intp)].transpose(2, 0, 1)
    return np.where(known if valid is None else known & valid, painted, np.uint8(hole))


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
