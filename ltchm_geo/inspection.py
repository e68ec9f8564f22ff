"""`info` and `verify`: what a compressed scene is, and whether it is sound.

Looking needs neither zarr, rasterio nor torch; only a deep verification, which decodes every tile, loads the network.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .container import BandGroup, ContainerReader, Problem, SceneMeta
from .errors import CorruptTileError
from .location import Location
from .nn.config import MAX_LEVEL, level_to_lambda
from .scene_meta import array_path
from .types import Bounds, TileIndex

if TYPE_CHECKING:
    from .scene_decoder import SceneDecoder
    from .seams import Surroundings
    from .tiles import TileGrid

__all__ = ["Problem", "SceneInfo", "VerifyReport", "info", "verify"]

_DECODED_AT_ONCE = 1 << 22  # pixels: a shard may be of any size

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SceneInfo:
    """What a compressed scene says about itself.

    Attributes
    ----------
    path : Path or ObjectUrl
    form : str
        "file" or "folder".
    meta : SceneMeta
        Size, type, bands, georeferencing, tiles, weights.
    sizes : mapping of str to int
        Bytes on disk: per array at full resolution, of all ``overviews``, of the ``preview`` (each if there), of the
        ``metadata``, of the ``container`` around all that, and in ``total``.
    overview_sizes : tuple of int
        Bytes of each overview.
    """

    path: Location
    form: str
    meta: SceneMeta
    sizes: Mapping[str, int]
    overview_sizes: tuple[int, ...] = ()

    @property
    def bytes(self) -> int:
        """Size of the scene on disk."""
        return self.sizes["total"]

    @property
    def raw_bytes(self) -> int:
        """Size of its pixels uncompressed."""
        return self._pixels * len(self.meta.bands) * np.dtype(self.meta.dtype).itemsize

    @property
    def ratio(self) -> float:
        """raw_bytes / bytes."""
        return self.raw_bytes / self.bytes

    @property
    def bpp(self) -> float:
        """Bits per pixel position, all bands and every byte of the file counted."""
        return 8 * self.bytes / self._pixels

    @property
    def quality(self) -> int:
        """Quality from 1 to 100 that comes nearest to the scene's level."""
        return _quality(self.meta.level)

    @property
    def tiles(self) -> int:
        """Number of tiles in all arrays of all levels."""
        return _count_tiles(self.meta)

    @property
    def bounds(self) -> Bounds | None:
        """x_min, y_min, x_max, y_max in the CRS; None without a transform."""
        return self.meta.georef.bounds(self.meta.shape)

    @property
    def _pixels(self) -> int:
        return self.meta.shape.y * self.meta.shape.x

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary: these figures, and everything in `meta`."""
        return {
            "path": str(self.path),
            "form": self.form,
            "bytes": self.bytes,
            "raw_bytes": self.raw_bytes,
            "ratio": self.ratio,
            "bpp": self.bpp,
            "quality": self.quality,
            "lambda": level_to_lambda(self.meta.level),
            "tiles": self.tiles,
            "bounds": None if self.bounds is None else list(self.bounds),
            "sizes": dict(self.sizes),
            **self.meta.to_dict(),
            "levels": [self.level(level) for level in self.meta.pyramid],
        }

    def level(self, level: int) -> dict[str, Any]:
        """A pyramid level: its factor, shape, transform, quality (and its level) and size in bytes."""
        meta, quality, transform = (
            self.meta,
            self.meta.pyramid_quality(level),
            self.meta.pyramid_georef(level).transform,
        )
        arrays = sum(self.sizes[array] for array in meta.arrays)
        return {
            "factor": meta.pyramid_factor(level),
            "shape": list(meta.pyramid_shape(level)),
            "transform": None if transform is None else list(transform),
            "quality": _quality(quality),
            "level": quality,
            "bytes": self.overview_sizes[level - 1] if level else arrays,
        }


def info(src: str | os.PathLike[str]) -> SceneInfo:
    """Describe a compressed scene. Reads its description and sizes, no pixels.

    Raises
    ------
    NotAContainerError, IncompleteContainerError, UnsupportedVersionError, CorruptContainerError
    """
    with ContainerReader(src) as reader:
        form = "folder" if reader.path.is_dir() else "file"
        overviews = tuple(reader.pyramid_size(level) for level in reader.meta.pyramid[1:])
        return SceneInfo(reader.path, form, reader.meta, reader.sizes(), overviews)


@dataclass(frozen=True)
class VerifyReport:
    """What verifying a scene gave.

    Attributes
    ----------
    path : Path or ObjectUrl
    deep : bool
        Whether every tile was decoded too.
    problems : tuple of Problem
        Empty if the scene is sound.
    tiles : int
        Tiles looked at, in all arrays.
    seconds : float
    """

    path: Location
    deep: bool
    problems: tuple[Problem, ...]
    tiles: int
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {
            "path": str(self.path),
            "ok": self.ok,
            "deep": self.deep,
            "tiles": self.tiles,
            "seconds": self.seconds,
            "problems": [
                {"key": p.key, "array": p.array, "tile": None if p.tile is None else list(p.tile), "message": p.message}
                for p in self.problems
            ],
        }


def verify(
    src: str | os.PathLike[str], *, deep: bool = False, device: str = "auto", progress: Progress | None = None
) -> VerifyReport:
    """Check that nothing in a scene was changed since it was written.

    Parameters
    ----------
    src : path of a ``.ltchm`` file or a ``.zarr`` folder
    deep : bool
        Also decode every tile (all but its pixels) and compare with its own checksum. Takes about as long as
        decompressing, needs the weights, and tells whether this machine decodes the scene as it was meant.
    device : str
        Where to decode.
    progress : callable, optional
        Called with (bytes checked, bytes to check); a deep verification counts the bytes it decodes once more.

    Returns
    -------
    VerifyReport; damage is reported, not raised.

    Raises
    ------
    ContainerError
        The scene cannot be opened at all.
    WeightsError, DeviceError
        Only from a deep verification.
    """
    began = time.perf_counter()
    with ContainerReader(src) as reader:
        records = {**reader.manifest.files, **reader.manifest.shards}
        decoded = sum(record.size for record in reader.manifest.shards.values()) if deep else 0
        advance = _counter(sum(record.size for record in records.values()) + decoded, progress)
        problems = reader.verify(advance)
        if deep:
            known = {(problem.array, problem.tile) for problem in problems}
            problems += [p for p in _decode_all(reader, device, advance) if (p.array, p.tile) not in known]
        return VerifyReport(reader.path, deep, tuple(problems), _count_tiles(reader.meta), time.perf_counter() - began)


def _count_tiles(meta: SceneMeta) -> int:
    return sum(math.prod(meta.pyramid_grid(level).shape) for level in meta.pyramid) * len(meta.arrays)


def _quality(level: int) -> int:
    return 1 + round(level * 99 / MAX_LEVEL)


def _counter(total: int, progress: Progress | None) -> Callable[[int], None]:
    done = 0

    def advance(amount: int) -> None:
        nonlocal done
        done += amount
        if progress is not None:
            progress(min(done, total), total)

    return advance


# --- deep ------------------------------------------------------------------------------------------------------------


def _decode_all(reader: ContainerReader, device: str, advance: Callable[[int], None]) -> Iterator[Problem]:
    """What goes wrong when the tiles are decoded."""
    from .scene_decoder import SceneDecoder

    decoder, meta = SceneDecoder(reader, device), reader.meta
    for level in meta.pyramid:
        for shard in reader.grids[level].shard_indices:
            for array in meta.arrays:
                if reader.index_problem(array, shard, level) is None:  # or there is nothing to decode
                    yield from _decode_shard(decoder, array, shard, level)
                advance(reader.manifest.shards[meta.shard_key(array, shard, level)].size)


def _decode_shard(decoder: SceneDecoder, array: str, shard: TileIndex, pyramid: int) -> Iterator[Problem]:
    if array in decoder.meta.planes:
        return _decode_plane(decoder.reader, array, shard, pyramid)
    return _decode_group(decoder, decoder.meta.group(array), shard, pyramid)


def _decode_group(decoder: SceneDecoder, group: BandGroup, shard: TileIndex, pyramid: int) -> Iterator[Problem]:
    from .scene_decoder import group_coding
    from .tile_decoder import check_latents

    reader, meta, coding = decoder.reader, decoder.meta, group_coding(decoder.meta, group)
    stored = reader.shard_payloads(group.name, shard, pyramid)
    payloads = {tile: data for tile, data in stored.items() if isinstance(data, bytes)}
    errors = {tile: data for tile, data in stored.items() if isinstance(data, CorruptTileError)}
    for some in _batches(list(payloads), max(1, _DECODED_AT_ONCE // meta.tile**2)):
        around = _in_place(reader.grids[pyramid], some) if coding.halo else None
        checked = check_latents(
            [payloads[tile] for tile in some], coding, decoder.engine, meta.tile, surroundings=around
        )
        errors |= {tile: error for tile, error in zip(some, checked, strict=True) if error is not None}
    for tile, error in sorted(errors.items()):
        yield Problem(meta.shard_key(group.name, shard, pyramid), str(error), array_path(group.name, pyramid), tile)


def _in_place(grid: TileGrid, tiles: list[TileIndex]) -> Surroundings:
    from .seams import Surroundings

    return Surroundings(grid, tiles, len(tiles), {})


def _batches(tiles: list[TileIndex], size: int) -> Iterator[list[TileIndex]]:
    return (tiles[i : i + size] for i in range(0, len(tiles), size))


def _decode_plane(reader: ContainerReader, plane: str, shard: TileIndex, pyramid: int) -> Iterator[Problem]:
    grid = reader.grids[pyramid]
    for tile in grid.tiles_in_shard(shard):
        try:
            reader.plane(plane, grid.tile_box(tile), pyramid)
        except CorruptTileError as error:
            key = reader.meta.shard_key(plane, shard, pyramid)
            yield Problem(key, str(error), array_path(plane, pyramid), tile)
