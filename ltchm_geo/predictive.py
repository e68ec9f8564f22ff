"""Exact coding of integers: linear prediction, context model, adaptive binary range coder.

What JPEG-LS and lossless JPEG XL do, for up to three planes of any width of integer, in tiles: each sample is predicted
from its neighbours and from the planes before it, with coefficients that the encoder fits to the tile, and the error is
coded with probabilities that adapt to how large the errors around it were. Everything a decoder computes is integer
arithmetic; docs/format.md specifies it.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _predictive_kernels as kernels
from .errors import CorruptTileError, DesynchronisedError
from .types import Shape2d

__all__ = ["decode_planes", "encode_planes"]

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

_LINEAR_LIMIT = 1 << 40  # of samples predicted linearly: 16 products with 16-bit coefficients stay within 63 bits
_STEPS = np.array([round(65536 / (seen + 1.5)) for seen in range(256)], np.int64)
_CRC, _SIDE = 4, 2  # bytes
_TAIL = 6  # bytes of the coder's register


def encode_planes(planes: Integers, known: Mask, extent: Shape2d | None = None) -> bytes:
    """Code integer planes.

    Parameters
    ----------
    planes : (bands, h, w) int64
    known : (bands, h, w) bool
        Samples to keep; what others hold is not stored and comes back as anything.
    extent : Shape2d, optional
        Only so many rows and columns are stored.
    """
    extent = extent or Shape2d(*planes.shape[1:])
    planes, known = _cut(planes, extent), _cut(known, extent)
    work, errors = _bordered(planes.shape), _bordered(planes.shape)
    # A sample takes at most 63 + 1 + 63 steps of 16 bits; typical ones a byte or two.
    data = np.zeros(int(known.sum()) * 80 + 64, np.uint8)
    state = np.array([0, kernels._TOP - 1, 0, 0], np.int64)
    heads = []
    for band in range(len(planes)):
        coefficients = _fit(planes, known, band)
        heads.append(bytes([len(coefficients)]) + coefficients.astype("<i2").tobytes())
        inner = work[band, kernels.BORDER :, kernels.BORDER : -kernels.BORDER]
        inner[...] = planes[band]
        kernels.code_plane(state, data, _STEPS, work, errors, band, known[band], coefficients)
    sides = b"".join(side.to_bytes(_SIDE, "little") for side in extent)
    return sides + _crc(planes, known) + b"".join(heads) + _finished(state, data)


def decode_planes(data: bytes, known: Mask) -> tuple[Integers, Shape2d]:
    """Inverse of `encode_planes`: (bands, h, w) int64, zero beyond the extent, and that.

    Raises
    ------
    CorruptTileError
        For bytes it did not write; `DesynchronisedError` where only the checksum shows it.
    """
    height, width = (int.from_bytes(data[at : at + _SIDE], "little") for at in (0, _SIDE))
    if not (1 <= height <= known.shape[1] and 1 <= width <= known.shape[2]):
        raise CorruptTileError(f"a predictive stream of {height} x {width} samples is not for this tile")
    whole, extent = known, Shape2d(height, width)
    known = _cut(known, extent)
    work, errors = _bordered(known.shape), _bordered(known.shape)
    at = 2 * _SIDE + _CRC
    check = data[2 * _SIDE : at]
    coefficients = []
    for band in range(len(known)):
        count = data[at] if at < len(data) else -1
        if count not in (0, _taps(band)) or at + 1 + 2 * count > len(data):
            raise CorruptTileError("prediction coefficients are cut short, or of an unknown number")
        coefficients.append(np.frombuffer(data, "<i2", count, at + 1).astype(np.int64))
        at += 1 + 2 * count
    stream = np.array(bytearray(data[at:]), np.uint8)  # the kernel takes writable arrays only
    state = np.array([0, kernels._TOP - 1, _TAIL, 1], np.int64)
    state[kernels.LOW] = int.from_bytes(bytes(stream[:_TAIL]).ljust(_TAIL, b"\0"), "big")
    for band in range(len(known)):
        kernels.code_plane(state, stream, _STEPS, work, errors, band, known[band], coefficients[band])
    planes = work[:, kernels.BORDER :, kernels.BORDER : -kernels.BORDER]
    if len(stream) > state[kernels.POSITION] or _crc(planes, known) != check:
        raise DesynchronisedError("the predictive stream does not decode to the samples it was made from")
    out = np.zeros(whole.shape, np.int64)
    _cut(out, extent)[...] = planes
    return out, extent


def _cut(planes: NDArray[Any], extent: Shape2d) -> NDArray[Any]:
    return planes[:, : extent.y, : extent.x]


def _bordered(shape: tuple[int, ...]) -> Integers:
    bands, height, width = shape
    return np.zeros((bands, height + kernels.BORDER, width + 2 * kernels.BORDER), np.int64)


def _crc(planes: Integers, known: Mask) -> bytes:
    return zlib.crc32(planes[known].astype("<i8", copy=False).tobytes()).to_bytes(_CRC, "little")


def _finished(state: Integers, data: NDArray[np.uint8]) -> bytes:
    """The bytes written so far, and the fewest more that lie in the last interval; zeros at the end are left out."""
    low, span, position = (int(state[i]) for i in (kernels.LOW, kernels.RANGE, kernels.POSITION))
    for kept in range(_TAIL + 1):
        unit = 1 << 8 * (_TAIL - kept)
        value = -(-low // unit) * unit
        if value < low + span:
            break
    if value >= kernels._TOP:
        kernels._carry(data, position)
    tail = (value % kernels._TOP).to_bytes(_TAIL, "big")
    return (data[:position].tobytes() + tail).rstrip(b"\0")


def _taps(band: int) -> int:
    return kernels.TAPS + min(band, 2) * kernels.BAND_TAPS


# --- fitting ---------------------------------------------------------------------------------------------------------


def _fit(planes: Integers, known: Mask, band: int) -> Integers:
    """Least-squares coefficients for a plane, in 1/4096; none where linear prediction has nothing to work with."""
    inner, rows, columns = known[band, 1:, 1:-1], slice(1, None), slice(1, -1)
    # The coder sees nothing of samples that are not known. By comparison: the least integer has no absolute value.
    seen = np.where(known[: band + 1], planes[: band + 1], 0)
    if inner.sum() < 16 * _taps(band) or ((seen >= _LINEAR_LIMIT) | (seen <= -_LINEAR_LIMIT)).any():
        return np.empty(0, np.int64)
    values = seen.astype(np.float64)
    north = values[band, :-1, 1:-1]
    features = np.empty((_taps(band), *north.shape))
    own = values[band]
    west, corner = own[1:, :-2], own[:-1, :-2]
    edge = np.where(
        corner >= np.maximum(west, north),
        np.minimum(west, north),
        np.where(corner <= np.minimum(west, north), np.maximum(west, north), west + north - corner),
    )
    farther = np.concatenate([own[:1], own[:-2]])[:, 1:-1]
    further = np.concatenate([own[1:, :1], own[1:, :-3]], axis=1)
    features[:6] = west, corner, own[:-1, 2:], further, farther, edge
    features[:6] -= north
    for back in range(min(band, 2)):
        other = values[band - 1 - back]
        part = features[6 + 5 * back :][:5]
        part[:] = other[1:, 1:-1], other[1:, :-2], other[1:, 2:], other[:-1, :-2], other[:-1, 2:]
        part -= other[:-1, 1:-1]
    sound = inner & known[band, 1:, :-2] & known[band, :-1, 1:-1] & known[band, :-1, :-2] & known[band, :-1, 2:]
    target = (own[rows, columns] - north)[sound]
    chosen = features[:, sound]
    if not chosen.size:
        return np.empty(0, np.int64)
    gram = chosen @ chosen.T
    gram[np.diag_indices_from(gram)] += 1e-6 * np.trace(gram) + 1e-9
    solution = np.linalg.solve(gram, chosen @ target)
    return np.clip(np.rint(solution * (1 << kernels.SHIFT)), -32768, 32767).astype(np.int64)
