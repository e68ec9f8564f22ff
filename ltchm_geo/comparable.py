"""What two rasters must offer to be compared: a raster that GDAL opens does, and so does a compressed scene."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ._recognise import is_scene
from .container import ContainerReader
from .errors import NotAContainerError
from .georef import BandInfo, Georef
from .location import is_object_url
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
    """Open whatever it is: a path, a URL, another name rasterio knows, an open dataset, a compressed scene.

    Raises
    ------
    SourceError, UnsupportedRasterError, ContainerError, ObjectStoreError
    """
    scene = _open_scene(src)
    if scene is not None:
        with scene:
            yield _DecodedScene(scene, device)
    else:
        with open_source(src, "exact") as source:
            yield source


def _open_scene(src: Any) -> ContainerReader | None:
    """The compressed scene that `src` names; None where that is something else."""
    if not isinstance(src, str | os.PathLike):
        return None
    name = os.fspath(src)
    if is_scene(name):
        return ContainerReader(name)
    if not (is_object_url(name) and name.endswith(".zarr")):
        return None
    try:
        return ContainerReader(name)
    except NotAContainerError:
        return None  # a Zarr store of somebody else's, which GDAL may know


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
