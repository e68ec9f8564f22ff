"""Learned compression of georeferenced imagery.

>>> import ltchm_geo
>>> ltchm_geo.compress_raster("scene.tif")  # doctest: +SKIP

Importing this package loads nothing heavy; each function does when it is called.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import errors
from .errors import LtchmError
from .version import __version__

if TYPE_CHECKING:
    from .archive import compress_many
    from .compare import compare_rasters
    from .compress import compress_raster
    from .decompress import decompress_raster
    from .estimate import estimate_raster
    from .inspection import info, verify
    from .lazy import open_scene as open
    from .outline import footprint
    from .quicklook import preview
    from .rasterio_door import rasterio_open
    from .settings import CompressSettings

__all__ = [
    "CompressSettings",
    "LtchmError",
    "__version__",
    "compare_rasters",
    "compress_many",
    "compress_raster",
    "decompress_raster",
    "errors",
    "estimate_raster",
    "footprint",
    "info",
    "open",
    "preview",
    "rasterio_open",
    "verify",
]

_HOME = {
    "CompressSettings": ("settings", "CompressSettings"),
    "compare_rasters": ("compare", "compare_rasters"),
    "compress_many": ("archive", "compress_many"),
    "compress_raster": ("compress", "compress_raster"),
    "decompress_raster": ("decompress", "decompress_raster"),
    "estimate_raster": ("estimate", "estimate_raster"),
    "footprint": ("outline", "footprint"),
    "info": ("inspection", "info"),
    "open": ("lazy", "open_scene"),
    "preview": ("quicklook", "preview"),
    "rasterio_open": ("rasterio_door", "rasterio_open"),
    "verify": ("inspection", "verify"),
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        module, attribute = _HOME[name]
        return getattr(import_module(f".{module}", __name__), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
