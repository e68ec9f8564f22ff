"""Pixels out: a GeoTIFF that appears under its name only when it is whole.

Written to `<name>.part`, checked, flushed to disk, then renamed; whatever fails on the way leaves the destination as
it was.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.dtypes import in_dtype_range
from rasterio.enums import Compression, Interleaving
from rasterio.errors import RasterioError
from rasterio.windows import Window

from ._sink import check_destination, claimed, part_of, sync_file, take_place
from .errors import DestinationError, UsageError
from .georef import BandInfo, Georef, Number
from .georef_rasterio import apply, beyond_double, quiet_open, sidecar_xml, tiff_colors
from .types import PixelBox, Shape2d

__all__ = ["GeotiffWriter", "create_geotiff"]

#: GDAL's creation options but those that would cut pixels or leave them out, and those that write further files.
_OPTIONS = {"bigtiff", "blockxsize", "blockysize", "compress", "endianness", "interleave", "photometric", "tiled"}
_OPTIONS |= {"jpeg_quality", "lzma_preset", "max_z_error", "predictor", "webp_level", "webp_lossless", "zlevel"}
_OPTIONS |= {"zstd_level", "geotiff_keys_flavor", "geotiff_version"}
_PREDICTABLE = ("deflate", "lzw", "zstd")
_SIDECARS = (".aux.xml", ".ovr", ".msk")  # GDAL reads these along with a file of the same name
_FULL_BELOW = 1 << 20  # bytes free; a file system reports "full" with a little left


class GeotiffWriter:
    """The GeoTIFF being written. Safe to use from several threads, one of which writes at a time."""

    def __init__(self, dataset: Any, path: Path):
        self._dataset = dataset
        self._path = path
        self._lock = threading.Lock()

    @property
    def by_band(self) -> bool:
        """Whether bands lie in blocks of their own; if not, writing them one after the other rewrites every block."""
        return bool(self._dataset.interleaving == Interleaving.band)

    def write(self, block: NDArray[Any], box: PixelBox, bands: Sequence[int]) -> None:
        """Write pixels.

        Parameters
        ----------
        block : (bands, box.height, box.width) array of the file's data type
        box : PixelBox
            Whole blocks of 256 pixels are written fastest and compress best.
        bands : 0-based band numbers

        Raises
        ------
        UsageError
            If type or shape do not fit.
        DestinationError
            If the disk is full or fails.
        """
        expected = np.dtype(self._dataset.dtypes[0])
        self._check_inside(box)
        if block.dtype != expected or block.shape != (len(bands), box.height, box.width):
            raise UsageError(f"{block.dtype} block of {block.shape} for {expected} {len(bands)} bands of {box}")
        with self._lock, _destination_errors(self._path):
            self._dataset.write(block, [band + 1 for band in bands], window=_window(box))

    def write_mask(self, valid: NDArray[np.bool_], box: PixelBox) -> None:
        """Write part of the file's mask band, which the first call makes: (box.height, box.width), True = valid."""
        self._check_inside(box)
        if valid.dtype != np.bool_ or valid.shape != (box.height, box.width):
            raise UsageError(f"{valid.dtype} mask of {valid.shape} for {box}")
        # The setting belongs to the thread, so it is made here and not around the whole file.
        with self._lock, _destination_errors(self._path), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            self._dataset.write_mask(valid, window=_window(box))

    def _check_inside(self, box: PixelBox) -> None:
        if box.intersection(PixelBox(0, 0, *self._dataset.shape)) != box:
            raise UsageError(f"{box} is not inside the GeoTIFF of {self._dataset.shape} pixels")


@contextlib.contextmanager
def create_geotiff(
    path: str | os.PathLike[str],
    shape: Shape2d,
    bands: Sequence[BandInfo],
    georef: Georef,
    options: Mapping[str, str] | None = None,
    *,
    overwrite: bool = False,
) -> Iterator[GeotiffWriter]:
    """Write a tiled, compressed GeoTIFF (BigTIFF where it may get large), all or nothing.

    Parameters
    ----------
    path : destination; its folder must exist
    shape : rows and columns
    bands, georef : everything but the pixels, applied as it is. GeoTIFF itself sets these limits: one nodata value
        for all bands, and none that the data type cannot hold; the first band's colour is never "undefined" (it
        becomes "gray"); a transform or control points, not both; control points lose their names; JSON
        tag namespaces, and tags called ns or bidx, which rasterio has no way to write, are left
        out, as are colour tables of bands other than the first
    options : GDAL creation options such as {"compress": "zstd"}, over the defaults (deflate with predictor, and four
        bands or fewer in one block)
    overwrite : replace an existing file

    Raises
    ------
    DestinationExistsError, DestinationBusyError, DestinationError
        If the file exists, is being written, or cannot be written: no such folder, no permission, disk full.
    UsageError
        If an option is none of GDAL's, or none of use here; or the bands do not share a data type and nodata value.
    """
    path = Path(path)
    check_destination(path, overwrite)
    profile = _profile(bands, options or {})
    part = part_of(path)
    with claimed(path):
        with _destination_errors(path):
            _remove(part)
        dataset = None
        try:
            with _destination_errors(path):
                dataset = quiet_open(part, "w", height=shape.y, width=shape.x, **profile)
                apply(dataset, georef, bands)
            yield GeotiffWriter(dataset, path)
            with _destination_errors(path):
                dataset.close()
                _write_sidecar(part, bands)
                _check_complete(part)
                _publish(part, path)
        except BaseException:
            if dataset is not None:
                with contextlib.suppress(RasterioError, OSError):  # the first error is the one to tell
                    dataset.close()
            _remove(part)
            raise


