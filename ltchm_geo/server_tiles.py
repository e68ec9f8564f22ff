"""Map tiles: a scene as the 256 x 256 pictures that web maps put together, warped to web mercator on demand."""

from __future__ import annotations

import contextlib
import math
import threading
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform_bounds
from rasterio.windows import Window

from .picture import Stretch, display_bands, encode_picture
from .place import touched
from .rasterio_door import SceneDataset, open_virtual
from .types import Shape2d
from .virtual_tiff import VirtualTiff

__all__ = ["MAX_ZOOM", "WebMap"]

MAX_ZOOM = 24
_SIDE = 256
_MERCATOR, _DEGREES = CRS.from_epsg(3857), CRS.from_epsg(4326)
_HALF = math.pi * 6378137  # of the mercator world's width, in metres
_LATITUDES = 85.05  # where that world ends
_MOST_PIXELS = 2 * _SIDE  # of the scene along a side of a tile, after choosing an overview
_SAMPLE = 512


class WebMap:
    """A scene as a web map. Thread-safe; one tile is made at a time, for its pixels are decoded by all cores anyhow.

    Parameters
    ----------
    virtual : VirtualTiff

    Raises
    ------
    ValueError
        The scene has no CRS or no transform, so that nobody knows where on the map it lies.
    """

    def __init__(self, virtual: VirtualTiff):
        if virtual.meta.georef.crs is None or virtual.meta.georef.transform is None:
            raise ValueError("the scene has no place on a map: it lacks a CRS or a transform")
        self._virtual = virtual
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close what `tile` opened."""
        with self._lock:
            if "_dataset" in self.__dict__:
                self._dataset.close()

    def tile(self, zoom: int, column: int, row: int) -> bytes:
        """A PNG file, transparent where the scene holds no data.

        Parameters
        ----------
        zoom, column, row : int
            As web maps count them: from 0, rows from the north.

        Raises
        ------
        ValueError
            There is no such tile.
        RasterioIOError
            A tile of the scene is damaged.
        """
        if not (0 <= zoom <= MAX_ZOOM and 0 <= column < 2**zoom and 0 <= row < 2**zoom):
            raise ValueError("there is no such map tile")
        size = 2 * _HALF / 2**zoom
        west, north = column * size - _HALF, _HALF - row * size
        picture = np.zeros((4, _SIDE, _SIDE), np.uint8)
        with self._lock:
            window = self._window(west, north - size, west + size, north)
            if window is not None:
                pixels, transform = self._read(window)
                target = Affine(size / _SIDE, 0, west, 0, -size / _SIDE, north)
                places = {"src_crs": self._dataset.crs, "src_transform": transform}
                places |= {"dst_crs": _MERCATOR, "dst_transform": target}
                # The fourth band weighs the others, or holes would bleed into their neighbours.
                reproject(pixels, picture, resampling=Resampling.bilinear, src_alpha=4, dst_alpha=4, **places)
        return encode_picture(picture, "PNG")

    def describe(self, name: str, tiles: str) -> dict[str, Any]:
        """The map as TileJSON 3.0.0; `tiles` is their address with {z}, {x} and {y}."""
        with self._lock:
            west, south, east, north = transform_bounds(self._dataset.crs, _DEGREES, *self._bounds)
            # East of a scene across the antimeridian is west of its west.
            finest = ((east - west) % 360 or 360) / 360 * 2 * _HALF / self._dataset.width
        deepest = math.ceil(math.log2(2 * _HALF / _SIDE / finest)) if finest > 0 else MAX_ZOOM
        return {
            "tilejson": "3.0.0",
            "name": name,
            "tiles": [tiles],
            "minzoom": 0,
            "maxzoom": max(0, min(MAX_ZOOM, deepest)),
            "bounds": [west, max(-_LATITUDES, south), east, min(_LATITUDES, north)],
        }

    @cached_property
    def _dataset(self) -> SceneDataset:
        return open_virtual(self._virtual, "map.tif", contextlib.ExitStack())

    @cached_property
    def _bands(self) -> list[int]:
        meta = self._virtual.meta
        return [band + 1 for band in display_bands([band.colorinterp for band in meta.bands], meta.alpha)]

    @cached_property
    def _stretch(self) -> Stretch:
        """Of the coarsest level, or its middle where that is large: as quick for any scene."""
        meta, data = self._virtual.meta, self._dataset
        factor = meta.pyramid_factor(meta.pyramid[-1])
        height, width = (min(side, _SAMPLE * factor) for side in data.shape)
        window = Window((data.width - width) // 2, (data.height - height) // 2, width, height)
        shape = (-(-height // factor), -(-width // factor))
        pixels = data.read(self._bands, window=window, out_shape=(len(self._bands), *shape))
        return Stretch.of(pixels, data.dataset_mask(window=window, out_shape=shape) != 0)

    def _window(self, west: float, south: float, east: float, north: float) -> Window | None:
        """The part of the scene that a rectangle in web mercator needs, or None."""
        data = self._dataset
        left, bottom, right, top = transform_bounds(_MERCATOR, data.crs, west, south, east, north)
        if not all(map(math.isfinite, (left, bottom, right, top))):
            return None
        lines = self._virtual.meta.georef.pixels_of((left, bottom, right, top))
        if lines is None:
            return None
        rows, columns = lines
        margin = 2 * max(1.0, (columns[1] - columns[0]) / _SIDE)  # for interpolation
        grown = (rows[0] - margin, rows[1] + margin), (columns[0] - margin, columns[1] + margin)
        box = touched(grown, Shape2d(data.height, data.width))
        return None if box is None else Window(box.x0, box.y0, box.width, box.height)

    def _read(self, window: Window) -> tuple[NDArray[np.uint8], Affine]:
        """Red, green, blue and opacity of a window (4, h, w), and where they lie."""
        data = self._dataset
        height, width = (min(int(side), _MOST_PIXELS) for side in (window.height, window.width))
        pixels = data.read(self._bands, window=window, out_shape=(len(self._bands), height, width))
        valid = data.dataset_mask(window=window, out_shape=(height, width))
        valid = np.where(np.isfinite(pixels).all(axis=0), valid, 0)
        old, across, down = data.transform, window.width / width, window.height / height
        x, y = _apply(old, window.col_off, window.row_off)
        transform = Affine(old.a * across, old.b * down, x, old.d * across, old.e * down, y)
        return np.concatenate([self._stretch.apply(pixels, hole=0), valid[None].astype(np.uint8)]), transform


def _apply(t: Affine, x: float, y: float) -> tuple[float, float]:
    # affine 2 multiplies with *, affine 3 warns of it and wants @, which affine 2 does not have.
    return t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f
