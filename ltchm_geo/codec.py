"""The heart: tiles to payloads and back. Joins radiometry, masks, engine and bitstream, and nothing else does.

encode: validity -> outliers -> model range -> fill holes -> network + entropy coder -> payload
decode: payload -> entropy decoder + network -> data units -> outliers -> holes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from .bitstream import TileMode, TilePayload, decode_lossless, encode_lossless
from .engine import Engine, load_engine
from .errors import CorruptTileError, DesynchronisedError
from .georef import Number
from .masks import decode_mask, encode_mask, fill_masked, valid_pixels
from .radiometry import BandMapping, decode_outliers, encode_outliers, find_outliers, from_model, to_model
from .timing import StageClock

__all__ = ["GroupCoding", "check_latents", "decode_for_zarr", "decode_tiles", "encode_tiles", "tile_validity"]

Pixels = NDArray[Any]
Mask = NDArray[np.bool_]

#: Which band of a group feeds each of the network's three channels.
_CHANNELS = {1: (0, 0, 0), 2: (0, 1, 1), 3: (0, 1, 2)}
#: A tile is also tried losslessly where that has a chance to be smaller: few valid pixels, a stream that is a large
#: share of them, or few pixels that differ from their left neighbour.
_FEW_PIXELS, _LARGE_SHARE, _FEW_CHANGES = 4096, 0.25, 0.02


@dataclass(frozen=True)
class GroupCoding:
    """What coding a tile of one band group takes besides the network.

    Attributes
    ----------
    dtype : np.dtype
        Of the scene.
    mapping : tuple of BandMapping
        Per band, data units to the model's range.
    fill : tuple
        Per band, what masked pixels hold; None where none are masked.
    nodata : tuple
        Per band, the value no valid pixel may take on decoding; None without.
    """

    dtype: np.dtype[Any]
    mapping: tuple[BandMapping, ...]
    fill: tuple[Number | None, ...]
    nodata: tuple[Number | None, ...]

    @property
    def bands(self) -> int:
        """Bands of the group, 1 to 3."""
        return len(self.mapping)


class _Decoder(Protocol):
    """What decoding needs of an `Engine`."""

    @property
    def tile_multiple(self) -> int: ...

    def decode_latents(
        self, streams: Sequence[bytes], level: int, tile: int, clock: StageClock | None = None
    ) -> tuple[torch.Tensor, Mask]: ...

    def synthesise(self, y: torch.Tensor, level: int, clock: StageClock) -> NDArray[np.float32]: ...


# --- encoding --------------------------------------------------------------------------------------------------------


def encode_tiles(
    tiles: Sequence[tuple[Pixels, Mask]],
    coding: GroupCoding,
    engine: Engine,
    level: int,
    clock: StageClock | None = None,
) -> list[bytes]:
    """Code tiles of one band group.

    Parameters
    ----------
    tiles : sequence of (pixels, valid)
        Each (bands, T, T): pixels in the scene's own type, and True where they hold data.
    coding : GroupCoding
    engine : Engine
    level : int
        Quality level 0..112.

    Returns
    -------
    One packed `TilePayload` per tile.
    """
    clock = clock or StageClock()
    with clock("tiles"):
        payloads: list[TilePayload | None] = [_without_network(pixels, valid) for pixels, valid in tiles]
        todo = [i for i, payload in enumerate(payloads) if payload is None]
        outliers = {i: find_outliers(*tiles[i], coding.mapping) for i in todo}
        inputs = [_model_input(*tiles[i], outliers[i], coding) for i in todo]
    streams = engine.encode(np.stack(inputs), level, clock) if todo else []
    with clock("tiles"):
        for i, stream in zip(todo, streams, strict=True):
            pixels, valid = tiles[i]
            lossy = TilePayload(
                TileMode.LATENT,
                level,
                mask=None if valid.all() else encode_mask(valid),
                outliers=encode_outliers(pixels, outliers[i]) if outliers[i].any() else None,
                body=stream,
            )
            payloads[i] = _smaller(lossy, pixels, valid)
    return [payload.pack() for payload in payloads if payload is not None]


def _without_network(pixels: Pixels, valid: Mask) -> TilePayload | None:
    """EMPTY or CONSTANT where that says everything."""
    if not valid.any():
        return TilePayload(TileMode.EMPTY)
    values = np.empty(len(pixels), pixels.dtype)
    for band, (plane, band_valid) in enumerate(zip(pixels, valid, strict=True)):
        bits = _bits(plane[band_valid])
        if bits.size and (bits != bits[0]).any():
            return None
        values[band : band + 1] = plane[band_valid][:1] if bits.size else 0
    mask = None if valid.all() else encode_mask(valid)
    body = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    return TilePayload(TileMode.CONSTANT, mask=mask, body=body)


def _bits(values: Pixels) -> Pixels:
    """The same bytes as unsigned integers: NaN equals itself there, and -0.0 differs from 0.0."""
    return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")


def _model_input(pixels: Pixels, valid: Mask, outliers: Mask, coding: GroupCoding) -> NDArray[np.float32]:
    """(3, T, T) float32 for the network; holes and outliers are filled from their surroundings."""
    values = to_model(pixels, coding.mapping)
    known = valid & ~outliers
    if not known.all():
        values = fill_masked(values, known)
    return values[list(_CHANNELS[coding.bands])]


def _smaller(lossy: TilePayload, pixels: Pixels, valid: Mask) -> TilePayload:
    """The lossy payload, or the exact one where that takes fewer bytes: nothing is gained by losing quality."""
    size = len(lossy.body) + len(lossy.mask or b"") + len(lossy.outliers or b"")
    changes = np.count_nonzero(pixels[..., 1:] != pixels[..., :-1]) / pixels.size
    if valid.sum() >= _FEW_PIXELS and size < _LARGE_SHARE * pixels.nbytes and changes > _FEW_CHANGES:
        return lossy
    exact = encode_lossless(pixels)
    return TilePayload(TileMode.LOSSLESS, body=exact) if len(exact) <= size else lossy


# --- decoding --------------------------------------------------------------------------------------------------------


def decode_tiles(
    payloads: Sequence[bytes],
    coding: GroupCoding,
    engine: _Decoder | None,
    tile: int,
    clock: StageClock | None = None,
) -> list[Pixels | CorruptTileError]:
    """Decode tiles of one band group.

    Parameters
    ----------
    payloads : sequence of bytes
        Packed tiles.
    coding : GroupCoding
    engine : Engine or None
        May be None if no tile needs the network.
    tile : int
        Side T in pixels.

    Returns
    -------
    Per tile, pixels (bands, T, T) in the scene's own type, or the error that explains why there are none.
    """
    clock = clock or StageClock()
    with clock("tiles"):
        results: list[Any] = [_or_error(TilePayload.unpack, data) for data in payloads]
    levels: dict[int, list[int]] = {}
    for i, payload in enumerate(results):
        if isinstance(payload, TilePayload) and payload.mode == TileMode.LATENT:
            levels.setdefault(payload.level, []).append(i)
    values: dict[int, NDArray[np.float32] | CorruptTileError] = {}
    for level, members in levels.items():
        values |= zip(members, _synthesise([results[i].body for i in members], level, engine, tile, clock), strict=True)
    with clock("tiles"):
        for i, payload in enumerate(results):
            if isinstance(payload, TilePayload):
                results[i] = _or_error(_restore, payload, values.get(i), coding, tile)
    return results


def _synthesise(
    streams: list[bytes], level: int, engine: _Decoder | None, tile: int, clock: StageClock
) -> list[NDArray[np.float32] | CorruptTileError]:
    if engine is None:
        return [CorruptTileError("the tile needs a network, but its scene names no weights")] * len(streams)
    if tile % engine.tile_multiple:
        return [CorruptTileError(f"the scene's network codes no tiles of {tile} pixels")] * len(streams)
    y, intact = engine.decode_latents(streams, level, tile, clock)
    pixels = engine.synthesise(y, level, clock)
    return [p if ok else _desynchronised() for p, ok in zip(pixels, intact, strict=True)]


def _desynchronised() -> DesynchronisedError:
    return DesynchronisedError("the entropy stream does not decode to the latents it was made from")


def _or_error(function: Any, *arguments: Any) -> Any:
    """A tile's result, or its error as a value: one damaged tile must not take its neighbours with it."""
    try:
        return function(*arguments)
    except CorruptTileError as error:
        return error


