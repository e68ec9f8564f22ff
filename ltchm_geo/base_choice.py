"""Which network a scene needs, if any.

A scene with bounded errors uses one where latents and corrections take fewer bytes than prediction alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .errors import WeightsNotFoundError
from .guarantee import Guarantee
from .masks import valid_pixels
from .plan import describe_scene
from .raster import Source
from .sampling import read_tiles, spread
from .scene_decoder import group_coding
from .scene_meta import SceneMeta
from .settings import CompressSettings
from .tile_encoder import encode_tiles
from .tiles import TileGrid
from .timing import StageClock
from .types import PIXEL_DTYPES, TileIndex

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["choose_engine"]

#: The network is not even tried where the bound is a smaller part of the pixels' range: what it leaves over would be
#: noise as wide as the pixels' own. Measured: docs/guarantees.md.
_LEAST_BOUND = 1 / 128
_LEVELS = (0, 24, 48)
_SAMPLES = 4
_WORTHWHILE = 0.98  # of the bytes without a network: less is not worth depending on weights


def choose_engine(
    source: Source, grid: TileGrid, settings: CompressSettings, guarantee: Guarantee | None, clock: StageClock
) -> tuple[Engine | None, int]:
    """The network that codes a scene, and the quality level of its latents; None and 0 where none is needed."""
    if guarantee is not None:
        return _choose_base(source, grid, settings, guarantee, clock)
    from .engine import load_engine

    engine = load_engine(settings.model, settings.device)
    engine.check_tile(grid.tile)
    return engine, settings.level


def _choose_base(
    source: Source, grid: TileGrid, settings: CompressSettings, guarantee: Guarantee, clock: StageClock
) -> tuple[Engine | None, int]:
    """The network to code a scene with, and the quality level of its latents; None and 0 where it does not help."""
    if guarantee.lossless or source.dtype.name not in PIXEL_DTYPES:
        return None, 0
    tiles = spread(grid.shape, _SAMPLES)
    if not _coarse(source, grid, tiles, guarantee):
        return None, 0
    from .engine import load_engine

    try:
        engine = load_engine(settings.model, settings.device)
    except WeightsNotFoundError:
        if settings.model is not None:
            raise
        return None, 0  # nothing that was asked for needs weights
    if grid.tile % engine.tile_multiple:
        return None, 0
    boxes = [grid.tile_box(tile) for tile in tiles]
    meta = describe_scene(source, engine, 0, grid.tile, grid.shard, clock, boxes=boxes, guarantee=guarantee)
    plain = _bytes(source, meta, tiles, None, 0, clock)
    sizes = {level: _bytes(source, meta, tiles, engine, level, clock) for level in _LEVELS}
    best = min(sizes, key=lambda level: sizes[level])
    return (engine, best) if sizes[best] < _WORTHWHILE * plain else (None, 0)


def _coarse(source: Source, grid: TileGrid, tiles: Sequence[TileIndex], guarantee: Guarantee) -> bool:
    """Whether the bound of some band is wide, measured by the range of its pixels in the tiles."""
    for band, bound in enumerate(guarantee.max_error):
        if band == source.alpha:
            continue
        low, high = float("inf"), float("-inf")
        for tile in tiles:
            box = grid.tile_box(tile)
            pixels = source.read(box, [band])
            values = pixels[valid_pixels(pixels, [source.bands[band].nodata], source.read_mask(box))]
            if values.size:
                low, high = min(low, float(values.min())), max(high, float(values.max()))
        if bound >= _LEAST_BOUND * (high - low) > 0:
            return True
    return False


def _bytes(
    source: Source, meta: SceneMeta, tiles: Sequence[TileIndex], engine: Engine | None, level: int, clock: StageClock
) -> int:
    total = 0
    for group in meta.groups:
        cut = read_tiles(source, meta, group, tiles)
        total += sum(map(len, encode_tiles(cut, group_coding(meta, group), engine, level, clock)))
    return total
