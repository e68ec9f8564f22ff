from __future__ import annotations

import struct

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltchm_geo.errors import (
    CorruptTileError,
)
from ltchm_geo.shards import ShardIndex, check_chunk, index_size, pack_shard


@given(st.dictionaries(st.integers(0, 8), st.binary(max_size=30)))
def test_shard_round_trip(chunks):
    shard = pack_shard(chunks, 9)
    body = len(shard) - index_size(9)
    index = ShardIndex(shard[body:], 9, body, 34)
    for slot in range(9):
        found = index[slot]
        assert (None if found is None else check_chunk(shard[found[0] : sum(found)])) == chunks.get(slot)


def test_shard_exact_bytes():
    crc = google_crc32c.value(b"ab").to_bytes(4, "little")
    index = struct.pack("<QQQQ", 2**64 - 1, 2**64 - 1, 0, 6)
    assert pack_shard({1: b"ab"}, 2) == b"ab" + crc + index + google_crc32c.value(index).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("offset", "size"),
    [(0, 3), (0, 35), (11, 10), (2**64 - 1, 10), (2**64 - 1, 5), (0, 2**64 - 1), (2**63, 2**63), (5, 2**64 - 4)],
)
def test_index_that_leads_outside(offset, size):
    entries = struct.pack("<QQ", offset, size)
    with pytest.raises(CorruptTileError, match="points"):
        ShardIndex(entries + google_crc32c.value(entries).to_bytes(4, "little"), 1, 20, 34)


@pytest.mark.parametrize("tail", [b"", bytes(20), bytes(19), bytes(21)])
def test_damaged_index(tail):
    with pytest.raises(CorruptTileError):
        ShardIndex(tail, 1, 20, 34)
