"""Stage 1 for xarray objects: a DataArray or Dataset as a `Source`, computed window by window.

What is understood is what rioxarray and CF write: dimensions (y, x) or (band, y, x), coordinates of pixel centres, a
grid mapping variable with ``crs_wkt`` and ``GeoTransform``, and the attributes, or the encoding, ``_FillValue``,
``scale_factor`` and ``add_offset``. Floats whose encoding says that they were integers become these integers again, as
they would in `Dataset.to_netcdf`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from .errors import UnsupportedRasterError, UsageError
from .georef import BandInfo, Georef, Number, alpha_band, native_nodata
from .georef_xarray import has_spatial_dims, read_georef, spatial_dims
from .source import Purpose, Source, mask_kind
from .source_files import Files
from .types import EXACT_DTYPES, PIXEL_DTYPES, PixelBox, Shape2d

__all__ = ["ArraySource"]

_MASK = "mask"
_COLORS = ("red", "green", "blue", "alpha")
_CLASSES = ("flag_values", "flag_masks", "flag_meanings")
_SCALING = (("scales", "scale_factor"), ("offsets", "add_offset"))
_UNSCALED = {"scale_factor": 1.0, "add_offset": 0.0}
_NODATA = ("_FillValue", "missing_value", "nodata")
_NOT_TAGS = {*_NODATA, *_CLASSES, "scale_factor", "add_offset", "scales", "offsets", "long_name", "units"}
_NOT_TAGS |= {"grid_mapping", "coordinates", "standard_name"}


class ArraySource(Source):
    """An xarray object as a raster to compress; see `Source`.

    Parameters
    ----------
    src : xarray.DataArray or xarray.Dataset
        (y, x) or (band, y, x), also named lat/lon or latitude/longitude. The variables of a Dataset become bands one
        after the other, but for a boolean variable named ``mask``, which says where there is data, and those that lack
        rows or columns, such as the bounds of coordinates.

    Raises
    ------
    UsageError
        Dimensions, coordinates or attributes from which no raster can be made.
    UnsupportedRasterError
        A data type or meaning that must not be coded lossily.
    """

    def __init__(self, src: xr.DataArray | xr.Dataset, purpose: Purpose = "lossy"):
        self.name = _name(src)
        arrays, mask = _take_apart(src, self.name)
        self._parts = [_Part.of(array, self.name, purpose) for array in arrays]
        self._mask = None if mask is None else mask.transpose(*spatial_dims(mask, self.name))
        self.dtype = _common_dtype(self._parts, self.name)
        self.bands = tuple(band for part in self._parts for band in part.bands)
        self.shape = Shape2d(*self._parts[0].array.shape[1:])
        if 0 in self.shape or not self.bands:
            raise UsageError(f"{self.name} is empty: {len(self.bands)} bands of {self.shape.y} x {self.shape.x} pixels")
        self.georef = Georef(**{**read_georef(src, arrays[0], self.name), "tags": _tags(src)})
        self.alpha = alpha_band([band.colorinterp for band in self.bands])
        nodata = {str(band.nodata): band.nodata for i, band in enumerate(self.bands) if i != self.alpha}
        if len(nodata) != 1:
            values = ", ".join(sorted(nodata)) or "only alpha"
            raise UnsupportedRasterError(f"{self.name} needs one nodata value for all bands, not: {values}")
        hole, alpha = next(iter(nodata.values())), self.alpha is not None
        self.mask_kind = mask_kind(self.dtype, hole, alpha=alpha, mask=mask is not None)
        self.classes = purpose == "exact" and any(key in array.attrs for array in arrays for key in _CLASSES)
        self.address = None
        self.nbytes_file = None
        read = [os.path.abspath(self.name)] if os.path.exists(self.name) else []
        self.files = Files(frozenset(read), complete=False)

    def read(self, box: PixelBox, bands: Sequence[int]) -> NDArray[Any]:
        """See `Source.read`."""
        from dask.base import compute

        out = np.empty((len(bands), box.height, box.width), self.dtype)
        rows, columns = self._slices(box)
        first, chosen = 0, []
        for part in self._parts:
            places = [place for place, band in enumerate(bands) if first <= band < first + len(part.bands)]
            if places:
                numbers = [bands[place] - first for place in places]
                chosen.append((part, places, part.array.variable[numbers, rows, columns]))
            first += len(part.bands)
        computed = compute(*(window for _, _, window in chosen))  # together: they may share what they are made from
        for (part, places, _), window in zip(chosen, computed, strict=True):
            out[places] = part.pack(window.values)
        return out

    def read_mask(self, box: PixelBox) -> NDArray[np.bool_] | None:
        """See `Source.read_mask`."""
        if self._mask is not None:
            values = self._mask.variable[self._slices(box)].values
        elif self.alpha is not None:
            values = self.read(box, [self.alpha])[0]
        else:
            return None
        valid: NDArray[np.bool_] = values != 0
        return valid

    def _slices(self, box: PixelBox) -> tuple[slice, slice]:
        if box.intersection(PixelBox(0, 0, *self.shape)) != box:
            raise UsageError(f"{self.name}: {box} is not inside the raster of {self.shape.y} x {self.shape.x} pixels")
        return box.slices


@dataclass(frozen=True)
class _Part:
    """One variable: its pixels (band, y, x), what they mean, and the type they are stored in.

    `packing` is the scale and offset to take out again where xarray made floats of pixels, NaN where there were none.
    """

    array: xr.DataArray
    bands: tuple[BandInfo, ...]
    dtype: np.dtype[Any]
    packing: tuple[float, float] | None
    name: str

    @classmethod
    def of(cls, array: xr.DataArray, name: str, purpose: Purpose) -> _Part:
        rows, columns = spatial_dims(array, name)
        others = [str(dim) for dim in array.dims if dim not in (rows, columns)]
        if len(others) > 1:
            raise UsageError(f"{name} has dimensions {array.dims}: choose one of each but bands, rows and columns")
        cube = array.transpose(*others, rows, columns) if others else array.transpose(rows, columns).expand_dims("band")
        if purpose != "exact" and (found := [key for key in _CLASSES if key in array.attrs]):
            raise UnsupportedRasterError(
                f"{name} holds classes ({found[0]}), not an image: compress with lossless=True"
            )
        dtype, encoding = array.dtype, array.encoding
        packed = dtype.kind == "f" and "dtype" in encoding and bool({*_NODATA, "scale_factor"} & encoding.keys())
        if packed:
            dtype = np.dtype(encoding["dtype"])
        dtype = _checked_dtype(dtype, name, purpose)
        nodata = _nodata(array, dtype, packed)
        packing = None
        if packed:
            (scale,), (offset,) = (_numbers(encoding, key, 1, name) for key in ("scale_factor", "add_offset"))
            packing = scale, offset
        scales, offsets = _scaling({**array.attrs, **(encoding if packed else {})}, cube.shape[0], name)
        unit = array.attrs.get("units")
        bands = tuple(
            BandInfo(dtype.name, text, color, nodata, scale, offset, unit if isinstance(unit, str) else None)
            for text, color, scale, offset in zip(*_meaning(array, others, len(scales)), scales, offsets, strict=True)
        )
        return cls(cube, bands, dtype, packing, name)

    def pack(self, values: NDArray[Any]) -> NDArray[Any]:
        """(n, h, w) values as pixels of the raster's type."""
        if self.packing is None:
            return values.astype(self.dtype, copy=False)
        (scale, offset), nodata, holes = self.packing, self.bands[0].nodata, np.isnan(values)
        exact = (values.astype(np.float64) - offset) / scale
        if self.dtype.kind == "f":
            return np.where(holes, np.nan if nodata is None else nodata, exact).astype(self.dtype)
        if holes.any() and nodata is None:
            raise UsageError(f"{self.name} has NaN, but its encoding names no _FillValue to store in their place")
        limits, pixels = np.iinfo(self.dtype), np.rint(np.where(holes, nodata or 0, exact))
        if not ((pixels >= limits.min) & (pixels <= limits.max)).all():  # NaN as nodata of integers is neither
            advice = "call drop_encoding() on it to store floats"
            raise UsageError(f"{self.name} has values that do not fit the {self.dtype} of its encoding: {advice}")
        return pixels.astype(self.dtype)


