"""JPEG XL at effort 7, through imagecodecs (libjxl)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .codecs import Files, Pixels, by_band, install_hint

__all__ = ["JpegXl"]

_EFFORT = 7
_DISTANCES = ("0.7", "1", "1.5", "2", "3", "4.5", "6", "9", "13", "18")
_WIDE_DISTANCES = ("0.05", "0.1", "0.2", "0.4", "0.7", *_DISTANCES[1:])


@dataclass(frozen=True)
class JpegXl:
    """See `Codec`. The setting is the distance (1 is called visually lossless).

    Its quantisation follows the eye, so what 16 bits hold must be spread over black to white first, or it would be
    coded as darkness: bands are stretched linearly, and the range, 4 bytes a band, counts as a file.
    """

    name: ClassVar[str] = "jxl"
    label: ClassVar[str] = "JPEG XL"
    excess: ClassVar[int] = 0

    def missing(self) -> str | None:
        """See `Codec.missing`."""
        return install_hint("imagecodecs", "imagecodecs")

    def refuses(self, dtype: np.dtype[Any], bands: int) -> str | None:
        """See `Codec.refuses`."""
        return None if dtype in (np.uint8, np.uint16, np.int16) else f"JPEG XL is not measured with {dtype}"

    def settings(self, dtype: np.dtype[Any]) -> tuple[str, ...]:
        """See `Codec.settings`."""
        return _DISTANCES if dtype == np.uint8 else _WIDE_DISTANCES

    def encode(self, pixels: Pixels, setting: str) -> Files:
        """See `Codec.encode`."""
        ranges: Files = ()
        if pixels.dtype != np.uint8:
            lows, highs = pixels.min((1, 2)).astype(int), pixels.max((1, 2)).astype(int)
            ranges = (struct.pack(f"<{2 * len(pixels)}i", *lows, *highs),)
            pixels = np.stack([_stretch(*band) for band in zip(pixels, lows, highs, strict=True)])
        if len(pixels) == 3:
            return *ranges, _encode(pixels, setting)
        return *ranges, *by_band(pixels, lambda band: _encode(band, setting))

    def decode(self, files: Files, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Pixels:
        """See `Codec.decode`."""
        images = files if dtype == np.uint8 else files[1:]
        pixels = np.concatenate([_decode(file, shape[0] // len(images)) for file in images])
        if dtype == np.uint8:
            return pixels
        numbers = struct.unpack(f"<{2 * shape[0]}i", files[0])
        bands = zip(pixels, numbers[: shape[0]], numbers[shape[0] :], strict=True)
        return np.stack([_unstretch(*band) for band in bands]).astype(dtype)

    def about(self) -> dict[str, Any]:
        """See `Codec.about`."""
        import imagecodecs

        return {
            "command": f"imagecodecs.jpegxl_encode(distance=SETTING, effort={_EFFORT}, numthreads=1)",
            "versions": {"imagecodecs": imagecodecs.__version__, "libjxl": imagecodecs.jpegxl_version()},
        }


def _encode(pixels: Pixels, setting: str) -> bytes:
    import imagecodecs

    image = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    image = image if len(pixels) == 3 else image[..., 0]
    return bytes(imagecodecs.jpegxl_encode(image, distance=float(setting), effort=_EFFORT, numthreads=1))


def _decode(file: bytes, bands: int) -> Pixels:
    import imagecodecs

    image = imagecodecs.jpegxl_decode(file, numthreads=1)
    return image.reshape(*image.shape[:2], bands).transpose(2, 0, 1)


def _stretch(band: Pixels, low: int, high: int) -> Pixels:
    scale = 65535 / max(high - low, 1)
    return np.rint((band.astype(np.float64) - low) * scale).astype(np.uint16)


def _unstretch(band: Pixels, low: int, high: int) -> Pixels:
    return np.rint(band * (max(high - low, 1) / 65535) + low)
