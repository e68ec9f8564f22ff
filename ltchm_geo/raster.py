"""Stage 1: pixels in. Opens rasters, refuses those that their coding would mangle, and reads windows of the others.

Together with `geotiff`, which writes, this is the only place where rasters are opened.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window

from ._recognise import is_scene
from .errors import AlreadyCompressedError, SourceError, SourceReadError, UnsupportedRasterError, UsageError
from .georef import BandInfo, alpha_band
from .georef_rasterio import quiet_open, read_bands, read_georef
from .geotiff import GeotiffWriter, create_geotiff
from .source import MaskKind, Purpose, Source, declare_nodata, mask_kind
from .source_files import files_behind
from .types import EXACT_DTYPES, MAX_PIXELS, MAX_SIDE, PIXEL_DTYPES, PixelBox, Shape2d

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["RASTER_SUFFIXES", "GeotiffWriter", "MaskKind", "Purpose", "Source", "create_geotiff", "open_source"]

#: What names of rasters end in; in folders, what is taken for one when no pattern says otherwise.
RASTER_SUFFIXES = frozenset(
    f".{name}"
    for name in ("tif", "tiff", "jp2", "j2k", "img", "vrt", "ntf", "nitf", "png", "bil", "bip", "bsq", "hgt", "ecw")
)
_LOSSLESS_ADVICE = "compress it with --lossless (lossless=True)"


@contextlib.contextmanager
def open_source(
    src: str | os.PathLike[str] | Any, purpose: Purpose = "lossy", nodata: float | None = None
) -> Iterator[Source]:
    """Open a raster for compression.

    Parameters
    ----------
    src : path, anything else `rasterio.open` takes by name, an open rasterio dataset, or an xarray object
        A path is opened once per reading thread, so that threads do not wait for each other; an open dataset is used
        behind a lock and stays open. What xarray objects must be like, says `array_source`.
    purpose : "lossy", "bounded" or "exact"
        What is to be done with the pixels. Classes, palettes and flags must be coded exactly; integers of other widths
        than the network knows, exactly or within a bound.
    nodata : float, optional
        What pixels without data hold, in all bands, whatever the raster declares.

    Raises
    ------
    UsageError
        If no pixel can hold `nodata`; or `src` is an xarray object, which says itself what marks its holes.
    SourceError
        If there is no raster at `src`.
    UnsupportedRasterError, AlreadyCompressedError
        If there is one that must not be coded so.
    """
    if _is_xarray(src):
        from .array_source import ArraySource

        if nodata is not None:
            raise UsageError("nodata is for rasters: an array says it itself, as attrs['_FillValue']")
        yield ArraySource(src, purpose)
        return
    handles = _ThreadHandles(os.fspath(src)) if isinstance(src, str | os.PathLike) else _SharedHandle(src)
    try:
        with handles.dataset() as dataset:
            source = _RasterSource(dataset, handles, purpose, nodata)
        yield source
    finally:
        handles.close()


def _is_xarray(src: object) -> TypeGuard[xr.DataArray | xr.Dataset]:
    xarray = sys.modules.get("xarray")  # nobody has an xarray object who has not loaded xarray
    return xarray is not None and isinstance(src, xarray.DataArray | xarray.Dataset)


class _RasterSource(Source):
    """An open raster; see `Source`."""

    def __init__(self, dataset: Any, handles: _Handles, purpose: Purpose, nodata: float | None):
        self.name = str(dataset.name)
        _refuse_unsuitable(dataset, self.name, purpose)
        self.shape = Shape2d(dataset.height, dataset.width)
        self.dtype = np.dtype(dataset.dtypes[0])
        self.bands = read_bands(dataset)
        if nodata is not None:
            self.bands = declare_nodata(self.bands, nodata, self.dtype, self.name)
        problem = _class_problem(dataset, self.bands)
        if purpose != "exact" and problem is not None:
            raise UnsupportedRasterError(f"{self.name} {problem}")
        self.classes = problem is not None
        _refuse_differing_nodata(self.bands, self.name)
        self.georef = read_georef(dataset)
        self.alpha = alpha_band([band.colorinterp for band in self.bands])
        self.mask_kind = _mask_kind(dataset, self.bands, self.alpha)
        self.address = handles.address
        self.nbytes_file = _size_on_disk(dataset)
        self.files = files_behind(self.name, dataset.files)
        self._handles = handles

    def read(self, box: PixelBox, bands: Sequence[int]) -> NDArray[Any]:
        """See `Source.read`."""
        numbers = [band + 1 for band in bands]
        pixels: NDArray[Any] = self._read(box, lambda dataset, window: dataset.read(numbers, window=window))
        return pixels

    def read_mask(self, box: PixelBox) -> NDArray[np.bool_] | None:
        """See `Source.read_mask`."""
        if self.mask_kind == "mask":
            band = 1 if self.alpha != 0 else 2
            values: NDArray[Any] = self._read(box, lambda dataset, window: dataset.read_masks(band, window=window))
        elif self.mask_kind == "alpha" and self.alpha is not None:
            values = self.read(box, [self.alpha])[0]
        else:
            return None
        valid: NDArray[np.bool_] = values != 0
        return valid

    def _read(self, box: PixelBox, read: Any) -> Any:
        if box.intersection(PixelBox(0, 0, *self.shape)) != box:
            raise UsageError(f"{self.name}: {box} is not inside the raster of {self.shape.y} x {self.shape.x} pixels")
        try:
            with self._handles.dataset() as dataset:
                return read(dataset, Window(box.x0, box.y0, box.width, box.height))
        except (RasterioError, OSError) as error:
            where = f"rows {box.y0}-{box.y1 - 1}, columns {box.x0}-{box.x1 - 1}"
            reason = error.__cause__ or error
            raise SourceReadError(
                f"{self.name}: cannot read {where}: the file is damaged or incomplete, fetch it anew ({reason})"
            ) from error


# --- handles ---------------------------------------------------------------------------------------------------------


class _Handles(Protocol):
    @property
    def address(self) -> str | None:
        """What other processes open the raster by."""

    def dataset(self) -> AbstractContextManager[Any]:
        """A dataset nobody else uses meanwhile."""

    def close(self) -> None:
        """Give back whatever was opened here."""


class _SharedHandle:
    """Somebody's open dataset: GDAL handles are not thread-safe, so one reader at a time."""

    address = None

    def __init__(self, dataset: Any):
        if not hasattr(dataset, "read_masks"):
            raise UsageError(
                f"{type(dataset).__name__} is no raster: give a path, an open rasterio dataset, or pixels as an "
                "xarray.DataArray (docs/xarray.md)"
            )
        if dataset.closed:
            raise UsageError(f"{dataset.name} was closed: give an open dataset, or its path")
        self._dataset = dataset
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def dataset(self) -> Iterator[Any]:
        with self._lock:
            yield self._dataset

    def close(self) -> None:
        pass


