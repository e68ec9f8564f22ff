"""`open`: a compressed scene as an xarray Dataset that decodes what is looked at."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from .container import ContainerReader, SceneMeta
from .scene_decoder import SceneDecoder
from .types import PixelBox

__all__ = ["open_scene"]


class _SceneArray:
    """The scene as something dask can slice: shape, dtype, and `[]`, where lists select along their own axis."""

    ndim = 3

    def __init__(self, reader: ContainerReader, device: str):
        self._reader, self._device = reader, device
        self.shape = (len(reader.meta.bands), *reader.meta.shape)
        self.dtype = np.dtype(reader.meta.dtype)

    def __getitem__(self, key: tuple[Any, Any, Any]) -> NDArray[Any]:
        # dask fuses selections into one, so that a chunk's key may hold whole numbers and lists beside slices.
        chosen = [np.arange(size)[part] for part, size in zip(key, self.shape, strict=True)]
        bands, ys, xs = (np.atleast_1d(numbers) for numbers in chosen)
        pixels = np.empty((len(bands), len(ys), len(xs)), self.dtype)
        if pixels.size:
            y0, x0 = int(ys.min()), int(xs.min())
            box = PixelBox(y0, x0, int(ys.max()) + 1 - y0, int(xs.max()) + 1 - x0)
            decoded = SceneDecoder(self._reader, self._device).read(box, bands.tolist())
            pixels = decoded[:, ys - y0][:, :, xs - x0]
        return pixels[tuple(slice(None) if numbers.ndim else 0 for numbers in chosen)]

    def __dask_tokenize__(self) -> Any:
        state = os.stat(self._reader.path)
        return type(self).__name__, str(self._reader.path), state.st_mtime_ns, state.st_size


def open_scene(src: str | os.PathLike[str], *, device: str = "auto") -> xr.Dataset:
    """Open a compressed scene lazily.

    Parameters
    ----------
    src : path
        A ``.ltchm`` file or a ``.zarr`` folder.
    device : str
        Where pixels are decoded, when they are.

    Returns
    -------
    xarray.Dataset with the variable ``band_data`` (band, y, x), a dask array whose chunks are the scene's shards,
    the coordinates ``band`` (from 1), ``y`` and ``x`` (pixel centres, where the transform has no rotation) and
    ``spatial_ref`` (``crs_wkt`` and ``GeoTransform``, as rioxarray reads them). Values are the raster's own;
    ``_FillValue`` in the attributes names nodata.

    Raises
    ------
    ContainerError
    """
    import dask.array as da

    reader = ContainerReader(src)
    meta = reader.meta
    side = meta.tile * meta.shard
    chunks = (_band_chunks(meta), side, side)
    array = da.from_array(_SceneArray(reader, device), chunks=chunks, asarray=False)
    data = xr.DataArray(array, dims=("band", "y", "x"), attrs=_attributes(meta), name="band_data")
    dataset = xr.Dataset({"band_data": data}, coords=_coordinates(meta), attrs=dict(meta.georef.tags.get("", {})))
    dataset.set_close(reader.close)
    return dataset


def _band_chunks(meta: SceneMeta) -> tuple[int, ...]:
    """One chunk per band group where groups follow file order, so that no group is decoded twice for a block."""
    order = [band for group in meta.groups for band in sorted(group.bands)]
    if meta.alpha is not None:
        order.append(meta.alpha)
    if order != list(range(len(meta.bands))):
        return (len(meta.bands),)
    return tuple(len(group.bands) for group in meta.groups) + ((1,) if meta.alpha is not None else ())


def _attributes(meta: SceneMeta) -> dict[str, Any]:
    first = meta.bands[meta.groups[0].bands[0]]
    found: dict[str, Any] = {"grid_mapping": "spatial_ref", "scale_factor": first.scale, "add_offset": first.offset}
    if first.nodata is not None:
        found["_FillValue"] = first.nodata
    if any(band.description for band in meta.bands):
        found["long_name"] = tuple(band.description or "" for band in meta.bands)
    return found


def _coordinates(meta: SceneMeta) -> dict[str, Any]:
    coordinates: dict[str, Any] = {"band": np.arange(1, len(meta.bands) + 1)}
    reference: dict[str, Any] = {}
    if meta.georef.crs is not None:
        reference["crs_wkt"] = reference["spatial_ref"] = meta.georef.crs
    if meta.georef.transform is not None:
        a, b, c, d, e, f = meta.georef.transform
        reference["GeoTransform"] = " ".join(repr(float(v)) for v in (c, a, b, f, d, e))
        if b == d == 0:
            coordinates["x"] = c + a * (np.arange(meta.shape.x) + 0.5)
            coordinates["y"] = f + e * (np.arange(meta.shape.y) + 0.5)
    return {**coordinates, "spatial_ref": ((), 0, reference)}
