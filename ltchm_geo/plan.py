"""Before coding: everything a scene will say about itself but its pixels."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .components import ComponentTransform, Moments
from .container import BandGroup, SceneMeta
from .errors import CorruptContainerError, UnsupportedRasterError
from .georef import BandInfo, Georef, Number
from .guarantee import Guarantee
from .masks import representable, valid_pixels
from .radiometry import UINT8_MAPPING, BandMapping, band_groups, find_outliers, mixed_groups, to_model
from .raster import Source
from .sampling import spread
from .survey import Survey
from .tiles import TileGrid
from .timing import StageClock
from .types import PixelBox
from .version import __version__

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["DOCUMENT_BYTES", "describe_scene", "warn_of_alpha"]

#: Bytes of the description and the ZIP directory of a small scene: docs/decisions/0005-small-scenes.md
DOCUMENT_BYTES = 1300
_SAMPLES = 24  # tiles that tell how bands go together, and what an alpha band holds
_MANY, _MOST = 32, 0.5  # opacities that differ, and the part of the pixels that are neither clear nor opaque


def describe_scene(
    source: Source,
    engine: Engine | None,
    level: int,
    tile_size: int,
    shard_tiles: int,
    clock: StageClock,
    *,
    boxes: Sequence[PixelBox] | None = None,
    guarantee: Guarantee | None = None,
    decorrelate: bool = True,
) -> SceneMeta:
    """Everything about the scene but its pixels.

    Where mapping or fill depend on them, looks at all pixels first, or at those of `boxes` for a guess. Without an
    engine nothing is mapped, and holes are filled with a value that is at hand. With `decorrelate`, bands
    that are not much alike, or more than three, are coded as components, unless the scene bounds its errors.

    Raises
    ------
    UnsupportedRasterError
        No scene can hold what the source says about itself.
    """
    _refuse_unreadable(source)
    nodata = _usable_nodata(source)
    survey, grid = None, TileGrid(source.shape, tile_size, shard_tiles)
    if engine is not None and _needs_survey(source, nodata):
        with clock("survey"):
            survey = _survey(source, boxes or _all_tiles(grid))

    def fill(band: int) -> Number | None:
        if nodata is not None or (survey is None and engine is not None):
            return nodata
        return survey.statistics(band).fill if survey is not None else _hole(source, guarantee)

    def mapping(band: int) -> BandMapping:
        return survey.mapping(band) if survey is not None else UINT8_MAPPING

    transforms: dict[tuple[int, ...], ComponentTransform] = {}
    colours = [band.colorinterp for band in source.bands]
    if decorrelate and engine is not None and guarantee is None and (mixed := mixed_groups(colours)):
        with clock("survey"):
            seen = [grid.tile_box(tile) for tile in spread(grid.shape, _SAMPLES)]
            transforms = _transforms(source, {bands: tuple(map(mapping, bands)) for bands in mixed}, seen)
    groups = tuple(
        BandGroup(f"g{number}", bands, tuple(map(mapping, bands)), tuple(map(fill, bands)), transforms.get(bands))
        for number, bands in enumerate(transforms or _plain_groups(source, guarantee))
    )
    return SceneMeta(
        shape=source.shape,
        dtype=source.dtype.name,
        bands=source.bands,
        georef=source.georef,
        groups=groups,
        weights=None if engine is None else engine.sha256,
        weights_tag=None if engine is None else engine.tag,
        level=level,
        tile=tile_size,
        shard=shard_tiles,
        alpha=source.alpha,
        mask=source.mask_kind == "mask",
        software=f"ltchm_geo {__version__}",
        source={"name": os.path.basename(source.name), "bytes": source.nbytes_file},
        guarantee=guarantee,
    )


def warn_of_alpha(source: Source) -> None:
    """A UserWarning of an alpha band that looks like a picture: GDAL calls the last of four bands so unasked."""
    if source.alpha is None:
        return
    grid = TileGrid(source.shape)
    boxes = [grid.tile_box(tile) for tile in spread(grid.shape, _SAMPLES)]
    values = np.concatenate([source.read(box, [source.alpha]).ravel() for box in boxes])
    between = (values != 0) & (values != values.max())
    if between.mean() > _MOST and len(np.unique(values)) > _MANY:
        band = source.alpha + 1
        warnings.warn(
            f"{source.name}: band {band} is marked as alpha, so it is stored exactly and its zeros are holes, but it "
            f"looks like a picture (near infrared?): if it is one, make a copy with gdal_translate -colorinterp_{band} "
            "undefined and compress that, or write such files with photometric=MINISBLACK",
            stacklevel=2,
        )


def _refuse_unreadable(source: Source) -> None:
    """Raise for what readers of the scene would refuse, such as control points that are nowhere."""
    try:
        found = [Georef.from_dict(source.georef.to_dict()).to_dict()]
        found += [BandInfo.from_dict(band.to_dict()).to_dict() for band in source.bands]
    except CorruptContainerError as error:
        raise UnsupportedRasterError(f"{source.name}: its {error}; mend it with gdal_edit or gdal_translate") from error
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        text = error.object[max(error.start - 20, 0) : error.end + 20]
        raise UnsupportedRasterError(
            f"{source.name}: its attributes, tags or names hold {text!r}, which is no Unicode text: mend or drop it"
        ) from error


def _needs_survey(source: Source, nodata: Number | None) -> bool:
    return source.dtype != np.uint8 or (nodata is None and source.mask_kind in ("alpha", "mask"))


def _hole(source: Source, guarantee: Guarantee | None) -> Number | None:
    """What masked pixels hold in a scene without nodata that no network codes."""
    if source.mask_kind == "nan":
        return math.nan
    exact = guarantee is not None and guarantee.lossless  # which keeps what lies under masks
    return 0 if source.mask_kind in ("alpha", "mask") and not exact else None


def _plain_groups(source: Source, guarantee: Guarantee | None) -> list[tuple[int, ...]]:
    """Bands to code together as they are. Floats to be exact apart from others: a tile of floats is exact or not."""
    groups = band_groups([band.colorinterp for band in source.bands])
    if guarantee is None or source.dtype.kind != "f":
        return groups
    exact = [tuple(band for band in bands if not guarantee.max_error[band]) for bands in groups]
    bounded = [tuple(band for band in bands if guarantee.max_error[band]) for bands in groups]
    return [part for parts in zip(exact, bounded, strict=True) for part in parts if part]


def _usable_nodata(source: Source) -> Number | None:
    """The bands' nodata value (one for all), unless no pixel of their type can hold it."""
    nodata = next(band.nodata for number, band in enumerate(source.bands) if number != source.alpha)
    return nodata if nodata is not None and representable(nodata, source.dtype) else None


