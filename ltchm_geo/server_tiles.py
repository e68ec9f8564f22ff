"""Map tiles: a scene as the 256 x 256 pictures that web maps put together, warped to web mercator on demand."""

from __future__ import annotations

import contextlib
import math
import threading
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio import Affine, Env
from rasterio._err import CPLE_BaseError  # rasterio lets these of GDAL's errors through
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.warp import reproject, transform_bounds
from rasterio.windows import Window

from .picture import Look, Stretch, encode_picture
from .place import touched
from .rasterio_door import SceneDataset, open_virtual
from .types import Bounds, Shape2d
from .virtual_tiff import VirtualTiff

__all__ = ["MAX_ZOOM", "WebMap"]

MAX_ZOOM = 24
_SIDE = 256
_MERCATOR, _DEGREES = CRS.from_epsg(3857), CRS.from_epsg(4326)
_HALF = math.pi * 6378137  # of the mercator world's width, in metres
_LATITUDES = 85.05  # where that world ends
_MOST_PIXELS = 2 * _SIDE  # of the scene along a side of a tile, after choosing an overview
_SAMPLE = 512
_CLOSE = 1e-9  # degrees


class WebMap:
    """A scene as a web map. Thread-safe; one tile is made at a time, for its pixels are decoded by all cores anyhow.

    Parameters
    ----------
    virtual : VirtualTiff

    Raises
    ------
    ValueError
        Nobody knows where on the map the scene lies: it has no CRS or no transform, or a CRS of its own.
    """

    def __init__(self, virtual: VirtualTiff):
        self._bounds = _on_earth(virtual)
        self._virtual, self._look = virtual, Look.of(virtual.meta)
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
        target = Affine(size / _SIDE, 0, west, 0, -size / _SIDE, north)
        picture = np.zeros((4, _SIDE, _SIDE), np.uint8)
        with self._lock:
            for turn in self._turns:
                window = self._window((west, north - size, west + size, north), turn)
                if window is not None:
                    part = self._warped(window, turn, target)
                    picture = np.where(part[3] > picture[3], part, picture)
        return encode_picture(picture, "PNG")

    def describe(self, name: str, tiles: str) -> dict[str, Any]:
        """The map as TileJSON 3.0.0; `tiles` is their address with {z}, {x} and {y}."""
        west, south, east, north = self._bounds
        width = (east - west) % 360 or 360  # the east of a scene across the antimeridian is west of its west
        west = (west + 180) % 360 - 180
        if west + width > 180 + _CLOSE:  # bounds must not go across
            west, east = -180.0, 180.0
        else:
            east = min(180.0, west + width)
        deepest = math.ceil(math.log2(360 / width * self._virtual.meta.shape.x / _SIDE))
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
        return [band + 1 for band in self._look.bands]

    @cached_property
    def _turns(self) -> tuple[float, ...]:
        """What to add to a longitude to find its pixels: grids of the whole Earth may count from 0 to 360 degrees."""
        crs = self._dataset.crs
        if not crs.is_geographic:
            return (0.0,)
        turn = math.tau / crs.units_factor[1]
        return 0.0, turn, -turn

    @cached_property
    def _stretch(self) -> Stretch:
        """Of the coarsest level, or its middle where that is large: as quick for any scene."""
        meta, data = self._virtual.meta, self._dataset
        factor = meta.pyramid_factor(meta.pyramid[-1])
        height, width = (min(side, _SAMPLE * factor) for side in data.shape)
        window = Window((data.width - width) // 2, (data.height - height) // 2, width, height)
        shape = (-(-height // factor), -(-width // factor))
        pixels = data.read(self._bands, window=window, out_shape=(len(self._bands), *shape))
        return self._look.stretch(pixels, data.dataset_mask(window=window, out_shape=shape) != 0)

    def _window(self, place: Bounds, turn: float) -> Window | None:
        """The part of the scene that a rectangle in web mercator needs, or None."""
        data = self._dataset
        left, bottom, right, top = transform_bounds(_MERCATOR, data.crs, *place)
        if not all(map(math.isfinite, (left, bottom, right, top))):
            return None
        lines = self._virtual.meta.georef.pixels_of((left + turn, bottom, right + turn, top))
        if lines is None:
            return None
        rows, columns = lines
        # For interpolation; a turn later, it would be all there is of most scenes, a strip that no overview helps with.
        margin = 0.0 if turn else 2 * max(1.0, (columns[1] - columns[0]) / _SIDE)
        grown = (rows[0] - margin, rows[1] + margin), (columns[0] - margin, columns[1] + margin)
        box = touched(grown, Shape2d(data.height, data.width))
        return None if box is None else Window(box.x0, box.y0, box.width, box.height)

    def _warped(self, window: Window, turn: float, target: Affine) -> NDArray[np.uint8]:
        """A window as part of a picture (4, _SIDE, _SIDE) in web mercator."""
        pixels, transform = self._read(window, turn)
        places = {"src_crs": self._dataset.crs, "src_transform": transform}
        places |= {"dst_crs": _MERCATOR, "dst_transform": target}
        resampling = Resampling.nearest if self._look.classes else Resampling.bilinear
        picture = np.zeros((4, _SIDE, _SIDE), np.uint8)
        # The fourth band weighs the others, or holes would bleed into their neighbours.
        reproject(pixels, picture, resampling=resampling, src_alpha=4, dst_alpha=4, **places)
        return picture

    def _read(self, window: Window, turn: float) -> tuple[NDArray[np.uint8], Affine]:
        """Red, green, blue and opacity of a window (4, h, w), and where they lie on Earth."""
        data = self._dataset
        height, width = (min(int(side), _MOST_PIXELS) for side in (window.height, window.width))
        pixels = data.read(self._bands, window=window, out_shape=(len(self._bands), height, width))
        valid = data.dataset_mask(window=window, out_shape=(height, width))
        valid = np.where(np.isfinite(pixels).all(axis=0), valid, 0)
        old, across, down = data.transform, window.width / width, window.height / height
        x, y = _apply(old, window.col_off, window.row_off)
        transform = Affine(old.a * across, old.b * down, x - turn, old.d * across, old.e * down, y)
        return np.concatenate([self._stretch.apply(pixels, hole=0), valid[None].astype(np.uint8)]), transform


def _on_earth(virtual: VirtualTiff) -> Bounds:
    """West, south, east and north of a scene in degrees, whichever way up it lies; ValueError where nobody knows."""
    georef = virtual.meta.georef
    bounds = georef.bounds(virtual.meta.shape)
    if georef.crs is None or bounds is None:
        raise ValueError("the scene has no place on a map: it lacks a CRS or a transform")
    try:
        with Env():  # which keeps GDAL from printing its errors
            found: Bounds = transform_bounds(CRS.from_wkt(georef.crs), _DEGREES, *bounds)
    except (RasterioError, CPLE_BaseError) as error:
        raise ValueError("the scene has no place on a map: nothing leads from its CRS to the Earth") from error
    if not all(map(math.isfinite, found)):
        raise ValueError("the scene has no place on a map: its coordinates are outside of what its CRS is for")
    return found


def _apply(t: Affine, x: float, y: float) -> tuple[float, float]:
    # affine 2 multiplies with *, affine 3 warns of it and wants @, which affine 2 does not have.
    return t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f
