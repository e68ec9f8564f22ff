"""Writing a compressed scene: whole shards in, a complete scene under its final name out, or nothing."""

from __future__ import annotations

import hashlib
import os
import threading
import zlib
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ._documents import make_documents
from ._resumable_sink import open_resumable_sink
from ._sink import Sink, is_folder, open_sink
from .errors import UsageError
from .location import locate
from .manifest import MANIFEST_KEY, MAX_JSON, MAX_PREVIEW, PREVIEW_KEY, Manifest, Record
from .scene_meta import SceneMeta
from .shards import pack_shard, unpack_shard
from .tiles import TileGrid, pad_tile
from .types import TileIndex

__all__ = ["ContainerWriter", "plane_chunks"]


class ContainerWriter:
    """Writes one scene. Use it as a context manager and call `finish` at the end.

    Until then everything lies in ``<destination>.part``; leaving the context without `finish`, by an error or not,
    removes that, and what was under the destination's name before stays as it was. The `put` methods may be called from
    many threads and in any order; the same calls in the same order write the same bytes.

    With `resume` what was stored stays, and the next writer for the same scene asks `has_shard` before it codes one.
    Then the same calls write the same bytes in any order, and in any number of runs: those that are written without if
    shards come row by row, level after level, and the preview last.

    Parameters
    ----------
    destination : path
        ``*.zarr`` writes a folder, anything else a single file; a URL to an object store (`location`).
    meta : SceneMeta
    overwrite : bool
        Replace an existing scene, at `finish`.
    resume : str, optional
        Stands for everything that decides what the shards hold and `meta` does not say, the source's state above all.
        A local destination only.

    Raises
    ------
    DestinationExistsError, DestinationBusyError, DestinationError
        Also from every `put` and from `finish`, for instance when the disk is full.
    UsageError
        When the metadata is larger than the format allows.
    """

    def __init__(
        self,
        destination: str | os.PathLike[str],
        meta: SceneMeta,
        overwrite: bool = False,
        *,
        resume: str | None = None,
    ):
        self.meta, self.grid = meta, meta.grid
        self._folder = is_folder(locate(destination))
        documents = make_documents(meta, self._folder)
        if largest := next((key for key, data in documents.items() if len(data) > MAX_JSON), None):
            raise UsageError(f"{largest} would take over {MAX_JSON} bytes: the source's tags or RPCs are too large")
        self._records: dict[str, Record] = {}
        self._lock = threading.Lock()
        self._sink: Sink
        if resume is None:
            self._sink = open_sink(destination, overwrite)
        else:
            expected = _shards_in_order(meta)
            order = [*documents, *expected, PREVIEW_KEY]  # the single file's; of a folder it means nothing
            self._sink = sink = open_resumable_sink(destination, overwrite, _identity(resume, documents), order)
            self._records = {key: sink.kept[key] for key in expected if key in sink.kept}
            self._read = sink.read
        try:
            for key, data in documents.items():
                self._sink.put(key, data)
        except BaseException:
            self._sink.abort()
            raise
        self._files = {key: Record.of(data) for key, data in documents.items()}

    def put_shard(self, array: str, shard: TileIndex, chunks: Mapping[int, bytes], pyramid: int = 0) -> None:
        """Store the tiles of one shard.

        Parameters
        ----------
        array : str
            Name of a band group, ``g0``, ``g1``, ..., or ``alpha`` or ``mask`` (`plane_chunks`).
        shard : TileIndex
            Position in the shards of the pyramid level's grid.
        chunks : slot -> payload
            Exactly the slots of the grid's `tiles_in_shard(shard)`; see `TileGrid.slot`.
        pyramid : int
            Pyramid level; 0 is full resolution.
        """
        if array not in self.meta.arrays:
            raise UsageError(f"the scene has no array {array!r}, only {', '.join(self.meta.arrays)}")
        grid = self.meta.pyramid_grid(pyramid)
        expected = {grid.slot(tile) for tile in grid.tiles_in_shard(shard)}
        if chunks.keys() != expected:
            raise UsageError(f"shard {tuple(shard)} of {array} needs slots {sorted(expected)}, got {sorted(chunks)}")
        limit = self.meta.payload_limit(array)
        if largest := max((len(chunk) for chunk in chunks.values() if len(chunk) > limit), default=0):
            raise UsageError(f"a tile of {array} takes {largest} bytes, more than the {limit} allowed")
        key = self.meta.shard_key(array, shard, pyramid)
        data = pack_shard(chunks, self.meta.shard**2)
        record = Record.of(data)
        with self._lock:
            if key in self._records:
                raise UsageError(f"shard {tuple(shard)} of {array} was stored already")
            self._records[key] = record
        self._sink.put(key, data)

    @property
    def stored(self) -> int:
        """Number of shards that are stored so far."""
        with self._lock:
            return len(self._records)

    def has_shard(self, array: str, shard: TileIndex, pyramid: int = 0) -> bool:
        """Whether a shard is stored already, by this run or by an earlier one that was resumable."""
        with self._lock:
            return self.meta.shard_key(array, shard, pyramid) in self._records

    def kept_tiles(self, array: str, shard: TileIndex, pyramid: int = 0) -> list[bytes]:
        """The tiles of a shard that an earlier run stored."""
        data = self._read(self.meta.shard_key(array, shard, pyramid))
        return list(unpack_shard(data, self.meta.shard**2, self.meta.payload_limit(array)).values())

    def put_preview(self, data: bytes) -> None:
        """Store the quick-look, a JPEG file."""
        if len(data) > MAX_PREVIEW:
            raise UsageError(f"a preview of {len(data)} bytes is larger than the {MAX_PREVIEW} allowed")
        self._sink.put(PREVIEW_KEY, data)
        self._files[PREVIEW_KEY] = Record.of(data)

    def finish(self) -> None:
        """Write the list of all keys and give the scene its final name. UsageError when shards are missing."""
        expected = sum(len(self.meta.shard_keys(level)) for level in self.meta.pyramid)
        if len(self._records) != expected:
            raise UsageError(f"{expected - len(self._records)} of {expected} shards were not stored")
        if self._folder:  # the single file's list is the ZIP directory
            self._sink.put(MANIFEST_KEY, Manifest(self._records, self._files).pack())
        self._sink.commit()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sink.abort()


