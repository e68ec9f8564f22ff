"""Making overviews: averages of a scene's pixels, and where they wait until their level is coded.

Each level is averaged from the pixels of the one before, never from decoded ones, while that one is coded: the source
is read once, whatever overviews it may have of its own. What waits lies in a file without a name beside the
destination, one for the level being coded and one for the next; a first overview of factor 4 takes a sixteenth of the
uncompressed scene there. GDAL's averages would do for most rasters, but they read the source once per level and band,
take the source's own lossy overviews where it is an open dataset, and see holes where `masks.valid_pixels` sees none.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ._sink import explained
from .georef import Number
from .masks import representable
from .pyramid import reduced
from .radiometry import representable_range, to_pixels
from .scene_meta import SceneMeta
from .tiles import TileGrid
from .types import PixelBox, Shape2d

__all__ = ["PixelSource", "WaitingLevel", "average", "average_alpha", "average_mask", "most_frequent"]

Mask = NDArray[np.bool_]


class PixelSource(Protocol):
    """Where the pixels of a pyramid level come from: a `Source` for full resolution, else `WaitingLevel`."""

    def read(self, box: PixelBox, bands: Sequence[int]) -> NDArray[Any]:
        """(bands, box.height, box.width) pixels."""

    def read_mask(self, box: PixelBox) -> Mask | None:
        """(box.height, box.width), True = valid, as an alpha or mask band says it; None where there is none."""


def average(
    pixels: NDArray[Any], valid: Mask, factor: int, fill: Sequence[Number | None], nodata: Sequence[Number | None]
) -> NDArray[Any]:
    """Mean of the valid pixels in each block of factor x factor, aligned to the upper left corner.

    Parameters
    ----------
    pixels : (bands, h, w) array of the scene's type
    valid : (bands, h, w) bool
    factor : int
    fill : per band, what a block without valid pixels becomes, if the type can hold it
    nodata : per band, what no other block may become

    Returns
    -------
    (bands, ceil(h / factor), ceil(w / factor)) array of the same type. Integers are rounded half to even. NaN and
    infinities count only in blocks that have nothing else.
    """
    shape = reduced(Shape2d(*pixels.shape[1:]), factor)
    out = np.empty((len(pixels), *shape), pixels.dtype)
    for plane, known, result, hole, forbidden in zip(pixels, valid, out, fill, nodata, strict=True):
        mean = _mean(_blocks(plane, factor), _blocks(known, factor))
        result[...] = to_pixels(mean, out.dtype, forbidden, representable_range(out.dtype))
        if hole is not None and representable(hole, out.dtype):
            result[~average_mask(known, factor)] = hole
    return out


def most_frequent(
    pixels: NDArray[Any], valid: Mask, factor: int, fill: Sequence[Number | None], nodata: Sequence[Number | None]
) -> NDArray[Any]:
    """The valid value found most often in each block, the least of several: for classes, of which there is no mean.

    Parameters and result are those of `average`.
    """
    shape = reduced(Shape2d(*pixels.shape[1:]), factor)
    out = np.zeros((len(pixels), *shape), pixels.dtype)
    for plane, known, result, hole in zip(pixels, valid, out, fill, strict=True):
        values, ranks = np.unique(plane, return_inverse=True)
        ranks = np.where(known, ranks.reshape(plane.shape), len(values))  # of holes: a rank of their own
        ranks = np.where(_blocks(known, factor), _blocks(ranks, factor), len(values))
        ordered = np.sort(ranks.transpose(0, 2, 1, 3).reshape(*shape, factor**2), axis=-1)
        places = np.arange(factor**2)
        begins = np.where(np.diff(ordered, axis=-1, prepend=-1) != 0, places, 0)
        lengths = np.where(ordered < len(values), places - np.maximum.accumulate(begins, axis=-1) + 1, 0)
        winner = np.take_along_axis(ordered, lengths.argmax(axis=-1)[..., None], axis=-1)[..., 0]
        found = winner < len(values)
        result[found] = values[winner[found]]
        if hole is not None:
            result[~found] = hole
    return out


def average_alpha(alpha: NDArray[Any], factor: int) -> NDArray[Any]:
    """Mean of all pixels of an alpha band (h, w); never 0 where one of them is not: 0 alone means a hole."""
    mean = average(alpha[None], np.ones((1, *alpha.shape), bool), factor, (None,), (None,))[0]
    lost = average_mask(alpha != 0, factor)
    lost[mean != 0] = False
    return np.where(lost, _blocks(alpha, factor).max(axis=(1, 3)), mean)


def average_mask(valid: Mask, factor: int) -> Mask:
    """Whether any pixel of each block is valid: (h, w) to (ceil(h / factor), ceil(w / factor))."""
    found: Mask = np.logical_or.reduce(_blocks(valid, factor), axis=(1, 3))
    return found


def _blocks(plane: NDArray[Any], factor: int) -> NDArray[Any]:
    """(h, w) as (y, factor, x, factor); what is missing at the lower and right edge is zero."""
    height, width = plane.shape
    y, x = reduced(Shape2d(height, width), factor)
    if (y * factor, x * factor) != (height, width):
        plane = np.pad(plane, ((0, y * factor - height), (0, x * factor - width)))
    return plane.reshape(y, factor, x, factor)


def _mean(blocks: NDArray[Any], valid: Mask) -> NDArray[np.float64]:
    """Of the valid finite values of each block; where there are none, the greatest valid one; 0 without any."""
    whole = blocks.dtype.kind != "f"
    finite = valid if whole else valid & np.isfinite(blocks)
    count = finite.sum(axis=(1, 3))
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.where(finite, blocks, 0).sum(axis=(1, 3), dtype=np.float64) / np.maximum(count, 1)
        if not whole and (lost := valid.any(axis=(1, 3)) & ((count == 0) | ~np.isfinite(mean))).any():
            mean[lost] = np.where(valid, blocks, -np.inf).max(axis=(1, 3))[lost]
    return mean


class WaitingLevel:
    """Pixels of one level, written once in blocks and read in windows, in a file that vanishes with the process.

    Safe to use from any number of threads. Memory does not grow with the level.

    Parameters
    ----------
    meta : SceneMeta
        For bands, type, alpha and mask.
    before : TileGrid
        Of the level before, whose shards become the blocks.
    step : int
        How many times smaller this level is than that; divides the side of a shard in pixels.
    beside : Path
        The destination. The file lies in its folder, as there has to be room anyway.

    Raises
    ------
    DestinationError
        Also from `add`, for instance when the disk is full.
    """

    def __init__(self, meta: SceneMeta, before: TileGrid, step: int, beside: Path):
        self._meta, self._step, self._dtype = meta, step, np.dtype(meta.dtype)
        self._shape, self._columns = reduced(before.scene, step), before.shards.x
        self._side = before.tile * before.shard // step
        self._lock, self._beside = threading.Lock(), beside
        with explained(beside):
            self._file = tempfile.TemporaryFile(dir=beside.parent)  # noqa: SIM115 - closed by `close`

    def add(self, box: PixelBox, averages: Mapping[int, NDArray[Any]]) -> None:
        """Take a shard of the level before: `box` there, and its averages by band; the mask's number follows theirs."""
        for plane, pixels in averages.items():
            self._write(box, plane, pixels)

    def read(self, box: PixelBox, bands: Sequence[int]) -> NDArray[Any]:
        """See `PixelSource.read`. `box` lies inside the level, and all it needs was added."""
        out = np.empty((len(bands), box.height, box.width), self._dtype)
        for y0 in range(box.y0 // self._side * self._side, box.y1, self._side):
            for x0 in range(box.x0 // self._side * self._side, box.x1, self._side):
                block = self._block(y0, x0)
                if (common := block.intersection(box)) is None:
                    continue
                inside, target = common.relative_to(block).slices, common.relative_to(box).slices
                for plane, band in zip(out, bands, strict=True):
                    plane[target] = self._read(block, band)[inside]
        return out

    def read_mask(self, box: PixelBox) -> Mask | None:
        """See `PixelSource.read_mask`."""
        plane = len(self._meta.bands) if self._meta.mask else self._meta.alpha
        if plane is None:
            return None
        valid: Mask = self.read(box, [plane])[0] != 0
        return valid

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()

    def _block(self, y0: int, x0: int) -> PixelBox:
        return PixelBox(y0, x0, min(self._side, self._shape.y - y0), min(self._side, self._shape.x - x0))

    def _offset(self, y0: int, x0: int, plane: int) -> int:
        slot = y0 // self._side * self._columns + x0 // self._side
        planes = len(self._meta.bands) + self._meta.mask
        return (slot * planes + plane) * self._side**2 * self._dtype.itemsize

    def _write(self, box: PixelBox, plane: int, pixels: NDArray[Any]) -> None:
        with self._lock, explained(self._beside):
            self._file.seek(self._offset(box.y0 // self._step, box.x0 // self._step, plane))
            self._file.write(np.ascontiguousarray(pixels, self._dtype).data)
            self._file.flush()

    def _read(self, block: PixelBox, plane: int) -> NDArray[Any]:
        with self._lock, explained(self._beside):
            self._file.seek(self._offset(block.y0, block.x0, plane))
            data = self._file.read(block.height * block.width * self._dtype.itemsize)
        return np.frombuffer(data, self._dtype).reshape(block.height, block.width)
