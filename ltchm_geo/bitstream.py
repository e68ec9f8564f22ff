"""Stage 6: the bytes of one tile.

A payload is a four-byte header, the lengths of the sections that are present, the sections, and the body;
docs/format.md is the specification. Nothing here knows of networks, files or geography, and nothing here trusts its
input: every length is checked before it is used, and inflating is bounded by the size the caller expects.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ._inflate import inflate
from .errors import CorruptTileError, UnsupportedVersionError
from .types import Shape2d

__all__ = ["FORMAT_VERSION", "MAX_LEVEL", "TileMode", "TilePayload", "decode_lossless", "encode_lossless"]

FORMAT_VERSION = 2  # of a tile; the scene around it has its own
MAX_LEVEL = 112

_HAS_MASK, _HAS_OUTLIERS, _HAS_EXTENT = 1, 2, 4
_HEADER, _EXTENT = 4, 2  # bytes
_EXTENT_VERSION = 2
_MAX_VARINT = 5  # 35 bits: more than any section the container's limits let through


class TileMode(IntEnum):
    """How the pixels of a tile are stored."""

    EMPTY = 0  # every pixel is masked; no body
    CONSTANT = 1  # each band has one value over its valid pixels; body: those values, little-endian
    LATENT = 2  # body: entropy stream of the network's latents
    LOSSLESS = 3  # body: `encode_lossless`
    PREDICTED = 4  # body: `exact_pixels`; exact, or within a bound
    CORRECTED = (
        5  # body: length of an entropy stream of latents, that stream, and what `corrections` adds to its pixels
    )
    COMPONENTS = 6  # body: per pass of the group's transform, length and entropy stream of its latents

    @property
    def version(self) -> int:
        """The format version in which the mode came to be."""
        return {TileMode.PREDICTED: 1, TileMode.CORRECTED: 1, TileMode.COMPONENTS: 2}.get(self, 0)

    @property
    def networked(self) -> bool:
        """Whether decoding takes the network."""
        return self in (TileMode.LATENT, TileMode.CORRECTED, TileMode.COMPONENTS)


@dataclass(frozen=True)
class TilePayload:
    """One tile of one band group, taken apart but not decoded.

    Parameters
    ----------
    mode : TileMode
    level : int
        Quality level 0..112 of a tile that takes the network; 0 in every other mode.
    mask, outliers : bytes or None
        Sections of `masks.encode_mask` and `radiometry.encode_outliers`; None when absent.
    body : bytes
    extent : Shape2d or None
        Rows and columns of latents that are coded, where the tile reaches beyond the scene by whole latents.
    """

    mode: TileMode
    level: int = 0
    mask: bytes | None = None
    outliers: bytes | None = None
    body: bytes = b""
    extent: Shape2d | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.level <= MAX_LEVEL:
            raise CorruptTileError(f"quality level {self.level} is outside 0..{MAX_LEVEL}")
        if self.level and not self.mode.networked:
            raise CorruptTileError(f"a {self.mode.name} tile must have quality level 0, not {self.level}")
        if self.body and self.mode == TileMode.EMPTY:
            raise CorruptTileError(f"an EMPTY tile has a body of {len(self.body)} bytes")
        if self.mode == TileMode.CORRECTED:
            _stream_and_rest(self.body)
        if self.extent is not None:
            if self.mode not in (TileMode.LATENT, TileMode.COMPONENTS):
                raise CorruptTileError(f"a {self.mode.name} tile has no extent")
            if not all(1 <= count <= 256 for count in self.extent):
                raise CorruptTileError(f"an extent of {tuple(self.extent)} latents")

    @property
    def version(self) -> int:
        """The format version in which a tile of this form came to be."""
        return self.mode.version if self.extent is None else _EXTENT_VERSION

    @property
    def size(self) -> int:
        """Bytes of body and sections."""
        return len(self.body) + len(self.mask or b"") + len(self.outliers or b"")

    @property
    def stream(self) -> bytes:
        """The entropy stream of a LATENT or CORRECTED tile."""
        return self.body if self.mode == TileMode.LATENT else _stream_and_rest(self.body)[0]

    @property
    def correction(self) -> bytes:
        """What follows the entropy stream of a CORRECTED tile."""
        return _stream_and_rest(self.body)[1]

    def streams(self, passes: int) -> list[bytes]:
        """The entropy streams of a COMPONENTS tile, one for each pass; an empty one where a pass holds nothing.

        Raises
        ------
        CorruptTileError
            If there are not so many.
        """
        found, rest = [], self.body
        for _ in range(passes):
            stream, rest = _stream_and_rest(rest)
            found.append(stream)
        if rest:
            raise CorruptTileError(f"a tile of {passes} passes has {len(rest)} bytes after the last")
        return found

    @staticmethod
    def components_body(streams: Sequence[bytes]) -> bytes:
        """Body of a COMPONENTS tile: inverse of `streams`."""
        return b"".join(_varint(len(stream)) + stream for stream in streams)

    @staticmethod
    def corrected_body(stream: bytes, correction: bytes) -> bytes:
        """Body of a CORRECTED tile."""
        return _varint(len(stream)) + stream + correction

    def pack(self) -> bytes:
        """The payload as bytes; `unpack` gives an equal payload back."""
        sections = [s for s in (self.mask, self.outliers) if s is not None]
        flags = _HAS_MASK * (self.mask is not None) | _HAS_OUTLIERS * (self.outliers is not None)
        flags |= _HAS_EXTENT * (self.extent is not None)
        header = bytes([self.version, self.mode, flags, self.level, *(count - 1 for count in self.extent or ())])
        return b"".join([header, *(_varint(len(s)) for s in sections), *sections, self.body])

    @staticmethod
    def mode_of(data: bytes) -> TileMode:
        """The mode of a packed payload."""
        return TileMode(data[1])

    @classmethod
    def unpack(cls, data: bytes) -> TilePayload:
        """Take a payload apart.

        Raises
        ------
        CorruptTileError
            On anything `pack` cannot have written.
        UnsupportedVersionError
            When the tile was written in a newer format.
        """
        if len(data) < _HEADER:
            raise CorruptTileError(f"tile payload has {len(data)} bytes, its header alone takes {_HEADER}")
        version, mode, flags, level = data[:_HEADER]
        if version > FORMAT_VERSION:
            raise UnsupportedVersionError(
                f"tile is in format {version}, this software reads up to {FORMAT_VERSION}: update"
            )
        if mode not in TileMode.__members__.values():
            raise CorruptTileError(f"unknown tile mode {mode}")
        if flags & ~(_HAS_MASK | _HAS_OUTLIERS | _HAS_EXTENT):
            raise CorruptTileError(f"reserved flag bits are set: {flags:#04x}")
        expected = _EXTENT_VERSION if flags & _HAS_EXTENT else TileMode(mode).version
        if version != expected:
            raise CorruptTileError(f"a tile of mode {mode} must be in format {expected}, not {version}")
        present = [bit for bit in (_HAS_MASK, _HAS_OUTLIERS) if flags & bit]
        at, lengths, extent = _HEADER, [], None
        if flags & _HAS_EXTENT:
            at += _EXTENT
            if len(data) < at:
                raise CorruptTileError("tile payload ends inside its extent")
            extent = Shape2d(*(count + 1 for count in data[_HEADER:at]))
        for _ in present:
            length, at = _read_varint(data, at)
            lengths.append(length)
        if sum(lengths) > len(data) - at:
            raise CorruptTileError(f"sections of {sum(lengths)} bytes do not fit in a payload of {len(data)}")
        sections: dict[int, bytes] = {}
        for bit, length in zip(present, lengths, strict=True):
            sections[bit] = bytes(data[at : at + length])
            at += length
        found = (sections.get(_HAS_MASK), sections.get(_HAS_OUTLIERS), bytes(data[at:]))
        return cls(TileMode(mode), level, *found, extent)


def _varint(value: int) -> bytes:
    """LEB128: seven bits a byte, lowest first, the high bit says that more follow."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _stream_and_rest(body: bytes) -> tuple[bytes, bytes]:
    length, at = _read_varint(body, 0)
    if length > len(body) - at:
        raise CorruptTileError(f"an entropy stream of {length} bytes does not fit in a body of {len(body)}")
    return body[at : at + length], body[at + length :]


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(_MAX_VARINT):
        if at + i >= len(data):
            raise CorruptTileError("tile payload ends inside a length")
        byte = data[at + i]
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            # A second spelling of the same number would let two different payloads mean the same tile.
            if byte == 0 and i:
                raise CorruptTileError("a length is not in its shortest form")
            return value, at + i + 1
    raise CorruptTileError("a length is longer than five bytes")