class _ThreadHandles:
    """One dataset per thread on the same path."""

    def __init__(self, path: str):
        self._path = path
        self.address: str | None = os.path.abspath(path) if os.path.exists(path) else path
        self._local = threading.local()
        self._opened: list[Any] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def dataset(self) -> Iterator[Any]:
        if not hasattr(self._local, "dataset"):
            dataset = _open(self._path)
            with self._lock:
                self._opened.append(dataset)
            self._local.dataset = dataset
        yield self._local.dataset

    def close(self) -> None:
        with self._lock:
            while self._opened:
                self._opened.pop().close()


def _open(path: str) -> Any:
    if is_scene(path):
        raise AlreadyCompressedError(
            f"{path} is a compressed scene already: coding it again would only lose quality; decompress it first"
        )
    try:
        return quiet_open(path)
    except (RasterioError, OSError, ValueError) as error:
        raise SourceError(f"{path} {_why_not_open(path, error)}") from error


def _why_not_open(path: str, error: Exception) -> str:
    local = "://" not in path and not path.startswith("/vsi")
    if local and not os.path.exists(path):
        # GDAL connection strings such as NETCDF:"file.nc":band are no paths, so its own words are added.
        return f"does not exist ({error})"
    if local and os.path.isdir(path):
        return "is a folder, not a raster: give the file inside it"
    if local and os.path.getsize(path) == 0:
        return "is empty: fetch it anew"
    if local and not os.access(path, os.R_OK):
        return "may not be read: check its permissions"
    if "not recognized" in str(error):
        return "is not a raster in any format GDAL knows here, or its header is damaged: check it with gdalinfo"
    return f"cannot be opened, it seems damaged or incomplete: fetch it anew ({error.__cause__ or error})"


