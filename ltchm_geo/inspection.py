"""`info` and `verify`: what a compressed scene is, and whether it is sound.

Looking needs neither zarr, rasterio nor torch; only a deep verification, which decodes every tile, loads the network.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .container import BandGroup, ContainerReader, Problem, SceneMeta
from .errors import CorruptTileError
from .nn.config import MAX_LEVEL, level_to_lambda
from .types import TileIndex

__all__ = ["Problem", "SceneInfo", "VerifyReport", "info", "verify"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SceneInfo:
    """What a compressed scene says about itself.

    Attributes
    ----------
    path : Path
    form : str
        "file" or "folder".
    meta : SceneMeta
        Size, type, bands, georeferencing, tiles, weights.
    sizes : mapping of str to int
        Bytes on disk: per array, of the ``metadata``, of the ``container`` around them, and in ``total``.
    """

    path: Path
    form: str
    meta: SceneMeta
    sizes: Mapping[str, int]

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
        return 1 + round(self.meta.level * 99 / MAX_LEVEL)

    @property
    def tiles(self) -> int:
        """Number of tiles in all arrays."""
        return _count_tiles(self.meta)

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
            "sizes": dict(self.sizes),
            **self.meta.to_dict(),
        }


def info(src: str | os.PathLike[str]) -> SceneInfo:
    """Describe a compressed scene. Reads its description and sizes, no pixels.

    Raises
    ------
    NotAContainerError, IncompleteContainerError, UnsupportedVersionError, CorruptContainerError
    """
    with ContainerReader(src) as reader:
        return SceneInfo(reader.path, "folder" if reader.path.is_dir() else "file", reader.meta, reader.sizes())


@dataclass(frozen=True)
class VerifyReport:
    """What verifying a scene gave.

    Attributes
    ----------
    path : Path
    deep : bool
        Whether every tile was decoded too.
    problems : tuple of Problem
        Empty if the scene is sound.
    tiles : int
        Tiles looked at, in all arrays.
    seconds : float
    """

    path: Path
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
    return meta.grid.shape.y * meta.grid.shape.x * len(meta.arrays)


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
    for shard in meta.grid.shard_indices:
        for group in meta.groups:
            yield from _decode_group(decoder, group, shard)
            advance(reader.manifest.shards[meta.shard_key(group.name, shard)].size)
        for plane in meta.planes:
            yield from _decode_plane(reader, plane, shard)
            advance(reader.manifest.shards[meta.shard_key(plane, shard)].size)


def _decode_group(decoder: Any, group: BandGroup, shard: TileIndex) -> Iterator[Problem]:
    from .codec import check_latents
    from .scene_decoder import group_coding

    reader, meta = decoder.reader, decoder.meta
    stored = reader.shard_payloads(group.name, shard)
    payloads = {tile: data for tile, data in stored.items() if isinstance(data, bytes)}
    errors = {tile: data for tile, data in stored.items() if isinstance(data, CorruptTileError)}
    if payloads:
        checked = check_latents(list(payloads.values()), group_coding(meta, group), decoder.engine, meta.tile)
        errors |= {tile: error for tile, error in zip(payloads, checked, strict=True) if error is not None}
    for tile, error in sorted(errors.items()):
        yield Problem(meta.shard_key(group.name, shard), str(error), group.name, tile)


def _decode_plane(reader: ContainerReader, plane: str, shard: TileIndex) -> Iterator[Problem]:
    for tile in reader.grid.tiles_in_shard(shard):
        try:
            reader.plane(plane, reader.grid.tile_box(tile))
        except CorruptTileError as error:
            yield Problem(reader.meta.shard_key(plane, shard), str(error), plane, tile)