def _name(src: xr.DataArray | xr.Dataset) -> str:
    """The file it was opened from where there is one: that must not be overwritten meanwhile."""
    source = src.encoding.get("source")
    if isinstance(source, str) and os.path.exists(source):
        return source
    return str(src.name) if isinstance(src, xr.DataArray) and src.name else f"the {type(src).__name__}"


def _take_apart(src: xr.DataArray | xr.Dataset, name: str) -> tuple[list[xr.DataArray], xr.DataArray | None]:
    """The arrays of pixels, and the mask."""
    if isinstance(src, xr.DataArray):
        return [src], None
    every = [array for array in src.data_vars.values() if array.ndim]
    arrays = [array for array in every if has_spatial_dims(array)] or every
    masks = [array for array in arrays if array.name == _MASK and array.ndim == 2 and array.dtype == np.bool_]
    pixels = [array for array in arrays if not any(array is mask for mask in masks)]
    if not pixels:
        raise UsageError(f"{name} has no variable with pixels, only {', '.join(map(str, src.variables)) or 'nothing'}")
    shapes = {tuple(array.sizes[dim] for dim in spatial_dims(array, name)) for array in arrays}
    if len(shapes) > 1:
        raise UsageError(f"{name} has variables of different sizes {sorted(shapes)}: choose those of one size")
    return pixels, masks[0] if masks else None


