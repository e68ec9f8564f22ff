"""A compressed scene as an uncompressed Cloud Optimized GeoTIFF that exists nowhere: any piece of it on demand."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import UsageError
from .scene_decoder import SceneDecoder
from .tile_cache import SceneTiles, TileCache, TileKey
from .types import PixelBox
from .virtual_tiff_layout import Image, interleave, pack_head, plan_images
from .virtual_tiff_tags import scene_template

__all__ = ["VirtualTiff"]

_MAX_SIZE = 1 << 62
_BATCH_TILES, _BATCH_BYTES = 64, 1 << 26


class _Region(NamedTuple):
    """A stretch of the file: `read` gives its bytes from one offset to another, both counted from its start."""

    start: int
    size: int
    read: Callable[[int, int], bytes]


class VirtualTiff:
    """The file: its size, and any piece of it. Thread-safe; opening costs no more for a large scene.

    Its layout is that of `virtual_tiff_layout`; tiles are the scene's tiles, decoded through a cache.

    Parameters
    ----------
    decoder : SceneDecoder
        Of an open scene; the reader stays the caller's to close.
    cache : TileCache, optional
        May be shared by scenes that are open together. One of its own if None.

    Attributes
    ----------
    meta : SceneMeta
        What the scene says about itself.
    size : int
        Bytes.
    aux_xml : bytes or None
        What GDAL would keep beside the file in ``NAME.tif.aux.xml``: what TIFF has no tags for, such as the CRS of a
        rotated pole.

    Raises
    ------
    UsageError
        The scene is nothing a GeoTIFF can hold.
    """

    def __init__(self, decoder: SceneDecoder, cache: TileCache | None = None):
        self.meta = meta = decoder.meta
        self._cache, self._tiles = cache or TileCache(), SceneTiles(decoder)
        self._dtype, self._side = np.dtype(meta.dtype).newbyteorder("<"), meta.tile
        template = scene_template(meta, interleave(meta))
        self.aux_xml = template.aux_xml
        self._images = plan_images(meta, template)
        head = pack_head(self._images)
        regions = [_Region(0, len(head), lambda first, last: head[first:last])]
        regions += [region for image in self._images for region in self._regions_of(image)]
        self._regions = sorted(regions, key=lambda region: region.start)
        self._starts = [region.start for region in self._regions]
        self.size = self._regions[-1].start + self._regions[-1].size
        if self.size > _MAX_SIZE:
            raise UsageError(f"as a TIFF the scene would have {self.size} bytes, more than programs can address")

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the file from `offset` on: `length` of them, or fewer where the file ends before.

        Raises
        ------
        CorruptTileError
            Of a damaged tile among them.
        LtchmError, OSError
            Whatever else hinders decoding.
        """
        pieces, stop = [], min(offset + length, self.size)
        while offset < stop:
            number = bisect.bisect_right(self._starts, offset) - 1
            region = self._regions[number]
            end = min(stop, self._starts[number + 1]) if number + 1 < len(self._regions) else stop
            filled = min(max(end, offset), region.start + region.size)
            if offset < filled:
                pieces.append(region.read(offset - region.start, filled - region.start))
            pieces.append(bytes(end - max(offset, filled)))  # between regions there is nothing
            offset = end
        return b"".join(pieces)

    def prepare(self, pyramid: int, box: PixelBox, bands: list[int]) -> None:
        """Decode at once what reading a window of 0-based `bands` will need, as far as the cache is sure to keep it."""
        image = next(image for image in self._images if image.pyramid == pyramid and not image.is_mask)
        planes = [plane for group in image.groups for plane in group]
        arrays = dict.fromkeys(planes[band].array for band in bands)
        size = sum(math.prod(self.meta.tile_shape(array)) for array in arrays) * self._dtype.itemsize
        if image.grid.count(box) * size <= self._cache.limit // 2:
            keys = [TileKey(pyramid, array, tile) for tile in image.grid.covering(box) for array in arrays]
            self._cache.get(self._tiles, keys)

    def close(self) -> None:
        """Give up the decoded tiles."""
        self._cache.forget(self._tiles)

    def _regions_of(self, image: Image) -> list[_Region]:
        def numbers(entries: Callable[[int, int], bytes], size: int) -> Callable[[int, int], bytes]:
            def read(first: int, last: int) -> bytes:
                begin = first // size
                return entries(begin, -(-last // size))[first - begin * size : last - begin * size]

            return read

        return [
            _Region(image.offsets_at, 8 * image.tiles, numbers(image.offsets, 8)),
            _Region(image.sizes_at, 4 * image.tiles, numbers(image.sizes, 4)),
            _Region(image.data_at, image.tiles * image.tile_bytes, numbers(self._pixels(image), image.tile_bytes)),
        ]

    def _pixels(self, image: Image) -> Callable[[int, int], bytes]:
        """Reads whole TIFF tiles of an image, by number."""
        step = max(1, min(_BATCH_TILES, _BATCH_BYTES // image.tile_bytes))

        def read(first: int, last: int) -> bytes:
            pieces = []
            for begin in range(first, last, step):
                located = [image.locate(number) for number in range(begin, min(begin + step, last))]
                keys = list(
                    dict.fromkeys(TileKey(image.pyramid, plane.array, t) for t, planes in located for plane in planes)
                )
                found = dict(zip(keys, self._cache.get(self._tiles, keys), strict=True))
                for tile, planes in located:
                    bands = [found[TileKey(image.pyramid, plane.array, tile)] for plane in planes]
                    # A plane has no axis of bands.
                    chosen = [b if b.ndim == 2 else b[plane.position] for b, plane in zip(bands, planes, strict=True)]
                    pieces.append(self._packed(image, chosen))
            return b"".join(pieces)

        return read

    def _packed(self, image: Image, bands: list[NDArray[Any]]) -> bytes:
        """The bytes of one TIFF tile; what lies beyond the scene is zeros."""
        height, width = bands[0].shape
        block = np.zeros((self._side, self._side, len(bands)), bool if image.is_mask else self._dtype)
        for number, band in enumerate(bands):
            block[:height, :width, number] = band
        return np.packbits(block).tobytes() if image.is_mask else block.tobytes()
