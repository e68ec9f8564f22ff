"""One shard: the tiles of a block, one after the other, and an index of where each lies.

This is the binary layout of Zarr's ``sharding_indexed`` codec with the index at the end and a CRC-32C behind every
inner chunk and behind the index. It is written out here, not left to zarr, because a tile must be stored exactly as
it was coded, and because reading one must not need zarr.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import google_crc32c

from .errors import CorruptTileError

__all__ = ["ShardIndex", "check_chunk", "index_size", "pack_shard", "unpack_shard"]

_MISSING = 2**64 - 1
_ENTRY = struct.Struct("<QQ")
_CRC = struct.Struct("<I")


def index_size(slots: int) -> int:
    """Bytes of the index at the end of a shard."""
    return slots * _ENTRY.size + _CRC.size


def pack_shard(chunks: Mapping[int, bytes], slots: int) -> bytes:
    """Assemble a shard.

    Parameters
    ----------
    chunks : slot -> encoded inner chunk, without its checksum
        Slots count row by row through the full shard; slots left out are marked as missing.
    slots : int
        Number of slots of a full shard.
    """
    parts, index, at = [], bytearray(_ENTRY.pack(_MISSING, _MISSING) * slots), 0
    for slot, chunk in sorted(chunks.items()):
        if not 0 <= slot < slots:
            raise ValueError(f"slot {slot} is outside a shard of {slots}")
        parts += [chunk, _CRC.pack(google_crc32c.value(chunk))]
        _ENTRY.pack_into(index, slot * _ENTRY.size, at, len(chunk) + _CRC.size)
        at += len(chunk) + _CRC.size
    return b"".join([*parts, index, _CRC.pack(google_crc32c.value(bytes(index)))])


def unpack_shard(data: bytes, slots: int, limit: int) -> dict[int, bytes]:
    """Inverse of `pack_shard`, for chunks of up to `limit` bytes. CorruptTileError when the shard is damaged."""
    body = len(data) - index_size(slots)
    index = ShardIndex(data[max(body, 0) :], slots, body, limit + _CRC.size)
    found = {slot: index[slot] for slot in range(slots)}
    return {slot: check_chunk(data[at[0] : sum(at)]) for slot, at in found.items() if at is not None}


class ShardIndex:
    """Where the chunks of one shard lie.

    Parameters
    ----------
    tail : bytes
        The last `index_size(slots)` bytes of the shard.
    body : int
        Bytes of the shard before its index; no chunk may reach beyond.
    limit : int
        The largest chunk, checksum included, that makes sense; keeps a hostile index from asking for more.

    Raises
    ------
    CorruptTileError
        When the checksum is wrong or an entry leads out of the shard.
    """

    def __init__(self, tail: bytes, slots: int, body: int, limit: int):
        if len(tail) != index_size(slots) or body < 0:
            raise CorruptTileError("shard is too short for its index")
        entries = tail[: -_CRC.size]
        if _CRC.unpack(tail[-_CRC.size :])[0] != google_crc32c.value(entries):
            raise CorruptTileError("checksum of the shard index is wrong")
        self._ranges: list[tuple[int, int] | None] = []
        for offset, size in _ENTRY.iter_unpack(entries):
            missing = offset == size == _MISSING
            if not missing and not (_CRC.size <= size <= limit and offset <= body - size):
                raise CorruptTileError(
                    f"shard index points to {size} bytes at {offset}, outside the shard or its limits"
                )
            self._ranges.append(None if missing else (offset, size))

    def __getitem__(self, slot: int) -> tuple[int, int] | None:
        """Offset and size of a chunk with its checksum, or None when the slot is empty."""
        return self._ranges[slot]


def check_chunk(stored: bytes) -> bytes:
    """The chunk without its checksum; CorruptTileError when that does not match."""
    chunk = stored[: -_CRC.size]
    if len(stored) < _CRC.size or _CRC.unpack(stored[-_CRC.size :])[0] != google_crc32c.value(chunk):
        raise CorruptTileError("checksum is wrong: the bytes were changed after writing")
    return chunk
