"""`compare_rasters`: how far one raster is from another, in pixels and in everything else that should survive.

Works through both rasters window by window, so that memory does not grow with them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._json import encode_number
from .comparable import Comparable, open_comparable
from .georef import BandInfo
from .masks import valid_pixels
from .metadata_compare import MetadataDifference, metadata_differences
from .metrics import ErrorStats, MsSsimStats, SpectralAngleStats, ms_ssim_db
from .metrics.ms_ssim import MIN_SIDE, cut
from .types import PixelBox

__all__ = ["BandComparison", "Comparison", "MetadataDifference", "compare_rasters"]

Mask = NDArray[np.bool_]

_WINDOW_BYTES = 128 << 20  # of pixels read at once from each raster


@dataclass(frozen=True)
class BandComparison:
    """How far one band is from the reference's, over pixels valid in both.

    Attributes
    ----------
    band : int
        Counted from 1.
    name : str
        Its description or colour, for people; may be empty.
    count : int
        Pixels compared.
    peak : float
        255 for uint8, else the range of the reference's valid finite pixels; NaN if there are none.
    psnr : float
        In decibels against `peak`; inf if all pixels agree, NaN if it is undefined.
    mse, mean_error, max_error : float
        In units of the data (squared); mean_error is signed, test - reference; max_error absolute. NaN without pixels.
    ms_ssim : float or None
        0 to 1, see `metrics.ms_ssim`; None for an alpha band and where it cannot be measured.
    """

    band: int
    name: str
    count: int
    peak: float
    psnr: float
    mse: float
    mean_error: float
    max_error: float
    ms_ssim: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary; "Infinity" and "NaN" stand for what JSON cannot hold."""
        return {key: value if isinstance(value, str) else encode_number(value) for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Comparison:
    """What comparing two rasters gave.

    Attributes
    ----------
    reference, test : str
        Their names.
    bands : tuple of BandComparison
        In file order, alpha included; empty if the sizes differ.
    psnr : float or None
        Over all bands but alpha: of the mean of their mean squared errors, each relative to its band's range. For 8
        bits this is the PSNR of the image. None if no band has one.
    ms_ssim : float or None
        Mean over the bands that have one.
    spectral_angle : float or None
        Mean angle between the pixels' spectra in degrees, over pixels valid in all bands but alpha; None if there are
        fewer than two such bands or no such pixel.
    validity_changed : int
        Pixel positions that hold data (in any band) in one raster and none in the other.
    metadata : tuple of MetadataDifference
    notes : tuple of str
        What could not be measured, and why.
    """

    reference: str
    test: str
    bands: tuple[BandComparison, ...]
    psnr: float | None
    ms_ssim: float | None
    spectral_angle: float | None
    validity_changed: int
    metadata: tuple[MetadataDifference, ...]
    notes: tuple[str, ...] = ()

    @property
    def ms_ssim_db(self) -> float | None:
        """`ms_ssim` in decibels, -10 log10(1 - ms_ssim)."""
        return None if self.ms_ssim is None else ms_ssim_db(self.ms_ssim)

    @property
    def same_size(self) -> bool:
        """Whether rows, columns and the number of bands agree; pixels are compared only then."""
        return bool(self.bands)

    @property
    def same_metadata(self) -> bool:
        """Whether everything but the pixels agrees."""
        return not self.metadata

    @property
    def same_validity(self) -> bool:
        """Whether the same pixels hold data."""
        return self.same_size and self.validity_changed == 0

    @property
    def same_pixels(self) -> bool:
        """Whether all pixels that hold data are exactly equal, and the same ones do."""
        return self.same_validity and all(band.max_error == 0 or not band.count for band in self.bands)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary; "Infinity" and "NaN" stand for what JSON cannot hold."""
        return {
            "reference": self.reference,
            "test": self.test,
            "same_size": self.same_size,
            "same_metadata": self.same_metadata,
            "same_validity": self.same_validity,
            "same_pixels": self.same_pixels,
            "psnr": encode_number(self.psnr),
            "ms_ssim": encode_number(self.ms_ssim),
            "ms_ssim_db": encode_number(self.ms_ssim_db),
            "spectral_angle": encode_number(self.spectral_angle),
            "validity_changed": self.validity_changed,
            "bands": [band.to_dict() for band in self.bands],
            "metadata": [asdict(difference) for difference in self.metadata],
            "notes": list(self.notes),
        }


def compare_rasters(
    a: str | os.PathLike[str] | Any,
    b: str | os.PathLike[str] | Any,
    *,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Compare a raster with a reference.

    Parameters
    ----------
    a : path, any other name rasterio opens, an open rasterio dataset, or path of a compressed scene
        The reference.
    b : the same
        What is measured against it.
    device : str
        Where compressed scenes are decoded.
    progress : callable, optional
        Called with (blocks done, blocks in all).

    Returns
    -------
    Comparison. Rasters of different size have their metadata compared only.

    Raises
    ------
    SourceError, UnsupportedRasterError, ContainerError, DeviceError
    """
    with open_comparable(a, device) as reference, open_comparable(b, device) as test:
        metadata = metadata_differences(reference, test)
        if reference.shape != test.shape or len(reference.bands) != len(test.bands):
            notes = ("pixels were not compared: the sizes differ",)
            return Comparison(reference.name, test.name, (), None, None, None, 0, metadata, notes)
        return _Pixels(reference, test, progress).compare(metadata)


# --- pixels ----------------------------------------------------------------------------------------------------------


class _Range(NamedTuple):
    low: float
    high: float

    @property
    def width(self) -> float:
        return self.high - self.low if self.high >= self.low else math.nan


class _Pixels:
    """The comparison of two rasters of equal size."""

    def __init__(self, reference: Comparable, test: Comparable, progress: Callable[[int, int], None] | None):
        self._reference, self._test, self._progress = reference, test, progress
        self._done, self._total = 0, _count_blocks(reference) * (1 if reference.dtype == np.uint8 else 2)

    def compare(self, metadata: tuple[MetadataDifference, ...]) -> Comparison:
        ranges = self._ranges()
        measures = _Measures(ranges, self._reference.alpha)
        changed = 0
        for blocks, window, groups in _windows(self._reference):
            differs = np.zeros((window.height, window.width), bool)
            for bands in groups:
                ours, our_valid = _read(self._reference, window, bands)
                theirs, their_valid = _read(self._test, window, bands)
                differs |= (our_valid != their_valid).any(axis=0)
                both = our_valid & their_valid
                for block in blocks:
                    inside = (slice(None), *block.relative_to(window).slices)
                    measures.add(bands, ours[inside], theirs[inside], both[inside])
                    if bands == groups[-1]:
                        measures.angle.finish_block()
                    self._tick(1 if bands == groups[-1] else 0)
            changed += int(differs.sum())
        bands_compared = self._bands(ranges, measures)
        coded = [bands_compared[band] for band in measures.coded]
        measured = [band.ms_ssim for band in coded if band.ms_ssim is not None]
        return Comparison(
            reference=self._reference.name,
            test=self._test.name,
            bands=bands_compared,
            psnr=_overall_psnr(coded),
            ms_ssim=sum(measured) / len(measured) if measured else None,
            spectral_angle=None if math.isnan(measures.angle.mean) else measures.angle.mean,
            validity_changed=changed,
            metadata=metadata,
            notes=self._notes(coded),
        )

    def _ranges(self) -> list[_Range]:
        """Data range of each band of the reference; for 8 bits it is known, else it takes a pass over the raster."""
        if self._reference.dtype == np.uint8:
            return [_Range(0.0, 255.0)] * len(self._reference.bands)
        ranges = [_Range(math.inf, -math.inf)] * len(self._reference.bands)
        for blocks, window, groups in _windows(self._reference):
            for bands in groups:
                pixels, valid = _read(self._reference, window, bands)
                for i, band in enumerate(bands):
                    values = pixels[i][valid[i] & np.isfinite(pixels[i])]
                    if values.size:
                        low, high = ranges[band]
                        ranges[band] = _Range(min(low, float(values.min())), max(high, float(values.max())))
            self._tick(len(blocks))
        return ranges

    def _bands(self, ranges: list[_Range], measures: _Measures) -> tuple[BandComparison, ...]:
        return tuple(
            BandComparison(
                band=band + 1,
                name=_band_name(self._reference.bands[band]),
                count=stats.count,
                peak=span.width,
                psnr=stats.psnr(span.width),
                mse=stats.mse,
                mean_error=stats.mean_error,
                max_error=stats.max_abs if stats.count else math.nan,
                ms_ssim=measures.similarity[band].value if band in measures.similarity else None,
            )
            for band, (span, stats) in enumerate(zip(ranges, measures.errors, strict=True))
        )

    def _notes(self, coded: Sequence[BandComparison]) -> tuple[str, ...]:
        """Why there is no MS-SSIM of some bands."""
        missing = [str(band.band) for band in coded if band.ms_ssim is None]
        if not missing:
            return ()
        if min(self._reference.shape) < MIN_SIDE:
            return (f"no MS-SSIM: it needs at least {MIN_SIDE} x {MIN_SIDE} pixels",)
        of = "" if len(missing) == len(coded) else f" of band {', '.join(missing)}"
        return (f"no MS-SSIM{of}: every block has holes",)

    def _tick(self, blocks: int) -> None:
        self._done += blocks
        if self._progress is not None:
            self._progress(self._done, self._total)


class _Measures:
    """Everything measured of the pixels; an alpha band has errors only."""

    def __init__(self, ranges: list[_Range], alpha: int | None):
        self.coded = [band for band in range(len(ranges)) if band != alpha]
        self.errors = [ErrorStats() for _ in ranges]
        self.similarity = {band: MsSsimStats(ranges[band].width, ranges[band].low) for band in self.coded}
        self.angle = SpectralAngleStats()

    def add(self, bands: Sequence[int], ours: NDArray[Any], theirs: NDArray[Any], valid: Mask) -> None:
        """Take in some bands of a block, arrays (bands, h, w)."""
        for i, band in enumerate(bands):
            self.errors[band].add(ours[i], theirs[i], valid[i])
            if band in self.similarity:
                self.similarity[band].add(ours[i], theirs[i], valid[i])
        coded = [i for i, band in enumerate(bands) if band in self.similarity]
        if len(self.coded) > 1 and coded:
            self.angle.add_bands(ours[coded], theirs[coded], valid[coded])


def _overall_psnr(bands: Sequence[BandComparison]) -> float | None:
    relative = [0.0 if band.mse == 0 else band.mse / band.peak**2 for band in bands if not math.isnan(band.psnr)]
    if not relative:
        return None
    mean = sum(relative) / len(relative)
    return math.inf if mean == 0 else -10 * math.log10(mean) if math.isfinite(mean) else -math.inf


def _band_name(band: BandInfo) -> str:
    return band.description or ("" if band.colorinterp in ("undefined", "gray") else band.colorinterp)


# --- windows ---------------------------------------------------------------------------------------------------------


def _count_blocks(source: Comparable) -> int:
    return len(cut(source.shape.y)) * len(cut(source.shape.x))


def _windows(source: Comparable) -> Iterator[tuple[list[PixelBox], PixelBox, list[range]]]:
    """Windows of as many neighbouring blocks as memory allows, and the groups of bands to read them in.

    Wide windows, for a striped file must be unpacked in full width whatever part of a row is asked for.
    """
    columns, count = cut(source.shape.x), len(source.bands)
    for y0, y1 in cut(source.shape.y):
        one_band = (y1 - y0) * max(x1 - x0 for x0, x1 in columns) * source.dtype.itemsize
        bands = min(count, max(1, _WINDOW_BYTES // one_band))
        step = max(1, _WINDOW_BYTES // (one_band * bands))
        groups = [range(first, min(first + bands, count)) for first in range(0, count, bands)]
        for first in range(0, len(columns), step):
            blocks = [PixelBox(y0, x0, y1 - y0, x1 - x0) for x0, x1 in columns[first : first + step]]
            yield blocks, PixelBox(y0, blocks[0].x0, y1 - y0, blocks[-1].x1 - blocks[0].x0), groups


def _read(source: Comparable, box: PixelBox, bands: Sequence[int]) -> tuple[NDArray[Any], Mask]:
    """Pixels and their validity, both (bands, h, w). An alpha band itself has no holes."""
    pixels = source.read(box, bands)
    nodata = [None if band == source.alpha else source.bands[band].nodata for band in bands]
    valid = valid_pixels(pixels, nodata, source.read_mask(box))
    if source.alpha in bands:
        valid[bands.index(source.alpha)] = True
    return pixels, valid
