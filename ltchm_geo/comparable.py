"""What two rasters must offer to be compared: a raster that GDAL opens does, and so does a compressed scene."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .container import ContainerReader
from .errors import AlreadyCompressedError
from .georef import BandInfo, Georef
from .raster import open_source
from .source import MaskKind, mask_kind
from .types import PixelBox, Shape2d

__all__ = ["Comparable", "open_comparable"]

Mask = NDArray[np.bool_]


class Comparable(Protocol):
    """What a raster must offer; a `Source` does, and `_DecodedScene`."""

    name: str
    shape: Shape2d
    dtype: np.dtype[Any]
    bands: tuple[BandInfo, ...]
    georef: Georef
    alpha: int | None
    mask_kind: MaskKind

    def read(self, box: PixelBox, bands: Sequence[int]) -> NDArray[Any]:
        """(bands, h, w) pixels."""

    def read_mask(self, box: PixelBox) -> Mask | None:
        """(h, w), True = valid, from an alpha or mask band."""


@contextlib.contextmanager
def open_comparable(src: Any, device: str = "auto") -> Iterator[Comparable]:
    """Open whatever it is: a path, a name rasterio knows, an open dataset, a compressed scene.

    Raises
    ------
    SourceError, UnsupportedRasterError, ContainerError
    """
    with contextlib.ExitStack() as stack:
        try:
            source: Comparable = stack.enter_context(open_source(src, "exact"))
        except AlreadyCompressedError:
            source = _DecodedScene(stack.enter_context(ContainerReader(src)), device)
        yield source


class _DecodedScene:
    """A compressed scene, decoded window by window."""

    def __init__(self, reader: ContainerReader, device: str):
        from .scene_decoder import SceneDecoder  # brings torch, which comparing GeoTIFFs should not wait for

        meta = reader.meta
        self._decoder = SceneDecoder(reader, device)
        self.name, self.shape, self.dtype = str(reader.path), meta.shape, np.dtype(meta.dtype)
        self.bands, self.georef, self.alpha = meta.bands, meta.georef, meta.alpha
        nodata, alpha = meta.bands[0].nodata, meta.alpha is not None
        self.mask_kind: MaskKind = mask_kind(self.dtype, nodata, alpha=alpha, mask=meta.mask)

    def read(self, box: PixelBox, bands: Sequence[int]) -> NDArray[Any]:
        return self._decoder.read(box, bands)

    def read_mask(self, box: PixelBox) -> Mask | None:
        return self._decoder.read_mask(box)
