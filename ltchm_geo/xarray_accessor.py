"""``.ltchm`` on xarray objects: `dataset.ltchm.to_scene("out.ltchm")`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import xarray as xr

if TYPE_CHECKING:
    from .compress import CompressResult

__all__ = ["SceneAccessor"]


@xr.register_dataarray_accessor("ltchm")
@xr.register_dataset_accessor("ltchm")
class SceneAccessor:
    """What this library adds to a DataArray or Dataset.

    There from `import ltchm_geo.xarray_accessor`, `ltchm_geo.open` or the first `xarray.open_dataset` on.
    """

    def __init__(self, obj: xr.DataArray | xr.Dataset):
        self._obj = obj

    def to_scene(self, dst: str | os.PathLike[str], **options: Any) -> CompressResult:
        """Compress the pixels, computing them shard by shard: nothing is ever in memory as a whole.

        Parameters
        ----------
        dst : path
            ``*.zarr`` writes a folder, any other name a single file.
        **options
            Every keyword of `compress_raster`: quality, lossless, max_error, target_psnr, overwrite, verify, ...

        Returns
        -------
        CompressResult

        Raises
        ------
        UsageError, UnsupportedRasterError
            The object is no raster: see `array_source`.
        DestinationError, WeightsError, DeviceError, VerificationError
            See `compress_raster`.

        Notes
        -----
        Pixels that are not 8 bit integers are computed twice, to choose each band's mapping and to code it, and band
        groups are computed one after the other. Where computing them is costly, `persist` them or write them to disk
        first.

        Examples
        --------
        >>> ndvi.rio.write_crs(32650).ltchm.to_scene("ndvi.ltchm", quality=70)  # doctest: +SKIP
        """
        from .compress import compress_raster

        return compress_raster(self._obj, dst, **options)
