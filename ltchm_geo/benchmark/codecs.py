"""The codecs that can be measured: real encoders behind one interface, found by name.

Nothing is imported before it is asked for; a codec whose encoder is not installed says what to install.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ltchm_geo.errors import UsageError, installing

__all__ = ["NAMES", "Codec", "Coded", "Files", "by_band", "code", "codec", "install_hint"]

Pixels = NDArray[Any]
Files = tuple[bytes, ...]


class Codec(Protocol):
    """One encoder with one free parameter.

    Attributes
    ----------
    name : on the command line and in file names
    label : for people
    excess : bytes a file that stands for another format has more than that format; not counted
    """

    @property
    def name(self) -> str: ...  # noqa: D102  # see Attributes
    @property
    def label(self) -> str: ...  # noqa: D102
    @property
    def excess(self) -> int: ...  # noqa: D102

    def missing(self) -> str | None:
        """Why this codec cannot run here and what to install; None if it can."""

    def refuses(self, dtype: np.dtype[Any], bands: int) -> str | None:
        """Why it cannot code such rasters; None if it can."""

    def settings(self, dtype: np.dtype[Any]) -> tuple[str, ...]:
        """The values of its parameter that are measured."""

    def encode(self, pixels: Pixels, setting: str) -> Files:
        """Complete files that hold the raster; more than one where the format has no place for all bands.

        Parameters
        ----------
        pixels : (bands, h, w)
        """

    def decode(self, files: Files, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Pixels:
        """The raster back, of the shape and type it had."""

    def about(self) -> dict[str, Any]:
        """Versions, and the command or call."""


@dataclass(frozen=True)
class Coded:
    """A raster encoded and decoded again.

    Attributes
    ----------
    pixels : as decoded
    bytes : of all files
    encode_s, decode_s : wall seconds
    """

    pixels: Pixels
    bytes: int
    encode_s: float
    decode_s: float


def code(codec: Codec, pixels: Pixels, setting: str) -> Coded:
    """Encode and decode.

    Parameters
    ----------
    pixels : (bands, h, w)
    """
    start = time.perf_counter()
    files = codec.encode(pixels, setting)
    middle = time.perf_counter()
    restored = codec.decode(files, pixels.shape, pixels.dtype)
    end = time.perf_counter()
    if restored.shape != pixels.shape or restored.dtype != pixels.dtype:
        raise RuntimeError(f"{codec.name} gave back {restored.shape} {restored.dtype}")
    return Coded(restored, sum(len(file) - codec.excess for file in files), middle - start, end - middle)


def by_band(pixels: Pixels, encode: Callable[[Pixels], bytes]) -> Files:
    """Each band as a file of its own; `encode` gets (1, h, w)."""
    return tuple(encode(np.ascontiguousarray(pixels[band : band + 1])) for band in range(len(pixels)))


def install_hint(module: str, distribution: str) -> str | None:
    """What to install if a module is not there; None if it is."""
    if find_spec(module) is not None:
        return None
    return f"needs {distribution}: {installing('bench')}"


# --- by name ---------------------------------------------------------------------------------------------------------


def _pillow(name: str) -> Codec:
    from .codecs_pillow import PILLOW_CODECS

    return PILLOW_CODECS[name]


def _jxl(_name: str) -> Codec:
    from .codecs_jxl import JpegXl

    return JpegXl()


def _video(name: str) -> Codec:
    from .codecs_video import VIDEO_CODECS

    return VIDEO_CODECS[name]


def _cog(name: str) -> Codec:
    from .codecs_cog import COG_CODECS

    return COG_CODECS[name]


_FACTORIES: dict[str, Callable[[str], Codec]] = {
    **dict.fromkeys(("openjpeg53", "openjpeg97", "jpeg", "webp", "avif", "avif-best"), _pillow),
    "jxl": _jxl,
    **dict.fromkeys(("hevc", "vvc"), _video),
    **dict.fromkeys(("cog-jpeg", "cog-webp", "cog-lerc", "cog-zstd"), _cog),
}
LTCHM = "ltchm"
NAMES = (*_FACTORIES, LTCHM)


def codec(name: str, *, model: str | None = None, device: str = "auto") -> Codec:
    """A codec by name.

    Parameters
    ----------
    name : one of `NAMES`
    model, device : for ``ltchm``, as in `ltchm_geo.compress_raster`

    Raises
    ------
    UsageError
        If there is no such codec.
    """
    if name == LTCHM:
        from .codecs_ltchm import Ltchm

        return Ltchm.of(model, device)
    if name not in _FACTORIES:
        raise UsageError(f"there is no codec {name!r}; choose from {', '.join(NAMES)}")
    return _FACTORIES[name](name)
