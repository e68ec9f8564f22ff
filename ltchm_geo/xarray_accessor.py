"""``.ltchm`` on xarray objects: `dataset.ltchm.to_scene("out.ltchm")`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import xarray as xr

if TYPE_CHECKING:
    from .compress import CompressResult
    from .schedule import Progress

__all__ = ["SceneAccessor"]


@xr.register_dataarray_accessor("ltchm")
@xr.register_dataset_accessor("ltchm")
class SceneAccessor:
    """What this library adds to a DataArray or Dataset.

    There from `import ltchm_geo.xarray_accessor`, `ltchm_geo.open` or the first `xarray.open_dataset` on.
    """

    def __init__(self, obj: xr.DataArray | xr.Dataset):
        self._obj = obj

    def to_scene(
        self,
        dst: str | os.PathLike[str],
        *,
        quality: int | None = None,
        lambda_: float | None = None,
        model: str | None = None,
        device: str = "auto",
        overwrite: bool = False,
        measure: bool = False,
        overviews: Sequence[int] | Literal[False] | None = None,
        overview_quality: int | None = None,
        preview: bool | None = None,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> CompressResult:
        """Compress the pixels, computing them shard by shard: nothing is ever in memory as a whole.

        Parameters
        ----------
        dst : path
            ``*.zarr`` writes a folder, any other name a single file.
        quality, lambda_, model, device, overwrite, measure, overviews, overview_quality, preview, workers, progress
            As in `compress_raster`.

        Returns
        -------
        CompressResult

        Raises
        ------
        UsageError, UnsupportedRasterError
            The object is no raster: see `array_source`.
        DestinationError, WeightsError, DeviceError
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

        return compress_raster(
            self._obj,
            dst,
            quality=quality,
            lambda_=lambda_,
            model=model,
            device=device,
            overwrite=overwrite,
            measure=measure,
            overviews=overviews,
            overview_quality=overview_quality,
            preview=preview,
            workers=workers,
            progress=progress,
        )
