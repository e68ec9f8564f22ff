"""Before coding: which quality level is meant, and everything a scene will say about itself but its pixels."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from .container import BandGroup, SceneMeta
from .engine import Engine
from .errors import UsageError
from .georef import Number
from .masks import representable, valid_pixels
from .nn.config import LEVELS_PER_ANCHOR, MAX_LEVEL, level_to_lambda
from .radiometry import UINT8_MAPPING, band_groups
from .raster import Source
from .survey import Survey
from .tiles import TileGrid
from .timing import StageClock
from .types import PixelBox
from .version import __version__

__all__ = ["DEFAULT_QUALITY", "describe_scene", "level_of"]

DEFAULT_QUALITY = 50


def level_of(quality: int | None, lambda_: float | None) -> int:
    """Quality level for a quality of 1 to 100 or a lambda of 128 to 16384; quality 50 if neither is given.

    Raises
    ------
    UsageError
        Both are given, or one is out of range.
    """
    if quality is not None and lambda_ is not None:
        raise UsageError("give either quality or lambda, not both")
    if lambda_ is not None:
        highest = level_to_lambda(MAX_LEVEL)
        if not level_to_lambda(0) <= lambda_ <= highest:
            raise UsageError(f"lambda must be from {level_to_lambda(0):g} to {highest:g}, not {lambda_:g}")
        return round(float(np.log2(lambda_ / level_to_lambda(0))) * LEVELS_PER_ANCHOR)
    quality = DEFAULT_QUALITY if quality is None else quality
    if not 1 <= quality <= 100:
        raise UsageError(f"quality must be from 1 to 100, not {quality}")
    return round((quality - 1) * MAX_LEVEL / 99)


def describe_scene(
    source: Source,
    engine: Engine,
    level: int,
    tile_size: int,
    shard_tiles: int,
    clock: StageClock,
    *,
    boxes: Sequence[PixelBox] | None = None,
) -> SceneMeta:
    """Everything about the scene but its pixels.

    Where mapping or fill depend on them, looks at all pixels first, or at those of `boxes` for a guess.
    """
    nodata = _usable_nodata(source)
    survey = None
    if source.dtype != np.uint8 or (nodata is None and source.mask_kind in ("alpha", "mask")):
        with clock("survey"):
            grid = TileGrid(source.shape, tile_size, shard_tiles)
            survey = _survey(source, boxes or [grid.shard_box(shard) for shard in grid.shard_indices])

    def fill(band: int) -> Number | None:
        if nodata is not None or survey is None:
            return nodata
        return survey.statistics(band).fill

    groups = tuple(
        BandGroup(
            name=f"g{number}",
            bands=bands,
            mapping=tuple(survey.mapping(b) if survey is not None else UINT8_MAPPING for b in bands),
            fill=tuple(fill(b) for b in bands),
        )
        for number, bands in enumerate(band_groups([band.colorinterp for band in source.bands]))
    )
    return SceneMeta(
        shape=source.shape,
        dtype=source.dtype.name,
        bands=source.bands,
        georef=source.georef,
        groups=groups,
        weights=engine.sha256,
        weights_tag=engine.tag,
        level=level,
        tile=tile_size,
        shard=shard_tiles,
        alpha=source.alpha,
        mask=source.mask_kind == "mask",
        software=f"ltchm_geo {__version__}",
        source={"name": os.path.basename(source.name), "bytes": source.nbytes_file},
    )


def _usable_nodata(source: Source) -> Number | None:
    """The bands' nodata value (one for all), unless no pixel of their type can hold it."""
    nodata = next(band.nodata for number, band in enumerate(source.bands) if number != source.alpha)
    return nodata if nodata is not None and representable(nodata, source.dtype) else None


def _survey(source: Source, boxes: Sequence[PixelBox]) -> Survey:
    """Look at every pixel of the boxes once, three bands at a time."""
    survey = Survey(source.dtype, len(source.bands))
    coded = [band for band in range(len(source.bands)) if band != source.alpha]
    for box in boxes:
        mask = source.read_mask(box)
        for start in range(0, len(coded), 3):
            bands = coded[start : start + 3]
            pixels = source.read(box, bands)
            nodata = [source.bands[band].nodata for band in bands]
            survey.add(pixels, valid_pixels(pixels, nodata, mask), bands)
    return survey