# --- exact pixels ----------------------------------------------------------------------------------------------------


def _unsigned(dtype: np.dtype) -> np.dtype:
    """Little-endian unsigned integers as wide as `dtype`; the bits of floats are coded, so NaN payloads survive."""
    if dtype.kind not in "uif" or dtype.itemsize not in (1, 2, 4, 8):
        raise ValueError(f"cannot code pixels of type {dtype}")
    return np.dtype(f"<u{dtype.itemsize}")


def encode_lossless(pixels: NDArray[np.generic]) -> bytes:
    """Code pixels exactly: difference to the left neighbour, byte planes, zlib.

    Parameters
    ----------
    pixels : (c, h, w) array of unsigned, signed or floating numbers
        Floats are coded by their bits: NaN payloads and negative zero survive.
    """
    pixels = np.ascontiguousarray(pixels)
    unsigned = _unsigned(pixels.dtype)
    bits = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).view(unsigned)
    delta = bits.copy()
    delta[..., 1:] -= bits[..., :-1]  # modulo 2**n, as numpy's unsigned integers are
    planes = np.moveaxis(delta.view(np.uint8).reshape(*delta.shape, unsigned.itemsize), -1, 0)
    return zlib.compress(planes.tobytes(), 9)


def decode_lossless(data: bytes, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[np.generic]:
    """Exact inverse of `encode_lossless`.

    Raises
    ------
    CorruptTileError
        When `data` does not inflate to exactly the bytes of `shape` and `dtype`.
    """
    dtype = np.dtype(dtype)
    unsigned = _unsigned(dtype)
    size = math.prod(shape) * unsigned.itemsize
    raw = inflate(data, size)
    if len(raw) != size:
        raise CorruptTileError(f"lossless tile holds {len(raw)} bytes, not {size}")
    planes = np.frombuffer(raw, np.uint8).reshape(unsigned.itemsize, *shape)
    delta = np.ascontiguousarray(np.moveaxis(planes, 0, -1)).view(unsigned)[..., 0]
    bits = np.cumsum(delta, axis=-1, dtype=unsigned)
    return bits.view(dtype.newbyteorder("<")).astype(dtype, copy=False)