def _profile(bands: Sequence[BandInfo], options: Mapping[str, str]) -> dict[str, Any]:
    names = [band.colorinterp for band in bands]
    dtypes = {band.dtype for band in bands}
    if len(dtypes) != 1:
        raise UsageError(f"a GeoTIFF needs bands of one data type, not {sorted(dtypes)}")
    dtype = dtypes.pop()
    # With photometric RGB, GDAL forgets the interpretation of further bands unless it is one of these two.
    rgb = names[:3] == ["red", "green", "blue"] and set(names[3:]) <= {"undefined", "alpha"}
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "count": len(bands),
        "dtype": dtype,
        "nodata": _common_nodata(bands, dtype),
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "bigtiff": "IF_SAFER",
        "compress": "deflate",
        # Many bands in one block would all have to be held at once; a few are read faster together.
        "interleave": "pixel" if len(bands) <= 4 else "band",
        "photometric": "RGB" if rgb else "MINISBLACK" if tiff_colors(1, bands[0]) is None else "PALETTE",
    }
    profile |= _checked({key.lower(): value for key, value in options.items()})
    if str(profile["compress"]).lower() in _PREDICTABLE:
        profile.setdefault("predictor", 3 if np.dtype(dtype).kind == "f" else 2)
    return profile


def _checked(options: Mapping[str, str]) -> Mapping[str, str]:
    """The creation options, as GDAL but warns of what it does not know."""
    if "num_threads" in options:
        # Measured with GDAL 3.10: a block that such a thread fails to write is reported nowhere, not even on closing.
        raise UsageError("GDAL's num_threads would hide a full disk: leave it out")
    if unknown := options.keys() - _OPTIONS:
        raise UsageError(f"creation option {min(unknown)!r} is none of {', '.join(sorted(_OPTIONS))}")
    known = {name.lower() for name in Compression.__members__}
    if (compress := str(options.get("compress", "none")).lower()) not in known:
        raise UsageError(f"compress={compress} is no compression of GeoTIFFs, such as deflate, lzw, zstd or none")
    return options


def _common_nodata(bands: Sequence[BandInfo], dtype: str) -> Number | None:
    values = {str(band.nodata): band.nodata for band in bands if band.colorinterp != "alpha"}
    if len(values) > 1:
        raise UsageError(f"a GeoTIFF has one nodata value for all bands, not {', '.join(sorted(values))}")
    value = next(iter(values.values()), None)
    # A nodata value the type cannot hold (-9999 of uint8) marks no pixel, and rasterio refuses to write it. One that
    # rasterio would change goes into the side-car file.
    return value if value is not None and in_dtype_range(value, dtype) and not beyond_double(value) else None


def _write_sidecar(part: Path, bands: Sequence[BandInfo]) -> None:
    sidecar = part.with_name(part.name + ".aux.xml")
    document = sidecar_xml(bands, *([sidecar.read_bytes()] if sidecar.exists() else []))
    if document is not None:
        sidecar.write_bytes(document)


def _check_complete(part: Path) -> None:
    """GDAL does not report every failed write, least of all the last ones: look whether each block is in the file."""
    size = part.stat().st_size
    with quiet_open(part) as dataset:
        rows, columns = (-(-side // block) for side, block in zip(dataset.shape, dataset.block_shapes[0], strict=True))
        bands = dataset.indexes if dataset.profile.get("interleave") == "band" else (1,)
        for band in bands:
            for y, x in np.ndindex(rows, columns):
                offset = dataset.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=band)
                length = dataset.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=band)
                if offset is None or length is None or int(offset) + int(length) > size:
                    raise OSError(f"block ({y}, {x}) of band {band} did not reach the disk")


def _publish(part: Path, path: Path) -> None:
    for suffix in _SIDECARS:
        # A side-car file of the replaced raster would be taken for one of the new.
        path.with_name(path.name + suffix).unlink(missing_ok=True)
        if (sidecar := part.with_name(part.name + suffix)).exists():
            sync_file(sidecar)
            os.replace(sidecar, path.with_name(path.name + suffix))
    sync_file(part)
    take_place(part, path)


def _remove(part: Path) -> None:
    for suffix in ("", *_SIDECARS):
        part.with_name(part.name + suffix).unlink(missing_ok=True)


@contextlib.contextmanager
def _destination_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except DestinationError:
        raise
    except (RasterioError, OSError) as error:
        if shutil.disk_usage(path.parent).free < _FULL_BELOW:
            raise DestinationError(f"{path}: disk full: free some space and run again") from error
        raise DestinationError(f"{path} cannot be written: {error.__cause__ or error}") from error


def _window(box: PixelBox) -> Window:
    return Window(box.x0, box.y0, box.width, box.height)
