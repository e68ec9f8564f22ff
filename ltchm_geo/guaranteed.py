"""Tiles whose pixels are exact or within a bound: which of the ways to say them takes the fewest bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .bitstream import TileMode, TilePayload
from .components import to_bands, to_channels
from .corrections import base_pixels, encode_correction
from .exact_pixels import encode_bounded, same_bits
from .masks import encode_mask
from .radiometry import encode_outliers, find_outliers
from .tile_coding import GroupCoding
from .tile_encoder import exact_payload, model_input, without_network
from .tiles import CutTile
from .timing import StageClock

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["encode_guaranteed"]

Pixels = NDArray[Any]
Mask = NDArray[np.bool_]


def encode_guaranteed(
    tiles: Sequence[CutTile], coding: GroupCoding, engine: Engine | None, level: int, clock: StageClock
) -> list[bytes]:
    """Code tiles within `coding.max_error`.

    Parameters
    ----------
    tiles : as `tile_encoder.encode_tiles` takes them, without margins
    coding : GroupCoding
        Where no band may have an error, masked pixels are kept as well.
    engine : Engine or None
        With one, its latents and a correction are tried too.
    level : int
        Quality level of the latents.
    """
    bounds = coding.max_error or (0.0,) * coding.bands
    with clock("tiles"):
        # What lies beyond the scene repeats its edge, for the network, too: it is to be corrected like the rest.
        kept = [CutTile(pixels, valid if any(bounds) else _not_fill(pixels, coding)) for pixels, valid, _ in tiles]
        payloads = [
            without_network(pixels, known) or _predicted(pixels, known, bounds, coding) for pixels, known, _ in kept
        ]
    if engine is not None and any(bounds):
        todo = [i for i, payload in enumerate(payloads) if payload.mode == TileMode.PREDICTED]
        corrected = _corrected([kept[i] for i in todo], bounds, coding, engine, level, clock)
        for i, payload in zip(todo, corrected, strict=True):
            if payload is not None and payload.size < payloads[i].size:
                payloads[i] = payload
    return [payload.pack() for payload in payloads]


def _not_fill(pixels: Pixels, coding: GroupCoding) -> Mask:
    """Pixels that do not hold their band's fill value bit by bit: the others need not be coded to come back exactly."""
    known = np.ones(pixels.shape, bool)
    for plane, kept, fill in zip(pixels, known, coding.holes, strict=True):
        if fill is not None:
            kept[...] = ~same_bits(plane, np.full(plane.shape, fill, plane.dtype))
    return known


def _predicted(pixels: Pixels, known: Mask, bounds: Sequence[float], coding: GroupCoding) -> TilePayload:
    if not any(bounds):
        return exact_payload(pixels, known)
    body, lost = encode_bounded(pixels, known, bounds, coding.nodata)
    return _payload(TileMode.PREDICTED, pixels, known, lost, body)


def _payload(mode: TileMode, pixels: Pixels, known: Mask, lost: Mask, body: bytes, level: int = 0) -> TilePayload:
    mask = None if known.all() else encode_mask(known)
    return TilePayload(mode, level, mask, encode_outliers(pixels, lost) if lost.any() else None, body)


def _corrected(
    tiles: Sequence[CutTile],
    bounds: Sequence[float],
    coding: GroupCoding,
    engine: Engine,
    level: int,
    clock: StageClock,
) -> list[TilePayload | None]:
    if not tiles:
        return []
    with clock("tiles"):
        outliers = [find_outliers(pixels, valid, coding.mapping) for pixels, valid, _ in tiles]
        inputs = [to_channels(model_input(tile, coding, found)) for tile, found in zip(tiles, outliers, strict=True)]
    streams = engine.encode(np.stack(inputs), level, clock)
    y, _ = engine.decode_latents(streams, level, inputs[0].shape[-1], clock)
    values = engine.synthesise(y, level, clock, precision="float32")
    payloads: list[TilePayload | None] = []
    with clock("tiles"):
        for (pixels, known, _), stream, found in zip(tiles, streams, values, strict=True):
            base = base_pixels(to_bands(found, coding.bands), coding.mapping)
            correction = encode_correction(pixels, known, base, coding.mapping, bounds, coding.nodata)
            if correction is None:
                payloads.append(None)
            else:
                body = TilePayload.corrected_body(stream, correction[0])
                payloads.append(_payload(TileMode.CORRECTED, pixels, known, correction[1], body, level))
    return payloads
