"""Where everything lies in the virtual TIFF of a scene: numbers only, nothing is decoded.

    header, directories                  small, packed once
    tile offsets and sizes of each image computed when they are read; of a very large scene they would fill memory
    pixels of each image                 decoded when they are read

Directories come in the order of a Cloud Optimized GeoTIFF: full resolution, its mask, then each overview from the
finest on, with its mask. Pixels come the other way round.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from . import virtual_tiff_tags as tiff
from .scene_meta import SceneMeta
from .tiles import TileGrid
from .types import TileIndex
from .virtual_tiff_tags import HEADER, Tag, Template, directory_size, pack_directory

__all__ = ["Image", "Plane", "interleave", "pack_head", "plan_images"]

#: GDAL reads over HTTP in pieces of 16 KiB: from an aligned start, no piece reaches into a tile nobody asked for.
_ALIGN = 1 << 14
_REDUCED, _MASK = 1, 4
_MASK_PLANE = "mask"


class Plane(NamedTuple):
    """A band of an image: the scene's array that holds it, and which of the array's bands it is."""

    array: str
    position: int


@dataclass(frozen=True)
class Image:
    """One directory and its pixels.

    Attributes
    ----------
    pyramid : int
        The level it shows.
    grid : TileGrid
        Its tiles, those of the scene.
    groups : tuple of tuples of Plane
        Planes that share TIFF tiles: one group of all (pixel-interleaved) or one group each (band-interleaved).
    tags : tuple of Tag
        All but size and place.
    tile_bytes : int
        Bytes of a TIFF tile.
    offsets_at, sizes_at, data_at : int
        Where in the file the arrays of tile offsets and sizes and the pixels begin.
    """

    pyramid: int
    grid: TileGrid
    groups: tuple[tuple[Plane, ...], ...]
    tags: tuple[Tag, ...]
    tile_bytes: int
    offsets_at: int = 0
    sizes_at: int = 0
    data_at: int = 0

    @property
    def is_mask(self) -> bool:
        """Whether it has one bit per pixel, True = valid."""
        return self.groups[0][0].array == _MASK_PLANE

    @property
    def tiles(self) -> int:
        """Number of TIFF tiles."""
        return self.grid.shape.y * self.grid.shape.x * len(self.groups)

    def locate(self, number: int) -> tuple[TileIndex, tuple[Plane, ...]]:
        """The tile of the scene, and the planes, that a TIFF tile holds."""
        group, tile = divmod(number, self.grid.shape.y * self.grid.shape.x)
        return TileIndex(*divmod(tile, self.grid.shape.x)), self.groups[group]

    def offsets(self, first: int, last: int) -> bytes:
        """Entries `first` to `last` (not included) of the array of tile offsets."""
        return (np.arange(first, last, dtype="<u8") * np.uint64(self.tile_bytes) + np.uint64(self.data_at)).tobytes()

    def sizes(self, first: int, last: int) -> bytes:
        """Entries `first` to `last` (not included) of the array of tile sizes."""
        return np.full(last - first, self.tile_bytes, "<u4").tobytes()

    def directory(self) -> list[Tag]:
        """All tags. Arrays that do not fit into their entries stand for themselves by their offsets."""
        height, width = self.grid.scene
        return [
            *self.tags,
            Tag.numbers(tiff.WIDTH, width),
            Tag.numbers(tiff.LENGTH, height),
            Tag.numbers(tiff.COMPRESSION, 1),
            Tag.numbers(tiff.TILE_WIDTH, self.grid.tile),
            Tag.numbers(tiff.TILE_LENGTH, self.grid.tile),
            tiff.long8_array(tiff.TILE_OFFSETS, self.tiles, self.offsets_at, self.offsets),
            tiff.long_array(tiff.TILE_BYTE_COUNTS, self.tiles, self.sizes_at, self.sizes),
        ]


def interleave(meta: SceneMeta) -> str:
    """How bands lie, in GDAL's words: "pixel" where all are coded together, so that nothing is decoded twice.

    Else "band", so that no band is decoded that nobody asked for.
    """
    return "pixel" if len(meta.groups) == 1 else "band"


def plan_images(meta: SceneMeta, template: Template) -> list[Image]:
    """The images of the file in the order of their directories, each in its place."""
    homes = {band: Plane(group.name, i) for group in meta.groups for i, band in enumerate(group.bands)}
    planes = tuple(homes.get(band, Plane("alpha", 0)) for band in range(len(meta.bands)))
    groups = (planes,) if interleave(meta) == "pixel" else tuple((plane,) for plane in planes)
    pixels = meta.tile**2
    images = []
    for level in meta.pyramid:
        grid, reduced = meta.pyramid_grid(level), _REDUCED if level else 0
        kind = (Tag.numbers(tiff.SUBFILE_TYPE, reduced),) if reduced else ()
        tags = (*kind, *(template.overview if level else template.image))
        images.append(Image(level, grid, groups, tags, pixels * len(groups[0]) * np.dtype(meta.dtype).itemsize))
        if meta.mask:
            tags = (Tag.numbers(tiff.SUBFILE_TYPE, reduced | _MASK), *tiff.mask_tags())
            images.append(Image(level, grid, ((Plane(_MASK_PLANE, 0),),), tags, pixels // 8))
    return _placed(images)


def pack_head(images: Sequence[Image]) -> bytes:
    """Header and directories."""
    starts = _directory_starts(images)
    following = [*starts[1:-1], 0]
    packed = [pack_directory(i.directory(), at, to) for i, at, to in zip(images, starts, following, strict=False)]
    return b"".join([HEADER, *packed])


def _directory_starts(images: Sequence[Image]) -> list[int]:
    """Where each directory begins, and the last one ends."""
    return list(itertools.accumulate((directory_size(i.directory()) for i in images), initial=len(HEADER)))


def _placed(images: Sequence[Image]) -> list[Image]:
    at = _directory_starts(images)[-1]
    placed = []
    for image in images:
        placed.append(replace(image, offsets_at=at, sizes_at=at + 8 * image.tiles))
        at += _rounded(12 * image.tiles, 8)
    at = _rounded(at, _ALIGN)
    for number, image in reversed(list(enumerate(placed))):
        placed[number] = replace(image, data_at=at)
        at += _rounded(image.tiles * image.tile_bytes, _ALIGN)
    return placed


def _rounded(size: int, unit: int) -> int:
    return -(-size // unit) * unit
