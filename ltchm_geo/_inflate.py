"""Inflating data that may be hostile."""

from __future__ import annotations

import zlib

from .errors import CorruptTileError

__all__ = ["GZIP", "RAW_DEFLATE", "ZLIB", "inflate"]

ZLIB, GZIP, RAW_DEFLATE = 15, 31, -15  # how zlib's `wbits` names what is around the deflated data


def inflate(data: bytes, at_most: int, wbits: int = ZLIB) -> bytes:
    """Inflate one whole stream of no more than `at_most` bytes.

    Raises
    ------
    CorruptTileError
        If the stream is damaged, cut short, longer than it may be, or followed by anything.
    """
    stream = zlib.decompressobj(wbits)
    try:
        raw = stream.decompress(data, at_most + 1)  # one more than allowed shows a stream that is too long
    except zlib.error as error:
        raise CorruptTileError(f"deflated data is damaged: {error}") from error
    if len(raw) > at_most:
        raise CorruptTileError(f"deflated data holds more than {at_most} bytes")
    if not stream.eof or stream.unused_data:
        raise CorruptTileError("deflated data is cut short, or something follows it")
    return raw
