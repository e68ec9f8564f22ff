"""Georeferencing from xarray objects: the coordinates of pixel centres, and the CF grid mapping variable."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from .errors import UsageError

__all__ = ["has_spatial_dims", "read_georef", "spatial_dims"]

_AXES = (("y", "x"), ("lat", "lon"), ("latitude", "longitude"))
_TOLERANCE = 0.01  # pixels; single precision degrees of fine grids are beyond it
_SAME = 1e-6  # pixels


def has_spatial_dims(array: xr.DataArray) -> bool:
    """Whether an array has rows and columns by known names."""
    return _found_dims(array) is not None


def spatial_dims(array: xr.DataArray, name: str) -> tuple[str, str]:
    """Dimensions of rows and columns. UsageError when there are none."""
    found = _found_dims(array)
    if found is None:
        what = array.name or "the array"
        raise UsageError(f"{name}: {what} has dimensions {array.dims}: rename rows to y, columns to x")
    return found


def _found_dims(array: xr.DataArray) -> tuple[str, str] | None:
    return next((axes for axes in _AXES if {*axes} <= {*array.dims}), None)


def read_georef(src: xr.DataArray | xr.Dataset, array: xr.DataArray, name: str) -> dict[str, Any]:
    """``crs`` and ``transform`` as `Georef` has them.

    Parameters
    ----------
    src : where the grid mapping variable is
    array : the pixels, or some of them
    name : for messages

    Raises
    ------
    UsageError
        Coordinates that are not regular; a CRS that is named, but not there or not understood.
    """
    reference = _reference(src, array, name)
    return {"crs": _crs(reference, name), "transform": _transform(array, reference, name)}


def _reference(src: xr.DataArray | xr.Dataset, array: xr.DataArray, name: str) -> dict[str, Any]:
    """Attributes of the grid mapping variable; empty without one."""
    named = array.encoding.get("grid_mapping", array.attrs.get("grid_mapping"))
    key = str(named or "spatial_ref").split(":")[0].split()[0]
    if key in src.coords:
        return dict(src.coords[key].attrs)
    if isinstance(src, xr.Dataset) and key in src.data_vars:
        return dict(src.data_vars[key].attrs)
    if named is not None:
        advice = 'open with decode_coords="all", or pass the whole Dataset'
        raise UsageError(f"{name} names the grid mapping {key}, which is not among its coordinates: {advice}")
    return {}


def _crs(reference: dict[str, Any], name: str) -> str | None:
    from .georef_rasterio import to_wkt

    text = reference.get("crs_wkt") or reference.get("spatial_ref")
    if text is None and "grid_mapping_name" not in reference:
        return None
    wkt = to_wkt(text) if isinstance(text, str) else None
    if wkt is None:
        raise UsageError(f"{name}: its CRS is not given as crs_wkt that GDAL understands: set it with .rio.write_crs")
    return wkt


def _transform(array: xr.DataArray, reference: dict[str, Any], name: str) -> tuple[float, ...] | None:
    """From the coordinates, which follow when a window is chosen; ``GeoTransform`` does not, but is exact."""
    stated = _geotransform(reference.get("GeoTransform"), name)
    rows, columns = spatial_dims(array, name)
    if rows not in array.coords and columns not in array.coords:
        curved = [key for key, values in array.coords.items() if {rows, columns} <= {*values.dims}]
        if curved and stated is None:
            raise UsageError(
                f"{name} has no regular grid, only {curved[0]} for each pixel: resample it, or drop {curved[0]}"
            )
        return stated
    if rows not in array.coords or columns not in array.coords:
        raise UsageError(f"{name} has coordinates along only one of {rows} and {columns}: add the others, or drop them")
    straight = stated is not None and stated[1] == stated[3] == 0
    c, a = _axis(array.coords[columns], stated[0] if stated and straight else None, name)
    f, e = _axis(array.coords[rows], stated[4] if stated and straight else None, name)
    found = (a, 0.0, c, 0.0, e, f)
    if stated is not None and all(
        abs(s - t) <= _SAME * min(abs(a), abs(e)) for s, t in zip(stated, found, strict=True)
    ):
        return stated
    return found


def _axis(coordinate: xr.DataArray, step: float | None, name: str) -> tuple[float, float]:
    """Where the first pixel begins, and the distance between pixels."""
    try:
        centres = coordinate.values.astype(np.float64)
    except (TypeError, ValueError):
        raise UsageError(f"{name}: the coordinate {coordinate.name} holds no numbers") from None
    if centres.size > 1 and centres.ndim == 1:
        step = (centres[-1] - centres[0]) / (centres.size - 1)
    elif step is None:
        raise UsageError(f"{name} is one pixel wide along {coordinate.name}: set its size with .rio.write_transform")
    error = np.abs(centres - (centres[0] + step * np.arange(centres.size))).max()
    if not (centres.ndim == 1 and step != 0 and error <= _TOLERANCE * abs(step)):  # NaN is not
        raise UsageError(f"{name}: the coordinate {coordinate.name} is not regular: resample to a grid, or drop it")
    return float(centres[0] - step / 2), float(step)


def _geotransform(text: Any, name: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        c, a, b, f, d, e = (float(number) for number in str(text).split())
    except ValueError:
        raise UsageError(f"{name}: GeoTransform {text!r} is not six numbers") from None
    return a, b, c, d, e, f