# --- what is refused -------------------------------------------------------------------------------------------------


def _refuse_unsuitable(dataset: Any, name: str, purpose: Purpose) -> None:
    """Raise `UnsupportedRasterError` or `SourceError` for a raster that cannot, or must not, be coded so."""
    if dataset.count == 0:
        inside = ", ".join(dataset.subdatasets[:3])
        raise SourceError(
            f"{name} has no bands" + (f": open one of its subdatasets, such as {inside}" if inside else "")
        )
    if max(dataset.shape) > MAX_SIDE or math.prod(dataset.shape) > MAX_PIXELS:
        raise UnsupportedRasterError(f"{name} claims {dataset.height} x {dataset.width} pixels: its header is damaged")
    _refuse_dtypes(dataset, name, purpose)
    if set(dataset.colorinterp) == {ColorInterp.alpha}:
        raise UnsupportedRasterError(f"{name} has only an alpha band: nothing to code")
    if any(not flags for flags in dataset.mask_flag_enums):
        raise UnsupportedRasterError(f"{name} has a separate mask per band: split it by band")


def _refuse_dtypes(dataset: Any, name: str, purpose: Purpose) -> None:
    dtypes = sorted(set(dataset.dtypes))
    if any("complex" in dtype for dtype in dtypes):
        raise UnsupportedRasterError(
            f"{name} holds complex numbers: compress amplitude, or real and imaginary part as two bands"
        )
    if len(dtypes) > 1:
        raise UnsupportedRasterError(f"{name} mixes data types ({', '.join(dtypes)}): split it by band")
    if dtypes[0] not in (PIXEL_DTYPES if purpose == "lossy" else EXACT_DTYPES):
        supported = ", ".join(PIXEL_DTYPES)
        raise UnsupportedRasterError(
            f"{name} has the unsupported data type {dtypes[0]} (supported: {supported}): {_LOSSLESS_ADVICE}"
            + ("" if dtypes[0] not in EXACT_DTYPES else ", or within a bound by --max-error (max_error=...)")
        )


def _refuse_differing_nodata(bands: Sequence[BandInfo], name: str) -> None:
    nodata = {str(band.nodata) for band in bands if band.colorinterp != "alpha"}
    if len(nodata) > 1:
        raise UnsupportedRasterError(
            f"{name} has different nodata values per band ({', '.join(sorted(nodata))}): "
            "say with --nodata (nodata=...) which it is for all of them, or split it by band"
        )


def _class_problem(dataset: Any, bands: Sequence[BandInfo]) -> str | None:
    """Palettes, classes and bits: a value between two of them is not a value between their meanings."""
    for band in dataset.indexes:
        bits = dataset.tags(band, ns="IMAGE_STRUCTURE").get("NBITS", "8")
        if bits.isdigit() and int(bits) < 8:
            return f"holds flags of {bits} bits, not an image: {_LOSSLESS_ADVICE}"
        if dataset.colorinterp[band - 1] == ColorInterp.palette:
            return f"is paletted: expand it with gdal_translate -expand rgb, or {_LOSSLESS_ADVICE}"
        layer_type = dataset.tags(band).get("LAYER_TYPE", dataset.tags().get("LAYER_TYPE", ""))
        if layer_type.lower() == "thematic":
            return f"holds classes (LAYER_TYPE={layer_type}): {_LOSSLESS_ADVICE}"
        if any(bands[band - 1].categories or ()):
            return f"holds classes, which have names: {_LOSSLESS_ADVICE}"
    return None


def _mask_kind(dataset: Any, bands: Sequence[BandInfo], alpha: int | None) -> MaskKind:
    flags = dataset.mask_flag_enums[1 if alpha == 0 else 0]
    mask = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
    return mask_kind(np.dtype(dataset.dtypes[0]), bands[0].nodata, alpha=alpha is not None, mask=mask)


def _size_on_disk(dataset: Any) -> int | None:
    files = [path for path in map(Path, dataset.files) if path.is_file()]
    return sum(path.stat().st_size for path in files) if files else None