def _transforms(
    source: Source, mappings: dict[tuple[int, ...], tuple[BandMapping, ...]], boxes: Sequence[PixelBox]
) -> dict[tuple[int, ...], ComponentTransform]:
    """What suits each group of bands, by the pixels of the boxes; nothing if some have none that is whole."""
    found = {bands: Moments(len(bands)) for bands in mappings}
    for box in boxes:
        mask = source.read_mask(box)
        for bands, mapping in mappings.items():
            pixels = source.read(box, bands)
            valid = valid_pixels(pixels, [source.bands[band].nodata for band in bands], mask)
            whole = (valid & ~find_outliers(pixels, valid, mapping)).all(axis=0)
            found[bands].add(to_model(pixels, mapping)[:, whole])
    transforms = {
        bands: transform for bands, moments in found.items() if (transform := moments.transform()) is not None
    }
    return transforms if len(transforms) == len(mappings) else {}


def _all_tiles(grid: TileGrid) -> Iterator[PixelBox]:
    """Every tile, shard after shard, so that a source's larger blocks are decoded once."""
    return (grid.tile_box(tile) for shard in grid.shard_indices for tile in grid.tiles_in_shard(shard))


def _survey(source: Source, boxes: Iterable[PixelBox]) -> Survey:
    """Look at every pixel of the boxes once, all bands together: most rasters store them so."""
    survey = Survey(source.dtype, len(source.bands))
    bands = [band for band in range(len(source.bands)) if band != source.alpha]
    nodata = [source.bands[band].nodata for band in bands]
    for box in boxes:
        pixels = source.read(box, bands)
        survey.add(pixels, valid_pixels(pixels, nodata, source.read_mask(box)), bands)
    return survey