def _shards_in_order(meta: SceneMeta) -> list[str]:
    """Keys of all shards as an encoder with one thread stores them."""
    return [
        meta.shard_key(array, shard, level)
        for level in meta.pyramid
        for shard in meta.pyramid_grid(level).shard_indices
        for array in meta.arrays
    ]


def _identity(resume: str, documents: Mapping[str, bytes]) -> str:
    """One line for everything that must be equal for two runs to write equal shards."""
    digest = hashlib.sha256(resume.encode())
    for key, data in sorted(documents.items()):
        digest.update(f"\n{key} {hashlib.sha256(data).hexdigest()}".encode())
    return f"ltchm unfinished scene 1 {digest.hexdigest()}"


def plane_chunks(grid: TileGrid, shard: TileIndex, pixels: NDArray[Any]) -> dict[int, bytes]:
    """The payloads of one shard of ``alpha`` or ``mask``; `pixels` are those of the grid's ``shard_box(shard)``."""
    chunks, box = {}, grid.shard_box(shard)
    for tile in grid.tiles_in_shard(shard):
        rows, columns = grid.tile_box(tile).relative_to(box).slices
        chunks[grid.slot(tile)] = encode_plane(pad_tile(pixels[None, rows, columns], grid.tile))
    return chunks


def encode_plane(tile: NDArray[Any]) -> bytes:
    """One tile as Zarr's codecs ``bytes`` (little-endian) and ``gzip`` store it, without a time stamp."""
    raw = np.ascontiguousarray(tile, tile.dtype.newbyteorder("<")).tobytes()
    stream = zlib.compressobj(6, wbits=31)
    return stream.compress(raw) + stream.flush()
