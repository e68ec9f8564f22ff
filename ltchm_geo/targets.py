"""Finding the quality level at which a scene has the size, or the PSNR, that was asked for.

A sample of tiles, coded at a few levels, gives the curve; its height is corrected by coding the whole scene, once or a
few times. One level changes the size by some 2.4 %, so the nearest is within 2 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .errors import CorruptTileError, UsageError
from .location import Location
from .metrics.psnr import ErrorStats, known_peak
from .nn.config import MAX_LEVEL, level_to_lambda
from .plan import DOCUMENT_BYTES, describe_scene
from .raster import Source
from .sampling import read_tiles, spread
from .scene_decoder import group_coding
from .scene_meta import SceneMeta
from .settings import CompressSettings
from .tile_decoder import decode_tiles
from .tile_encoder import encode_tiles
from .tiles import TileGrid, automatic_shard
from .timing import StageClock
from .types import TileIndex

if TYPE_CHECKING:
    from .compress import CompressResult, Writing
    from .engine import Engine

__all__ = ["TOLERANCE", "hit_target"]

#: How far from the target a result may be: as a part of a size, and of a PSNR in dB the larger of this part and that.
TOLERANCE, TOLERANCE_DB = 0.02, 0.2
_CURVE = (0, 28, 56, 84, MAX_LEVEL)
_SAMPLES = 12
_PASSES = 6
_CLOSE = 0.3  # of the tolerance: nearer, no further pass is worth its time


def hit_target(write: Writing, source: Source, path: Location, settings: CompressSettings) -> CompressResult:
    """Compress to the target of `settings`; what is at `path` afterwards is as close to it as any level comes.

    Raises
    ------
    UsageError
        No level reaches the target; says which values can be reached.
    """
    target = _Target(source, settings)
    curve = _sampled(source, settings, target)
    results: dict[int, float] = {}
    level, shift, result = target.level(curve, 0.0), 0.0, None
    while level not in results and len(results) < _PASSES:
        result = write(path, _at(settings, level, target))
        results[level] = target.figure(result)
        if abs(target.miss(results[level])) < _CLOSE:
            return result
        shift = results[level] - float(np.interp(level, _CURVE, curve))
        level = target.level(curve, shift)
        if level in results:  # the curve says no other level is nearer; its neighbour on the other side may be
            level = min(max(level + (1 if target.wanted > results[level] else -1), 0), MAX_LEVEL)
    best = min(results, key=lambda tried: abs(target.miss(results[tried])))
    if abs(target.miss(results[best])) > 1:
        ends = sorted(results.get(end, float(curve[i]) + shift) for end, i in ((0, 0), (MAX_LEVEL, -1)))
        low, high = (target.shown(end) for end in ends)
        raise UsageError(
            f"{target.name} of {target.value:g} cannot be reached with this raster and model: about {low} to {high} can"
        )
    if result is None or result.level != best:
        result = write(path, _at(settings, best, target))
    return result


def _at(settings: CompressSettings, level: int, target: _Target) -> CompressSettings:
    plain = replace(settings, target_psnr=None, target_bpp=None, target_ratio=None, lambda_=level_to_lambda(level))
    return replace(plain, measure=settings.measure or target.name == "target_psnr")


class _Target:
    """What is wanted, as a number that grows about linearly with the level: log2 of bytes, or dB."""

    def __init__(self, source: Source, settings: CompressSettings):
        pixels, raw = source.shape.y * source.shape.x, source.raw_bytes
        self._bits, self._raw = pixels / 8, raw
        name, value = settings.target or ("", 0.0)
        self.name, self.value = name, value
        if name == "target_psnr":
            self.wanted, self.tolerance = value, max(TOLERANCE_DB, TOLERANCE * value)
        else:
            size = value * pixels / 8 if name == "target_bpp" else raw / value
            self.wanted, self.tolerance = math.log2(size), math.log2(1 + TOLERANCE)

    def figure(self, result: CompressResult) -> float:
        """Of a finished scene."""
        if self.name != "target_psnr":
            return math.log2(result.bytes)
        return mean_psnr(result.psnr or ())

    def miss(self, figure: float) -> float:
        """How far a figure is from what is wanted, in tolerances."""
        return (figure - self.wanted) / self.tolerance

    def level(self, curve: Sequence[float], shift: float) -> int:
        """The level nearest to the target on a curve that is moved up by `shift`."""
        heights = np.interp(range(MAX_LEVEL + 1), _CURVE, curve) + shift
        return int(np.abs(heights - self.wanted).argmin())

    def shown(self, figure: float) -> str:
        """A figure in the target's own unit."""
        if self.name == "target_psnr":
            return f"{figure:.2f} dB"
        size = 2.0**figure
        return f"{size / self._bits:.3g} bpp" if self.name == "target_bpp" else f"{self._raw / size:.3g}"


def mean_psnr(psnr: Sequence[float]) -> float:
    """Mean over the bands of what `measure` reports; bands that are exact or empty count 100 dB."""
    return float(np.mean([value if math.isfinite(value) else 100.0 for value in psnr])) if psnr else 100.0


def _sampled(source: Source, settings: CompressSettings, target: _Target) -> list[float]:
    """The curve: what the whole scene comes to, by a sample of its tiles, at each level of `_CURVE`."""
    from .engine import load_engine

    engine = load_engine(settings.model, settings.device)
    tile = settings.tile_size
    engine.check_tile(tile)
    grid = TileGrid(source.shape, tile, automatic_shard(source.shape, tile))
    tiles = spread(grid.shape, _SAMPLES)
    boxes = [grid.tile_box(index) for index in tiles]
    meta = describe_scene(
        source, engine, 0, tile, grid.shard, StageClock(), boxes=boxes, decorrelate=settings.decorrelate
    )
    scale = math.prod(grid.shape) / len(tiles)
    curve = []
    for level in _CURVE:
        size, quality = _code(source, meta, engine, level, tiles, decode=target.name == "target_psnr")
        curve.append(quality if target.name == "target_psnr" else math.log2(scale * size + DOCUMENT_BYTES))
    return curve


def _code(
    source: Source, meta: SceneMeta, engine: Engine, level: int, tiles: Sequence[TileIndex], *, decode: bool
) -> tuple[int, float]:
    """Bytes and mean PSNR of some tiles at a level."""
    size, quality = 0, []
    for group in meta.groups:
        coding, cut = group_coding(meta, group), read_tiles(source, meta, group, tiles)
        payloads = encode_tiles(cut, coding, engine, level)
        size += sum(map(len, payloads))
        if decode:
            stats = [ErrorStats() for _ in group.bands]
            for tile, restored in zip(cut, decode_tiles(payloads, coding, engine, meta.tile), strict=True):
                if isinstance(restored, CorruptTileError):
                    raise restored
                rows, columns = tile.scene or restored.shape[1:]  # what lies beyond is nobody's
                for one, *planes in zip(stats, tile.pixels, restored, tile.valid, strict=True):
                    one.add(*(plane[:rows, :columns] for plane in planes))
            quality += [one.psnr(known_peak(meta.dtype)) for one in stats]
    return size, mean_psnr(quality)
