"""The work on one shard of one level: read its pixels, code them, average them for the level after.

It writes nothing, so that it is the same whether a thread of this process does it or another machine.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .masks import valid_pixels
from .overviews import PixelSource, average, average_alpha, average_mask, most_frequent
from .pyramid import reduced
from .scene_decoder import group_coding
from .scene_meta import BandGroup, SceneMeta
from .scene_writer import plane_chunks
from .tile_encoder import encode_tiles
from .tiles import MARGIN, TileGrid, cut_tile
from .timing import StageClock
from .types import PixelBox, TileIndex

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["CodedShard", "LevelPlan", "ShardCoder", "ShardPixels"]


@dataclass(frozen=True)
class LevelPlan:
    """What becomes of a level's shards.

    Attributes
    ----------
    meta : SceneMeta
    factor : int
        How many times smaller the level is than the scene.
    pyramid : int or None
        The pyramid level it is stored as; None for one that is only averaged.
    step : int
        How many times smaller the level after is; 0 if none follows.
    """

    meta: SceneMeta
    factor: int
    pyramid: int | None
    step: int

    @property
    def grid(self) -> TileGrid:
        """The level's tiles and shards."""
        return TileGrid(reduced(self.meta.shape, self.factor), self.meta.tile, self.meta.shard)

    @property
    def arrays(self) -> tuple[str, ...]:
        """The arrays that are stored of it."""
        return () if self.pyramid is None else self.meta.arrays

    def outer(self, shard: TileIndex) -> PixelBox:
        """The pixels that coding a shard takes: its own, and those of its neighbours that the network sees."""
        margin = MARGIN if self.meta.halo and self.pyramid is not None else 0
        return self.grid.with_margin(self.grid.shard_box(shard), margin)

    def wants(self, done: Collection[str]) -> bool:
        """Whether there is anything to do for a shard of which the arrays `done` are stored already."""
        return bool(self.step or set(self.arrays) - set(done))


@dataclass
class CodedShard:
    """What became of a shard.

    Attributes
    ----------
    chunks : dict
        Per array stored, the payload of each slot; see `ContainerWriter.put_shard`.
    averages : dict
        Per plane, its part of the level after; see `WaitingLevel.add`.
    """

    chunks: dict[str, dict[int, bytes]] = field(default_factory=dict)
    averages: dict[int, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardPixels:
    """The pixels of one shard as a `PixelSource`, read beforehand."""

    box: PixelBox
    pixels: NDArray[Any]
    mask: NDArray[np.bool_] | None

    @classmethod
    def of(cls, source: PixelSource, box: PixelBox, bands: int) -> ShardPixels:
        """All `bands` of a box."""
        return cls(box, source.read(box, range(bands)), source.read_mask(box))

    def read(self, box: PixelBox, bands: Sequence[int]) -> NDArray[Any]:
        """See `PixelSource.read`."""
        rows, columns = box.relative_to(self.box).slices
        pixels: NDArray[Any] = self.pixels[list(bands), rows, columns]
        return pixels

    def read_mask(self, box: PixelBox) -> NDArray[np.bool_] | None:
        """See `PixelSource.read_mask`."""
        return None if self.mask is None else self.mask[box.relative_to(self.box).slices]


class ShardCoder:
    """Codes shards of a level. Thread-safe.

    Parameters
    ----------
    plan : LevelPlan
    source : PixelSource
        The level's pixels.
    engine : Engine or None
        None for a scene with a guarantee that takes no network.
    clock : StageClock
    """

    def __init__(self, plan: LevelPlan, source: PixelSource, engine: Engine | None, clock: StageClock):
        self._plan, self._meta, self._grid = plan, plan.meta, plan.grid
        self._source, self._engine, self._clock = source, engine, clock

    def code(self, shard: TileIndex, done: Collection[str] = ()) -> CodedShard:
        """Code and average one shard of every array; those in `done` are stored already and only averaged."""
        coded = CodedShard()
        if not self._plan.wants(done):
            return coded
        wanted = set(self._plan.arrays) - set(done)
        outer = self._plan.outer(shard)
        with self._clock("read"):
            mask = self._source.read_mask(outer)
        for group in self._meta.groups:
            if self._plan.step or group.name in wanted:
                self._code_group(coded, shard, group, mask, group.name in wanted)
        if self._meta.alpha is not None:
            with self._clock("read"):
                alpha = self._source.read(self._grid.shard_box(shard), [self._meta.alpha])[0]
            self._code_plane(coded, shard, "alpha", alpha, "alpha" in wanted)
        if self._meta.mask and mask is not None:
            self._code_plane(coded, shard, "mask", mask[self._inside(shard)], "mask" in wanted)
        return coded

    def _inside(self, shard: TileIndex) -> tuple[slice, slice]:
        """Where the shard's own pixels are among the outer ones."""
        return self._grid.shard_box(shard).relative_to(self._plan.outer(shard)).slices

    def _code_group(
        self, coded: CodedShard, shard: TileIndex, group: BandGroup, mask: NDArray[np.bool_] | None, wanted: bool
    ) -> None:
        outer, coding, step = self._plan.outer(shard), group_coding(self._meta, group), self._plan.step
        with self._clock("read"):
            pixels = self._source.read(outer, group.bands)
        with self._clock("tiles"):
            valid = valid_pixels(pixels, coding.nodata, mask)
        if step:
            with self._clock("overviews"):
                inside = (slice(None), *self._inside(shard))
                promised = self._meta.guarantee
                reduce = most_frequent if promised is not None and promised.classes else average
                planes = reduce(pixels[inside], valid[inside], step, group.fill, coding.nodata)
                coded.averages.update(zip(group.bands, planes, strict=True))
        if self._plan.pyramid is None or not wanted:
            return
        indices = self._grid.tiles_in_shard(shard)
        sides = [self._grid.sides(index) for index in indices] if self._meta.halo else None
        with self._clock("tiles"):
            tiles = [cut_tile(index, self._grid, self._meta.halo, outer, pixels, valid) for index in indices]
        quality = self._meta.pyramid_quality(self._plan.pyramid)
        payloads = encode_tiles(tiles, coding, self._engine, quality, self._clock, sides=sides)
        coded.chunks[group.name] = {self._grid.slot(i): data for i, data in zip(indices, payloads, strict=True)}

    def _code_plane(self, coded: CodedShard, shard: TileIndex, name: str, pixels: NDArray[Any], wanted: bool) -> None:
        if self._plan.step:
            mean, number = (average_mask, None) if name == "mask" else (average_alpha, self._meta.alpha)
            with self._clock("overviews"):
                averaged = mean(pixels, self._plan.step)
            coded.averages[len(self._meta.bands) if number is None else number] = averaged
        if wanted:
            with self._clock("tiles"):
                coded.chunks[name] = plane_chunks(self._grid, shard, pixels)
