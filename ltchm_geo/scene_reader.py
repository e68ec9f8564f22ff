"""Reading a compressed scene: its description, the bytes of its tiles, its exact planes, and whether all is sound."""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ._inflate import GZIP, inflate
from ._json import loads
from ._recognise import names_scene
from ._store import Store, open_store
from .errors import (
    ContainerError,
    CorruptContainerError,
    CorruptTileError,
    IncompleteContainerError,
    NotAContainerError,
    UsageError,
)
from .manifest import (
    MANIFEST_KEY,
    MAX_JSON,
    MAX_MANIFEST,
    MAX_PREVIEW,
    PREVIEW_KEY,
    ROOT_KEY,
    Manifest,
    Record,
)
from .scene_meta import SceneMeta, array_path
from .shards import ShardIndex, check_chunk, index_size
from .tiles import TileGrid
from .types import PixelBox, TileIndex

__all__ = ["ContainerReader", "Problem"]

_CACHED_INDICES = 256
_PIECE = 1 << 23


@dataclass(frozen=True)
class Problem:
    """Something `ContainerReader.verify` found.

    `array` (of an overview with its pyramid level, as in ``1/g0``) and `tile` say which tile; None when it is in none.
    Then `lost` is how many tiles cannot be found because of it.
    """

    key: str
    message: str
    array: str | None = None
    tile: TileIndex | None = None
    lost: int = 0


