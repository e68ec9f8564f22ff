"""`open`: a compressed scene as an xarray Dataset of its own values, in dask chunks."""

from __future__ import annotations

import os

import xarray as xr

from .xarray_backend import SceneBackend

__all__ = ["open_scene"]


def open_scene(
    src: str | os.PathLike[str], *, level: int = 0, device: str = "auto", allow_damaged: bool = False
) -> xr.Dataset:
    """Open a compressed scene lazily, as ``xarray.open_dataset(src, chunks={}, mask_and_scale=False)`` does.

    Parameters
    ----------
    src : path
        A ``.ltchm`` file or a ``.zarr`` folder, or a URL where they lie in an object store.
    level : int
        Pyramid level: 0 is full resolution, 1 the first overview.
    device : str
        Where pixels are decoded, when they are.
    allow_damaged : bool
        Read nodata (or 0) where a tile is damaged, instead of raising.

    Returns
    -------
    xarray.Dataset with the variable ``band_data`` (band, y, x), a dask array whose chunks are the scene's shards.
    Values are the raster's own; ``_FillValue`` in the attributes names nodata. See `SceneBackend.open_dataset` for the
    rest.

    Raises
    ------
    ContainerError, UsageError
    """
    options = {"level": level, "device": device, "allow_damaged": allow_damaged}
    return xr.open_dataset(src, engine=SceneBackend, chunks={}, mask_and_scale=False, backend_kwargs=options)