def _restore(
    payload: TilePayload, values: NDArray[np.float32] | CorruptTileError | None, coding: GroupCoding, tile: int
) -> Pixels:
    """Pixels of one tile from its payload and, for LATENT, the network's output."""
    if isinstance(values, CorruptTileError):
        raise values
    shape = (coding.bands, tile, tile)
    if payload.mode == TileMode.LOSSLESS:
        return decode_lossless(payload.body, shape, coding.dtype)
    if payload.mode == TileMode.LATENT and values is not None:
        pixels = from_model(_to_bands(values, coding.bands), coding.mapping, coding.dtype, coding.nodata)
    else:
        pixels = _constant(payload, shape, coding.dtype)
    if payload.outliers is not None:
        decode_outliers(payload.outliers, pixels)
    valid = decode_mask(payload.mask, shape) if payload.mask is not None else None
    if payload.mode == TileMode.EMPTY:
        valid = np.zeros(shape, bool)
    if valid is not None:
        _fill_holes(pixels, valid, coding)
    return pixels


def _to_bands(values: NDArray[np.float32], bands: int) -> NDArray[np.float32]:
    """Three channels back to the group's bands; channels that carried the same band are averaged."""
    channels = np.array(_CHANNELS[bands])
    return np.stack([values[channels == band].mean(axis=0) for band in range(bands)])