class ContainerReader:
    """Reads one scene, thread-safely. Opening it is cheap: some JSON, no zarr, no torch.

    Parameters
    ----------
    path : path of a ``.ltchm`` file or a ``.zarr`` folder, or a URL of either in an object store

    Attributes
    ----------
    meta : SceneMeta
    grid : TileGrid
        That of full resolution.
    grids : tuple of TileGrid
        Those of all pyramid levels.
    manifest : Manifest

    Raises
    ------
    NotAContainerError, IncompleteContainerError, UnsupportedVersionError, CorruptContainerError
    """

    def __init__(self, path: str | os.PathLike[str]):
        self._store: Store = open_store(path)
        self.path = self._store.path
        self._indices: dict[str, ShardIndex] = {}
        self._lock = threading.Lock()
        try:
            self._open()
        except BaseException:
            self._store.close()
            raise

    def _open(self) -> None:
        try:
            root = self._document(ROOT_KEY, MAX_JSON) if ROOT_KEY in self._store else b""
            self.meta = SceneMeta.from_dict(self._find_description(root))
            self.manifest = self._find_manifest()
            self.grids: tuple[TileGrid, ...] = tuple(self.meta.pyramid_grid(level) for level in self.meta.pyramid)
            self.grid = self.grids[0]
            self._check_manifest(root)
        except ContainerError as error:
            raise type(error)(f"{self.path}: {error}") from error

    def _find_description(self, root: bytes) -> Any:
        try:
            document = loads(root)
            return document["attributes"]["ltchm"]
        except (ValueError, TypeError, KeyError) as error:
            if names_scene(self._store):
                raise CorruptContainerError("the scene's description is damaged") from error
            raise NotAContainerError("not a compressed scene") from error

    def _find_manifest(self) -> Manifest:
        """That of a folder, or of a single file of format 3 and before; else the ZIP directory."""
        listed = self._store.directory()
        if MANIFEST_KEY not in self._store:
            if listed is None:
                raise IncompleteContainerError("the scene was not finished, its manifest is missing: compress it again")
            return Manifest.of_directory(listed)
        manifest = Manifest.unpack(self._document(MANIFEST_KEY, MAX_MANIFEST))
        if listed is not None:  # of a folder, sizes are checked as its files are read
            _check_members(manifest, listed)
        return manifest

    def _check_manifest(self, root: bytes) -> None:
        source, described = self.manifest.source, self.manifest.files.get(ROOT_KEY)
        if described is None or not described.fits(root):
            raise CorruptContainerError(f"the scene's description is not the one {source} names")
        expected = {key for level in self.meta.pyramid for key in self.meta.shard_keys(level)}
        if expected != self.manifest.shards.keys():
            raise CorruptContainerError(f"{source} does not list exactly the shards the scene must have")
        # What a scene claims to be takes bytes in proportion: neither time nor memory may go by empty shards.
        smallest = index_size(self.meta.shard**2)
        if short := next((key for key, record in self.manifest.shards.items() if record.size < smallest), None):
            raise CorruptContainerError(f"{short} has {self.manifest.shards[short].size} bytes, too few for its index")
        for key, record in self.manifest.files.items():
            if key.endswith(".json") and record.size > MAX_JSON:
                raise CorruptContainerError(f"{key} has {record.size} bytes, more than the {MAX_JSON} allowed")
        if (preview := self.manifest.files.get(PREVIEW_KEY)) is not None and preview.size > MAX_PREVIEW:
            raise CorruptContainerError(f"the preview has {preview.size} bytes, more than the {MAX_PREVIEW} allowed")

    def _document(self, key: str, limit: int) -> bytes:
        size = self._store.size(key)
        if size > limit:
            raise CorruptContainerError(f"{key} has {size} bytes, more than the {limit} allowed")
        return self._store.read(key, 0, size)

    # --- tiles -------------------------------------------------------------------------------------------------------

    def tile_payload(self, array: str, tile: TileIndex, pyramid: int = 0) -> bytes:
        """The bytes of one tile of a pyramid level, its checksum verified.

        Raises
        ------
        CorruptTileError
            Naming file, array and tile; other tiles are not affected.
        """
        stored = self._tile(array, tile, pyramid)
        if stored is None:
            raise self._tile_error(array_path(array, pyramid), tile, "the tile is missing")
        return stored

    def shard_payloads(
        self, array: str, shard: TileIndex, pyramid: int = 0
    ) -> dict[TileIndex, bytes | CorruptTileError]:
        """All tiles of a shard, row by row; a damaged one gives its error in its place."""
        payloads: dict[TileIndex, bytes | CorruptTileError] = {}
        for tile in self.grids[pyramid].tiles_in_shard(shard):
            try:
                payloads[tile] = self.tile_payload(array, tile, pyramid)
            except CorruptTileError as error:
                payloads[tile] = error
        return payloads

    def _tile(self, array: str, tile: TileIndex, pyramid: int) -> bytes | None:
        """The checked bytes of one tile, or None when its slot is empty."""
        if array not in self.meta.arrays:
            raise UsageError(f"{self.path} has no array {array!r}, only {', '.join(self.meta.arrays)}")
        grid = self.grids[pyramid]
        key = self.meta.shard_key(array, grid.shard_of(tile), pyramid)
        try:
            found = self._index(array, key)[grid.slot(tile)]
            return None if found is None else check_chunk(self._store.read(key, *found))
        except (CorruptTileError, CorruptContainerError) as error:
            raise self._tile_error(array_path(array, pyramid), tile, str(error)) from error

    def _index(self, array: str, key: str) -> ShardIndex:
        with self._lock:
            if key in self._indices:
                return self._indices[key]
        size, slots = self._store.size(key), self.meta.shard**2
        if size != (expected := self.manifest.shards[key].size):
            raise CorruptTileError(f"shard has {size} bytes, {self.manifest.source} says {expected}")
        body = size - index_size(slots)
        tail = self._store.read(key, body, index_size(slots))
        index = ShardIndex(tail, slots, body, self.meta.payload_limit(array) + 4)
        with self._lock:
            while len(self._indices) >= _CACHED_INDICES:
                del self._indices[next(iter(self._indices))]
            self._indices[key] = index
        return index

    def _tile_error(self, array: str, tile: TileIndex, what: str) -> CorruptTileError:
        message = f"{self.path}: tile ({tile.iy}, {tile.ix}) of {array}: {what}"
        return CorruptTileError(message, array=array, tile=(tile.iy, tile.ix))

    # --- exact planes ------------------------------------------------------------------------------------------------

    def plane(self, name: str, box: PixelBox, pyramid: int = 0) -> NDArray[Any]:
        """A rectangle of ``alpha`` (the scene's type) or ``mask`` (bool, True = valid) of a pyramid level.

        Raises
        ------
        CorruptTileError
            When any tile it needs is damaged.
        """
        if name not in self.meta.planes:
            raise UsageError(f"{self.path} has no plane {name!r}")
        grid = self.grids[pyramid]
        if box.intersection(PixelBox(0, 0, *grid.scene)) != box:
            raise UsageError(f"{tuple(box)} is not inside a scene of {tuple(grid.scene)} pixels")
        out = np.zeros((box.height, box.width), self.meta.array_dtype(name))
        for tile in grid.covering(box):
            whole = grid.tile_box(tile)
            common = whole.intersection(box)
            stored = self._tile(name, tile, pyramid)
            if common is not None and stored is not None:  # zarr leaves tiles of nothing but zeros out
                pixels = self._decode_plane(name, tile, stored, pyramid)
                out[common.relative_to(box).slices] = pixels[common.relative_to(whole).slices]
        return out

    def _decode_plane(self, name: str, tile: TileIndex, stored: bytes, pyramid: int) -> NDArray[Any]:
        dtype, shape = self.meta.array_dtype(name), self.meta.tile_shape(name)
        size = math.prod(shape) * dtype.itemsize
        try:
            raw = inflate(stored, size, GZIP)
        except CorruptTileError as error:
            raise self._tile_error(array_path(name, pyramid), tile, str(error)) from error
        if len(raw) != size:
            raise self._tile_error(array_path(name, pyramid), tile, f"it holds {len(raw)} bytes of pixels, not {size}")
        if dtype == np.bool_:
            return np.frombuffer(raw, np.uint8).reshape(shape).astype(bool)
        return np.frombuffer(raw, dtype.newbyteorder("<")).reshape(shape)

    # --- the scene as a whole ----------------------------------------------------------------------------------------

    def verify(self, progress: Callable[[int], None] | None = None) -> list[Problem]:
        """Check every byte: the SHA-256 or CRC-32 of each key, the checksum of each tile. Decodes no pixels.

        Parameters
        ----------
        progress : called with the number of bytes just checked
        """
        problems: list[Problem] = []
        for key, record in self.manifest.files.items():
            problems += self._verify_key(key, record, progress)
        for level in self.meta.pyramid:
            for array in self.meta.arrays:
                for shard in self.grids[level].shard_indices:
                    key = self.meta.shard_key(array, shard, level)
                    found = self._verify_key(key, self.manifest.shards[key], progress)
                    problems += self._verify_tiles(array, shard, level) or found
        return problems

    def _verify_key(self, key: str, record: Record, progress: Callable[[int], None] | None) -> list[Problem]:
        digest, source = record.digest(), self.manifest.source
        try:
            size = self._store.size(key)
            if size != record.size:
                return [Problem(key, f"has {size} bytes, {source} says {record.size}")]
            for at in range(0, size, _PIECE):
                piece = self._store.read(key, at, min(_PIECE, size - at))
                digest.update(piece)
                if progress is not None:
                    progress(len(piece))
        except CorruptContainerError as error:
            return [Problem(key, str(error))]
        sound = digest.hexdigest() == record.checksum
        return [] if sound else [Problem(key, f"its {record.kind} is not what {source} says")]

    def index_problem(self, array: str, shard: TileIndex, pyramid: int = 0) -> Problem | None:
        """Why no tile of a shard can be found; None where its index is sound."""
        key = self.meta.shard_key(array, shard, pyramid)
        try:
            self._index(array, key)
        except (CorruptTileError, CorruptContainerError) as error:
            return Problem(key, str(error), lost=len(self.grids[pyramid].tiles_in_shard(shard)))
        return None

    def _verify_tiles(self, array: str, shard: TileIndex, pyramid: int) -> list[Problem]:
        if (lost := self.index_problem(array, shard, pyramid)) is not None:
            return [lost]  # once, not for each of its tiles
        problems, path, key = [], array_path(array, pyramid), self.meta.shard_key(array, shard, pyramid)
        for tile in self.grids[pyramid].tiles_in_shard(shard):
            try:
                if self._tile(array, tile, pyramid) is None and array not in self.meta.planes:
                    raise self._tile_error(path, tile, "the tile is missing")
            except CorruptTileError as error:
                problems.append(Problem(key, str(error), path, tile))
        return problems

    def sizes(self) -> dict[str, int]:
        """Bytes on disk: per array at full resolution, of all ``overviews``, of the ``preview``, of the ``metadata``.

        And of the ``container`` around all that, and in ``total``. The scene may have no overviews and no preview.
        """
        records, shards = self.manifest.shards, self.grid.shard_indices
        sizes = {a: sum(records[self.meta.shard_key(a, s)].size for s in shards) for a in self.meta.arrays}
        if self.meta.overviews:
            sizes["overviews"] = sum(self.pyramid_size(level) for level in self.meta.pyramid if level)
        files = {k: self._store.stored_size(k) for k in (*self.manifest.files, MANIFEST_KEY) if k in self._store}
        if PREVIEW_KEY in files:
            sizes["preview"] = files.pop(PREVIEW_KEY)
        sizes["metadata"] = sum(files.values())
        inside = sum(sizes.values())
        total = self._store.total_size() or inside
        return {**sizes, "container": total - inside, "total": total}

    def pyramid_size(self, level: int) -> int:
        """Bytes of all shards of a pyramid level."""
        return sum(self.manifest.shards[key].size for key in self.meta.shard_keys(level))

    def preview(self) -> bytes | None:
        """The stored quick-look, a JPEG file, or None. Its checksum is verified, what is in it is not."""
        record = self.manifest.files.get(PREVIEW_KEY)
        if record is None:
            return None
        data = self._document(PREVIEW_KEY, MAX_PREVIEW)
        if not record.fits(data):
            raise CorruptContainerError(f"{self.path}: the preview is not the one {self.manifest.source} names")
        return data

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def close_when_forgotten(self) -> None:
        """Close the file when nothing refers to this reader any more, for those whom nobody is sure to close."""
        weakref.finalize(self, self._store.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        # Travels between processes as its path; each opens the scene on its own.
        return type(self), (self.path,)


def _check_members(manifest: Manifest, listed: Mapping[str, tuple[int, int]]) -> None:
    """Raise `CorruptContainerError` where a ZIP directory and a manifest beside it differ."""
    records = {**manifest.shards, **manifest.files}
    if listed.keys() - {MANIFEST_KEY} != records.keys():
        raise CorruptContainerError("the file does not hold exactly the members its manifest lists")
    for key, record in records.items():
        if (size := listed[key][0]) != record.size:
            raise CorruptContainerError(f"{key} has {size} bytes, {manifest.source} says {record.size}")
