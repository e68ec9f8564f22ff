"""Quick-looks: a small ordinary picture of a scene, stored in it or made of its coarsest level that is large enough."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .container import ContainerReader, SceneMeta
from .errors import CorruptContainerError, UsageError
from .georef_rasterio import quiet_open
from .masks import valid_pixels
from .overviews import PixelSource, average, average_mask, most_frequent
from .picture import Look, encode_picture
from .pyramid import MAX_STEP, PREVIEW_SIDE, preview_factor, reduced
from .types import PixelBox, Shape2d

if TYPE_CHECKING:
    from .scene_decoder import SceneDecoder
    from .schedule import Progress

__all__ = ["MAX_SIDE", "make_preview", "preview"]

MAX_SIDE = 8192

Picture = NDArray[np.uint8]


def preview(
    src: str | os.PathLike[str],
    size: int = PREVIEW_SIDE,
    *,
    level: int | None = None,
    device: str = "auto",
    allow_damaged: bool = False,
    progress: Progress | None = None,
) -> Picture:
    """A small picture of a compressed scene.

    The one stored in the scene, if it is large enough and no level is asked for; it takes no network. Otherwise one is
    decoded from the coarsest level that is large enough.

    Parameters
    ----------
    src : path of a ``.ltchm`` file or a ``.zarr`` folder
    size : int
        Length of the longer side in pixels, 1 to 8192; less where the scene itself is smaller.
    level : int, optional
        Pyramid level to make it of; 0 is full resolution.
    device : str
        Where to decode.
    allow_damaged : bool
        Take nodata (or 0) for damaged tiles, instead of raising.
    progress : callable, optional
        Called with (blocks done, blocks in all) while decoding.

    Returns
    -------
    (h, w, 3) uint8: red, green and blue by the bands' colours, else the first three, else the first as grey, or in the
    colours of its table. What is not uint8 is stretched from its 2nd to its 98th percentile; classes without colours
    from the least to the greatest. Pixels without data are white.

    Raises
    ------
    ContainerError, WeightsError, DeviceError, UsageError
    """
    if not 1 <= size <= MAX_SIDE:
        raise UsageError(f"the size of a preview must be from 1 to {MAX_SIDE} pixels, not {size}")
    with ContainerReader(src) as reader:
        shape, look = reader.meta.shape, Look.of(reader.meta)
        stored = reader.preview() if level is None else None
        if stored is not None:
            picture = _decode_jpeg(stored, reader)
            if max(picture.shape) >= min(size, max(shape)):
                return _to_image(_fit(picture, size, shape, look))
        chosen = _coarsest(reader.meta, size) if level is None else level
        from .scene_decoder import SceneDecoder  # which the stored one can do without

        decoder = SceneDecoder(reader, device, allow_damaged=allow_damaged)
        picture = _render_level(decoder, chosen, size, look, progress)
        return _to_image(_fit(picture, size, shape, look))


def make_preview(source: PixelSource, shape: Shape2d, meta: SceneMeta) -> bytes:
    """The JPEG file to store in a scene, from a level of `shape` pixels. It is read whole: make it a small one."""
    box, look = PixelBox(0, 0, *shape), Look.of(meta)
    pixels = source.read(box, look.bands)
    valid = valid_pixels(pixels, [meta.bands[band].nodata for band in look.bands], source.read_mask(box))
    picture = _fit(_render(pixels, valid, look), PREVIEW_SIDE, meta.shape, look)
    return encode_picture(picture[: look.channels], "JPEG")


# --- from the scene --------------------------------------------------------------------------------------------------


def _coarsest(meta: SceneMeta, size: int) -> int:
    """The coarsest level of at least that many pixels; full resolution where none has."""
    return max((level for level in meta.pyramid if max(meta.pyramid_shape(level)) >= size), default=0)


def _render_level(decoder: SceneDecoder, level: int, size: int, look: Look, progress: Progress | None) -> Picture:
    """A level as a picture of at least `size` pixels, decoded and reduced shard by shard."""
    from .schedule import Ticker

    meta, bands, reduce = decoder.meta, look.bands, most_frequent if look.classes else average
    shape = meta.pyramid_shape(level)
    factor = min(MAX_STEP, preview_factor(shape, size))
    pixels = np.empty((len(bands), *reduced(shape, factor)), meta.dtype)
    valid = np.empty(pixels.shape, bool)
    nodata = [meta.bands[band].nodata for band in bands]
    grid = decoder.reader.grids[level].for_reading
    ticker = Ticker(math.prod(grid.shards), progress)
    for box in grid.pieces(PixelBox(0, 0, *shape)):
        found = decoder.read(box, bands, level)
        known = valid_pixels(found, nodata, decoder.read_mask(box, level))
        part = reduced(Shape2d(box.height, box.width), factor)
        rows, columns = PixelBox(box.y0 // factor, box.x0 // factor, *part).slices
        pixels[:, rows, columns] = reduce(found, known, factor, [None] * len(bands), nodata)
        valid[:, rows, columns] = [average_mask(plane, factor) for plane in known]
        ticker.add(1)
    return _render(pixels, valid, look)


# --- pictures --------------------------------------------------------------------------------------------------------


def _render(pixels: NDArray[Any], valid: NDArray[np.bool_], look: Look) -> Picture:
    """(3, h, w); white where any of the bands has no data."""
    known: NDArray[np.bool_] = np.logical_and.reduce(valid)
    return look.stretch(pixels, known).apply(pixels, known)


def _fit(picture: Picture, size: int, scene: Shape2d, look: Look) -> Picture:
    """Shrink to `size` pixels along the longer side, in the scene's proportions; a smaller picture stays as it is."""
    from rasterio.enums import Resampling
    from rasterio.io import MemoryFile

    count, height, width = picture.shape
    if max(height, width) <= size:
        return picture
    shape = [max(1, round(side * size / max(scene))) for side in scene]
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": "uint8"}
    with MemoryFile() as file:
        with quiet_open(file.name, "w", **profile) as out:
            out.write(picture)
        with quiet_open(file.name) as dataset:
            resampling = Resampling.nearest if look.classes else Resampling.average
            small: Picture = dataset.read(out_shape=(count, *shape), resampling=resampling)
            return small


def _decode_jpeg(data: bytes, reader: ContainerReader) -> Picture:
    """(3, h, w) of the stored preview, which may claim anything: its size is looked at before it is decoded."""
    from rasterio.errors import RasterioError
    from rasterio.io import MemoryFile

    try:
        with MemoryFile(data) as file, quiet_open(file.name, driver="JPEG") as dataset:
            if max(dataset.shape) > PREVIEW_SIDE or dataset.count not in (1, 3) or dataset.dtypes[0] != "uint8":
                raise CorruptContainerError(
                    f"{reader.path}: the preview is no picture of up to {PREVIEW_SIDE} pixels in grey or RGB"
                )
            picture: Picture = dataset.read()
    except RasterioError as error:
        raise CorruptContainerError(f"{reader.path}: the preview is not a JPEG file, or it is damaged") from error
    return np.broadcast_to(picture, (3, *picture.shape[1:]))


def _to_image(picture: Picture) -> Picture:
    return np.ascontiguousarray(np.moveaxis(picture, 0, -1))