def _checked_dtype(dtype: np.dtype[Any], name: str, purpose: Purpose) -> np.dtype[Any]:
    allowed = PIXEL_DTYPES if purpose == "lossy" else EXACT_DTYPES
    if dtype.name not in allowed:
        supported = ", ".join(allowed)
        raise UnsupportedRasterError(f"{name} has the unsupported data type {dtype} (astype one of {supported})")
    return np.dtype(dtype.name)  # in this machine's byte order


def _common_dtype(parts: Sequence[_Part], name: str) -> np.dtype[Any]:
    dtypes = sorted({part.dtype.name for part in parts})
    if len(dtypes) > 1:
        raise UnsupportedRasterError(f"{name} mixes data types ({', '.join(dtypes)}): bring them to one with astype")
    return parts[0].dtype


def _nodata(array: xr.DataArray, dtype: np.dtype[Any], packed: bool) -> Number | None:
    places: list[Mapping[Any, Any]] = [array.encoding] if packed else [array.attrs, array.encoding]
    found = next((place[key] for place in places for key in _NODATA if place.get(key) is not None), None)
    if found is None:
        return None
    values = np.asarray(found)
    value = values.item() if values.size == 1 else None
    if not isinstance(value, int | float) or (isinstance(value, int) and not -(2**63) <= value < 2**64):
        raise UsageError(f"{array.name} has the nodata value {found!r}, which is no number of up to 64 bits: mend it")
    return native_nodata(value, dtype)


def _scaling(found: Mapping[Any, Any], bands: int, name: str) -> tuple[list[float], list[float]]:
    """Scale and offset of each band: one for all as CF has it, or one each as rioxarray has it."""
    scales, offsets = (_numbers(found, several if several in found else one, bands, name) for several, one in _SCALING)
    return scales, offsets


def _numbers(found: Mapping[Any, Any], key: str, bands: int, name: str) -> list[float]:
    """An attribute with one number for each band, or by CF's keys one for all."""
    value = found.get(key, _UNSCALED.get(key))
    try:
        numbers = [float(number) for number in np.ravel(np.asarray(value, object))]
    except (TypeError, ValueError):
        raise UsageError(f"{name} has the {key} {value!r}, which is no number: mend or drop it") from None
    if key in _UNSCALED and len(numbers) == 1:
        return numbers * bands
    if len(numbers) != bands:
        raise UsageError(f"{name} has {bands} bands, but {len(numbers)} {key}: mend or drop them")
    return numbers


def _meaning(array: xr.DataArray, dims: Sequence[str], bands: int) -> tuple[list[str | None], list[str]]:
    """Name and colour of each band: from coordinates along it, which follow when bands are chosen, else attributes."""
    along = {key: list(values.values) for key, values in array.coords.items() if dims and values.dims == tuple(dims)}
    long_name = array.attrs.get("long_name")
    names: list[Any] = [None] * bands
    if "band_name" in along:
        names = along["band_name"]
    elif dims and dims[0] in along and all(isinstance(value, str) for value in along[dims[0]]):
        names = along[dims[0]]
    elif isinstance(long_name, list | tuple | np.ndarray) and len(long_name) == bands:
        names = list(long_name)
    elif not dims and array.name not in (None, "band_data"):
        names = [array.name]
    elif isinstance(long_name, str):  # rioxarray writes one name where all bands have the same
        names = [long_name] * bands
    names = [str(name) if name else None for name in names]
    guessed = [name.lower() if name and name.lower() in _COLORS else "undefined" for name in names]
    return names, [str(color) for color in along.get("colorinterp", guessed)]


def _tags(src: xr.DataArray | xr.Dataset) -> dict[str, dict[str, str]]:
    items = {str(key): str(value) for key, value in src.attrs.items() if isinstance(value, str | int | float)}
    kept = {key: value for key, value in items.items() if key not in _NOT_TAGS}
    return {"": kept} if kept else {}
