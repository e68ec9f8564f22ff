"""Finding the quality level at which a scene has the size, or the PSNR, that was asked for.

A sample of tiles, coded at a few levels, gives the curve; it is moved through what the whole scene comes to at the
levels tried. One level changes the size by some 2.4 %, so the nearest is within 2 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import CorruptTileError, UsageError
from .location import Location
from .metrics.psnr import ErrorStats, known_peak
from .nn.config import MAX_LEVEL, level_to_lambda
from .plan import DOCUMENT_BYTES, describe_scene
from .raster import Source
from .sampling import code_plane, read_tiles, spread
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
_PASSES = 8
_CLOSE = 0.3  # of the tolerance: nearer, no further pass is worth its time


def hit_target(write: Writing, source: Source, path: Location, settings: CompressSettings) -> CompressResult:
    """Compress to the target of `settings`; what is at `path` afterwards is as close to it as any level comes.

    Raises
    ------
    UsageError
        No level reaches the target; says which values can be reached.
    """
    target = _Target(source, settings)
    curve = _Curve(_sampled(source, settings, target))
    level, result = curve.next_level(target), None
    while level is not None and len(curve.tried) < _PASSES:
        result = write(path, _at(settings, level, target))
        curve.tried[level] = target.figure(result)
        if abs(target.miss(curve.tried[level])) < _CLOSE:
            return result
        level = curve.next_level(target)
    best = min(curve.tried, key=lambda tried: abs(target.miss(curve.tried[tried])))
    if abs(target.miss(curve.tried[best])) > 1:
        raise UsageError(_failure(curve, target))
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

    def shown(self, figure: float) -> str:
        """A figure in the target's own unit."""
        if self.name == "target_psnr":
            return f"{figure:.2f} dB"
        size = 2.0**figure
        return f"{size / self._bits:.3g} bpp" if self.name == "target_bpp" else f"{self._raw / size:.3g}"


class _Curve:
    """What the scene comes to at each level: by the sample, moved through what it came to at the levels tried."""

    def __init__(self, sampled: Sequence[float]):
        self._sampled = np.interp(range(MAX_LEVEL + 1), _CURVE, sampled)
        self.tried: dict[int, float] = {}

    @property
    def heights(self) -> NDArray[np.float64]:
        """By level."""
        levels = sorted(self.tried)
        shifts = [self.tried[level] - self._sampled[level] for level in levels]
        heights: NDArray[np.float64] = self._sampled + np.interp(range(MAX_LEVEL + 1), levels or [0], shifts or [0.0])
        return heights

    def next_level(self, target: _Target) -> int | None:
        """The level that seems nearest to the target, among those between the levels tried that lie around it."""
        low = max((level for level, figure in self.tried.items() if figure < target.wanted), default=-1)
        high = min((level for level, figure in self.tried.items() if figure >= target.wanted), default=MAX_LEVEL + 1)
        misses = np.abs(self.heights[low + 1 : high] - target.wanted)
        if not misses.size:
            return None
        sides = [figure < target.wanted for figure in self.tried.values()][-2:]
        if sides in ([True, True], [False, False]):  # the curve leads astray: without it, by halves
            return 0 if low < 0 else MAX_LEVEL if high > MAX_LEVEL else (low + high) // 2
        return low + 1 + int(misses.argmin())


def _failure(curve: _Curve, target: _Target) -> str:
    """Why no level tried is near enough."""
    wanted, heights = f"{target.name} of {target.value:g}", curve.heights
    if curve.tried.get(0, -math.inf) > target.wanted or curve.tried.get(MAX_LEVEL, math.inf) < target.wanted:
        low, high = (target.shown(end) for end in sorted((heights[0], heights[-1])))
        return f"{wanted} cannot be reached with this raster and model: about {low} to {high} can"
    near = sorted(curve.tried, key=lambda level: abs(target.miss(curve.tried[level])))[:2]
    found = " and ".join(f"{target.shown(curve.tried[level])} (lambda {level_to_lambda(level):.4g})" for level in near)
    return f"{wanted} was not found in {len(curve.tried)} passes: {found} came nearest; give one of them or its lambda"


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
    planes = sum(len(code_plane(source, meta, name, tile)) for name in meta.planes for tile in tiles)
    curve = []
    for level in _CURVE:
        size, quality = _code(source, meta, engine, level, tiles, decode=target.name == "target_psnr")
        curve.append(quality if target.name == "target_psnr" else math.log2(scale * (size + planes) + DOCUMENT_BYTES))
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