def _constant(payload: TilePayload, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Pixels:
    if payload.mode == TileMode.EMPTY:
        return np.zeros(shape, dtype)
    if len(payload.body) != shape[0] * dtype.itemsize:
        raise CorruptTileError(f"a CONSTANT tile of {shape[0]} band(s) has a body of {len(payload.body)} bytes")
    values = np.frombuffer(payload.body, dtype.newbyteorder("<")).astype(dtype, copy=False)
    return np.repeat(values, shape[1] * shape[2]).reshape(shape)


def _fill_holes(pixels: Pixels, valid: Mask, coding: GroupCoding) -> None:
    for plane, band_valid, fill in zip(pixels, valid, coding.fill, strict=True):
        if fill is None:
            if not band_valid.all():
                raise CorruptTileError("the tile has masked pixels, but its scene says none are")
        else:
            plane[~band_valid] = fill


# --- for others ------------------------------------------------------------------------------------------------------


def check_latents(
    payloads: Sequence[bytes], coding: GroupCoding, engine: Engine | None, tile: int
) -> list[CorruptTileError | None]:
    """Decode everything of the tiles but the network's pixels: sections, latents and their checksum; None = sound."""
    decoded = decode_tiles(payloads, coding, engine and _LatentsOnly(engine), tile)
    return [result if isinstance(result, CorruptTileError) else None for result in decoded]


def tile_validity(data: bytes, coding: GroupCoding, tile: int, mask: Mask | None) -> Mask:
    """Which pixels of a tile hold data, (bands, T, T) bool; needs no network, as holes are stored exactly.

    Parameters
    ----------
    data : bytes
        Packed tile.
    mask : (T, T) bool or None
        What the scene's mask or alpha band says there.

    Raises
    ------
    CorruptTileError
    """
    payload, shape = TilePayload.unpack(data), (coding.bands, tile, tile)
    if payload.mode == TileMode.EMPTY:
        return np.zeros(shape, bool)
    if payload.mode == TileMode.LOSSLESS:
        return valid_pixels(decode_lossless(payload.body, shape, coding.dtype), coding.nodata, mask)
    return decode_mask(payload.mask, shape) if payload.mask is not None else np.ones(shape, bool)


class _LatentsOnly:
    """An engine that decodes latents for real, but leaves the pixels grey: g_s cannot fail on sound latents."""

    def __init__(self, engine: Engine):
        self.tile_multiple, self.decode_latents = engine.tile_multiple, engine.decode_latents

    def synthesise(self, y: torch.Tensor, level: int, clock: StageClock) -> NDArray[np.float32]:
        side = 16 * y.shape[-1]
        return np.broadcast_to(np.float32(0.5), (len(y), 3, side, side))


def decode_for_zarr(
    payloads: Sequence[bytes], configuration: Mapping[str, Any], shape: tuple[int, ...], dtype: DTypeLike
) -> list[Pixels | CorruptTileError]:
    """Decode inner chunks for the Zarr codec, from nothing but the codec's own configuration.

    Returns
    -------
    Per tile, its pixels or the error that explains why there are none.

    Raises
    ------
    WeightsNotFoundError
        The weights the configuration names are not installed.
    """
    from ._json import decode_number

    mapping = tuple(BandMapping(*(float(decode_number(n) or 0.0) for n in m)) for m in configuration["mapping"])
    fill, nodata = (tuple(decode_number(n) for n in configuration[key]) for key in ("fill", "nodata"))
    coding = GroupCoding(np.dtype(dtype), mapping, fill, nodata)
    engine = load_engine(configuration["weights"]) if configuration["weights"] else None
    return decode_tiles(payloads, coding, engine, shape[-1])
