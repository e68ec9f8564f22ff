"""Sizes of rasters that are kept exactly or within a bound, beside LERC, JPEG-LS, JPEG XL and lossless GeoTIFFs.

Whole files, every byte counted; largest errors are those of the pixels that come back. JPEG-LS and JPEG XL are bare
streams of one band each (JPEG XL also of three at once, where that is smaller) without georeferencing, which favours
them by some kilobytes a file. JPEG XL has no bound, so it codes the pixels quantised to the bound losslessly.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltchm_geo import compress_raster, decompress_raster
from ltchm_geo.benchmark.geotiff import ignoring_missing_georeference
from ltchm_geo.masks import valid_pixels
from ltchm_geo.radiometry import band_groups
from ltchm_geo.raster import open_source
from ltchm_geo.schedule import Progress, Ticker
from ltchm_geo.types import PixelBox

__all__ = ["GuaranteeRow", "measure_guarantees"]

Pixels = NDArray[Any]

_JXL_EFFORT = 7
_COG = {"driver": "COG", "OVERVIEWS": "NONE", "BLOCKSIZE": "256", "NUM_THREADS": "1"}


@dataclass(frozen=True)
class GuaranteeRow:
    """One raster at one bound.

    Attributes
    ----------
    name, shape, dtype : of the raster (bands, rows, columns)
    bound : largest error allowed; 0 for none
    bytes : size by codec; None where a codec does not know the type
    error : largest error of this library's pixels
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bound: float
    bytes: dict[str, int | None]
    error: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return asdict(self)


def measure_guarantees(
    paths: Sequence[Path], bounds: Sequence[float], side: int, progress: Progress | None = None
) -> list[GuaranteeRow]:
    """Measure.

    Parameters
    ----------
    paths : rasters
    bounds : largest errors, 0 among them for exact pixels; those of less than 1 are for floats only, and the others
        but 0 for integers only
    side : larger rasters are cut to their upper left pixels
    """
    ticker = Ticker(len(paths) * len(bounds), progress)
    rows = []
    for path in paths:
        with _crop(path, side) as (cut, pixels, valid):
            for bound in bounds:
                if not bound or (bound < 1) == (pixels.dtype.kind == "f"):
                    rows.append(_measure(path.stem, cut, pixels, valid, bound))
                ticker.add(1)
    return rows


@contextlib.contextmanager
def _crop(path: Path, side: int) -> Iterator[tuple[Path, Pixels, Pixels]]:
    """A raster's upper left corner as a GeoTIFF, its pixels, and which are valid."""
    import rasterio
    from rasterio.windows import Window

    with (
        tempfile.TemporaryDirectory() as folder,
        ignoring_missing_georeference(),
        open_source(path, "exact") as source,
        rasterio.open(path) as opened,
    ):
        box = PixelBox(0, 0, min(side, source.shape.y), min(side, source.shape.x))
        pixels = source.read(box, range(len(source.bands)))
        valid = valid_pixels(pixels, [band.nodata for band in source.bands], source.read_mask(box))
        cut = Path(folder) / "cut.tif"
        profile = opened.profile | {"driver": "GTiff", "height": box.height, "width": box.width, "compress": "deflate"}
        profile["transform"] = opened.window_transform(Window(0, 0, box.width, box.height))
        with rasterio.open(cut, "w", **profile) as out:
            out.write(pixels)
            out.colorinterp = opened.colorinterp
        yield cut, pixels, valid


def _measure(name: str, cut: Path, pixels: Pixels, valid: Pixels, bound: float) -> GuaranteeRow:
    import rasterio

    options: dict[str, Any] = {"max_error": bound} if bound else {"lossless": True}
    scene = compress_raster(cut, cut.with_name("scene.ltchm"), overwrite=True, **options)
    restored = decompress_raster(scene.path, cut.with_name("restored.tif"), overwrite=True).path
    with rasterio.open(restored) as opened:
        error = np.abs(opened.read()[valid].astype(np.float64) - pixels[valid])
    sizes: dict[str, int | None] = {"ltchm": scene.bytes}
    for label, size in _others(cut, pixels, bound).items():
        sizes[label] = size()
    largest = float(np.nanmax(error)) if error.size else 0.0
    return GuaranteeRow(name, pixels.shape, pixels.dtype.name, bound, sizes, largest)


def _others(cut: Path, pixels: Pixels, bound: float) -> dict[str, Callable[[], int | None]]:
    predictor = "3" if pixels.dtype.kind == "f" else "2"
    found: dict[str, Callable[[], int | None]] = {}
    if bound:
        found["LERC"] = lambda: _cog(cut, COMPRESS="LERC", MAX_Z_ERROR=str(bound))
        found["LERC_ZSTD"] = lambda: _cog(cut, COMPRESS="LERC_ZSTD", MAX_Z_ERROR=str(bound))
    else:
        found["DEFLATE"] = lambda: _cog(cut, COMPRESS="DEFLATE", LEVEL="9", PREDICTOR=predictor)
        found["ZSTD"] = lambda: _cog(cut, COMPRESS="ZSTD", LEVEL="19", PREDICTOR=predictor)
    found["JPEG-LS"] = lambda: _jpegls(pixels, bound)
    found["JPEG XL"] = lambda: _jpegxl(pixels, bound)
    return found


def _cog(cut: Path, **options: str) -> int:
    import rasterio.shutil

    path = cut.with_name("cog.tif")
    rasterio.shutil.copy(cut, path, **_COG, **options)
    return path.stat().st_size


def _unsigned(pixels: Pixels) -> Pixels | None:
    """Integers of up to 16 bits from 0 on; None of other types."""
    if pixels.dtype.kind == "f" or pixels.dtype.itemsize > 2:
        return None
    shifted = pixels.astype(np.int64) - int(pixels.min())
    return shifted.astype(np.uint8 if shifted.max() < 256 else np.uint16)


def _jpegls(pixels: Pixels, bound: float) -> int | None:
    import imagecodecs

    planes = _unsigned(pixels)
    if planes is None:
        return None
    return sum(len(imagecodecs.jpegls_encode(np.ascontiguousarray(p), level=int(bound))) for p in planes)


def _jpegxl(pixels: Pixels, bound: float) -> int | None:
    import imagecodecs

    planes = _unsigned(pixels)
    if planes is None:
        return None
    if bound:
        planes = ((planes.astype(np.int64) + int(bound)) // (2 * int(bound) + 1)).astype(planes.dtype)

    def size(picture: Pixels) -> int:
        return len(imagecodecs.jpegxl_encode(np.ascontiguousarray(picture), lossless=True, effort=_JXL_EFFORT))

    total = 0
    for group in band_groups(["undefined"] * len(planes)):
        apart = sum(size(planes[band]) for band in group)
        total += min(apart, size(np.moveaxis(planes[list(group)], 0, -1))) if len(group) == 3 else apart
    return total
