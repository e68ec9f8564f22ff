"""Tiles to payloads: validity -> outliers -> model range -> fill holes -> network + entropy coder -> payload.

Joins radiometry, masks, engine and bitstream; its counterpart is `tile_decoder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .bitstream import TileMode, TilePayload, encode_lossless
from .errors import UsageError
from .exact_pixels import encode_exact
from .masks import encode_mask, fill_masked
from .radiometry import encode_outliers, find_outliers, to_model
from .tile_coding import GroupCoding, Mask, Pixels, to_channels
from .tiles import MARGIN
from .timing import StageClock
from .types import Sides

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["encode_tiles", "exact_payload", "model_input", "without_network"]

#: A tile is also tried losslessly where that has a chance to be smaller: few valid pixels, a stream that is a large
#: share of them, or few pixels that differ from their left neighbour.
_FEW_PIXELS, _LARGE_SHARE, _FEW_CHANGES = 4096, 0.25, 0.02
_RUNS = 0.25  # where fewer pixels differ from their left neighbour, runs may say a tile better than predictions


def encode_tiles(
    tiles: Sequence[tuple[Pixels, Mask]],
    coding: GroupCoding,
    engine: Engine | None,
    level: int,
    clock: StageClock | None = None,
    *,
    sides: Sequence[Sides] | None = None,
) -> list[bytes]:
    """Code tiles of one band group.

    Parameters
    ----------
    tiles : sequence of (pixels, valid)
        Each (bands, T, T): pixels in the scene's own type, and True where they hold data. With `sides`, 16 pixels more
        on those sides.
    coding : GroupCoding
    engine : Engine or None
        May be None where `coding` bounds errors.
    level : int
        Quality level 0..112.
    sides : sequence of Sides, optional
        Per tile, the sides where it has a neighbour that is coded with this halo, too.

    Returns
    -------
    One packed `TilePayload` per tile.
    """
    clock = clock or StageClock()
    if coding.max_error is not None:
        from .guaranteed import encode_guaranteed

        return encode_guaranteed(tiles, coding, engine, level, clock)
    if engine is None:
        raise UsageError("pixels without a bound on their errors are coded by a network: load weights")
    with clock("tiles"):
        around, tiles = tiles, tiles if sides is None else [_inner(*pair) for pair in zip(tiles, sides, strict=True)]
        payloads: list[TilePayload | None] = [without_network(pixels, valid) for pixels, valid in tiles]
        todo = [i for i, payload in enumerate(payloads) if payload is None]
        outliers = {i: find_outliers(*tiles[i], coding.mapping) for i in todo}
        if sides is None:
            inputs = [model_input(*tiles[i], outliers[i], coding) for i in todo]
        else:
            inputs = [_margined_input(*around[i], sides[i], coding) for i in todo]
    where = None if sides is None else [sides[i] for i in todo]
    streams = engine.encode(np.stack(inputs), level, clock, sides=where) if todo else []
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


def without_network(pixels: Pixels, valid: Mask) -> TilePayload | None:
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


def model_input(pixels: Pixels, valid: Mask, outliers: Mask, coding: GroupCoding) -> NDArray[np.float32]:
    """(3, T, T) float32 for the network; holes and outliers are filled from their surroundings."""
    values = to_model(pixels, coding.mapping)
    known = valid & ~outliers
    if not known.all():
        values = fill_masked(values, known)
    return to_channels(values)


def _inner(tile: tuple[Pixels, Mask], sides: Sides) -> tuple[Pixels, Mask]:
    """A tile without the pixels of its neighbours."""
    top, bottom, left, right = sides.times(MARGIN)
    pixels, valid = tile
    inside = (slice(None), slice(top, pixels.shape[1] - bottom), slice(left, pixels.shape[2] - right))
    return pixels[inside], valid[inside]


def _margined_input(pixels: Pixels, valid: Mask, sides: Sides, coding: GroupCoding) -> NDArray[np.float32]:
    """(3, T + 32, T + 32) float32 for the network; zeros on the sides without a neighbour."""
    values = model_input(pixels, valid, find_outliers(pixels, valid, coding.mapping), coding)
    top, bottom, left, right = (MARGIN * (1 - side) for side in sides)
    return np.pad(values, ((0, 0), (top, bottom), (left, right)))


def _smaller(lossy: TilePayload, pixels: Pixels, valid: Mask) -> TilePayload:
    """The lossy payload, or the exact one where that takes fewer bytes: nothing is gained by losing quality."""
    changes = np.count_nonzero(pixels[..., 1:] != pixels[..., :-1]) / pixels.size
    if valid.sum() >= _FEW_PIXELS and lossy.size < _LARGE_SHARE * pixels.nbytes and changes > _FEW_CHANGES:
        return lossy
    exact = exact_payload(pixels, valid)
    return exact if exact.size <= lossy.size else lossy


def exact_payload(pixels: Pixels, known: Mask) -> TilePayload:
    """A tile whose pixels come back exactly, but for those not known, which may come back as their band's fill."""
    body, lost = encode_exact(pixels, known)
    predicted = TilePayload(
        TileMode.PREDICTED,
        mask=None if known.all() else encode_mask(known),
        outliers=encode_outliers(pixels, lost) if lost.any() else None,
        body=body,
    )
    if np.count_nonzero(pixels[..., 1:] != pixels[..., :-1]) > _RUNS * pixels.size:
        return predicted
    runs = TilePayload(TileMode.LOSSLESS, body=encode_lossless(pixels))
    return runs if runs.size < predicted.size else predicted
