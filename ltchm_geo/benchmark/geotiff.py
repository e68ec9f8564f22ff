"""Pixels as a plain GeoTIFF in memory, for codecs that take files."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

__all__ = ["ignoring_missing_georeference", "plain_geotiff"]


def plain_geotiff(pixels: NDArray[Any]) -> bytes:
    """An uncompressed GeoTIFF without georeference.

    Parameters
    ----------
    pixels : (bands, h, w)
    """
    from rasterio.io import MemoryFile

    bands, height, width = pixels.shape
    # GDAL would take the fourth of four 8-bit bands for alpha.
    photometric = "RGB" if bands == 3 else "MINISBLACK"
    with ignoring_missing_georeference(), MemoryFile() as file:
        with file.open(
            driver="GTiff",
            count=bands,
            height=height,
            width=width,
            dtype=pixels.dtype,
            interleave="pixel",
            photometric=photometric,
        ) as target:
            target.write(pixels)
        return bytes(file.getbuffer())


@contextlib.contextmanager
def ignoring_missing_georeference() -> Iterator[None]:
    """Benchmarks are about pixels: that a raster lies nowhere is no news."""
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
