"""Tiles to payloads: outliers -> model range -> fill holes -> components -> network + entropy coder -> payload.

Joins radiometry, masks, components, engine and bitstream; its counterpart is `tile_decoder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .bitstream import TileMode, TilePayload, encode_lossless
from .components import to_channels
from .errors import UsageError
from .exact_pixels import encode_exact
from .masks import encode_mask, fill_masked
from .nn.config import level_to_lambda
from .radiometry import encode_outliers, find_outliers, to_model
from .tile_coding import GroupCoding, Mask, Pixels
from .tiles import MARGIN, CutTile, latents_of
from .timing import StageClock
from .types import Shape2d, Sides

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["encode_tiles", "exact_payload", "model_input", "without_network"]

#: A tile is also tried losslessly where that has a chance to be smaller: few valid pixels, a stream that is a large
#: share of them, or few pixels that differ from their left neighbour.
_FEW_PIXELS, _LARGE_SHARE, _FEW_CHANGES = 4096, 0.25, 0.02
_RUNS = 0.25  # where fewer pixels differ from their left neighbour, runs may say a tile better than predictions
_NOTHING = 0.002  # bits per pixel: where leaving a pass out costs no more than that in error, no stream is cheaper


def encode_tiles(
    tiles: Sequence[CutTile],
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
    tiles : sequence of CutTile
        Each of T x T pixels; with `sides`, of 16 more on those sides.
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
    around = [Sides()] * len(tiles) if sides is None else sides
    with clock("tiles"):
        insides = [_inside(tile, margins) for tile, margins in zip(tiles, around, strict=True)]
        inner = [(tile.pixels[inside], tile.valid[inside]) for tile, inside in zip(tiles, insides, strict=True)]
        payloads: list[TilePayload | None] = [without_network(pixels, valid) for pixels, valid in inner]
        todo = [i for i, payload in enumerate(payloads) if payload is None]
        inputs, outliers = [], []
        for i in todo:
            found = find_outliers(tiles[i].pixels, tiles[i].valid, coding.mapping)
            inputs.append(_passes(model_input(tiles[i], coding, found), coding))
            outliers.append(_stored(inner[i][0], found[insides[i]]))
        own = [_own(tiles[i], around[i]) for i in todo]
        extents = [latents_of(*shape) for shape in own]
    where = None if sides is None else [sides[i] for i in todo]
    mode, bodies = _bodies(inputs, coding, engine, level, clock, where, extents)
    with clock("tiles"):
        for i, body, beside, shape, extent in zip(todo, bodies, outliers, own, extents, strict=True):
            pixels, valid = inner[i]
            lossy = TilePayload(
                mode,
                level,
                mask=None if valid.all() else encode_mask(valid),
                outliers=beside,
                body=body,
                extent=None if extent == latents_of(*pixels.shape[1:]) else extent,
            )
            payloads[i] = _smaller(lossy, pixels, valid, shape)
    return [payload.pack() for payload in payloads if payload is not None]


def _passes(values: NDArray[np.float32], coding: GroupCoding) -> list[NDArray[np.float32]]:
    """What each pass through the network carries of bands in the model's range."""
    return [values] if coding.transform is None else coding.transform.planes(values)


def _bodies(
    tiles: Sequence[Sequence[NDArray[np.float32]]],
    coding: GroupCoding,
    engine: Engine,
    level: int,
    clock: StageClock,
    sides: Sequence[Sides] | None,
    extents: Sequence[Shape2d],
) -> tuple[TileMode, list[bytes]]:
    """Mode and body of tiles with these planes of each pass."""
    transform = coding.transform
    if transform is None:
        channels = [to_channels(planes) for (planes,) in tiles]
        return TileMode.LATENT, _streams(channels, engine, level, clock, sides, extents)
    streams = [[b""] * len(transform.passes) for _ in tiles]
    for number in range(len(transform.passes)):
        lower = transform.level(number, level)
        kept = [i for i, planes in enumerate(tiles) if _worth_coding(planes[number], lower)]
        where = None if sides is None else [sides[i] for i in kept]
        channels = [to_channels(tiles[i][number]) for i in kept]
        coded = _streams(channels, engine, lower, clock, where, [extents[i] for i in kept])
        for i, stream in zip(kept, coded, strict=True):
            streams[i][number] = stream
    return TileMode.COMPONENTS, list(map(TilePayload.components_body, streams))


def _worth_coding(planes: NDArray[np.float32], level: int) -> bool:
    """Whether planes differ from the mean of all tiles, which stands for them where they have no stream."""
    return level_to_lambda(level) * float(np.square(planes - 0.5).mean()) > _NOTHING


def _streams(
    inputs: Sequence[NDArray[np.float32]],
    engine: Engine,
    level: int,
    clock: StageClock,
    sides: Sequence[Sides] | None,
    extents: Sequence[Shape2d],
) -> list[bytes]:
    """The entropy streams of inputs (3, h, w)."""
    if not inputs:
        return []
    if sides is not None:
        inputs = [_margined(channels, side) for channels, side in zip(inputs, sides, strict=True)]
    return engine.encode(np.stack(inputs), level, clock, sides=sides, extents=extents)


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


def _stored(pixels: Pixels, where: Mask) -> bytes | None:
    return encode_outliers(pixels, where) if where.any() else None


def model_input(tile: CutTile, coding: GroupCoding, outliers: Mask) -> NDArray[np.float32]:
    """(bands, h, w) float32 in the model's range.

    Holes, outliers and what lies beyond the scene are filled from their surroundings. Smoothly: the last row and
    column, repeated, would be stripes that take as many bits as pixels (docs/decisions/0016-beyond-the-edge.md).
    """
    pixels, valid, scene = tile
    known = valid & ~outliers
    if scene is not None:
        known[:, scene.y :] = known[:, :, scene.x :] = False
    return fill_masked(to_model(pixels, coding.mapping), known)


def _own(tile: CutTile, sides: Sides) -> Shape2d:
    """Rows and columns of the tile that are the scene's, without the pixels of its neighbours."""
    top, bottom, left, right = sides.times(MARGIN)
    rows, columns = tile.scene or tile.pixels.shape[1:]
    return Shape2d(rows - top - bottom, columns - left - right)


def _inside(tile: CutTile, sides: Sides) -> tuple[slice, slice, slice]:
    """A tile without the pixels of its neighbours."""
    top, bottom, left, right = sides.times(MARGIN)
    _, height, width = tile.pixels.shape
    return slice(None), slice(top, height - bottom), slice(left, width - right)


def _margined(channels: NDArray[np.float32], sides: Sides) -> NDArray[np.float32]:
    """(3, T + 32, T + 32) for the network; zeros on the sides without a neighbour."""
    top, bottom, left, right = (MARGIN * (1 - side) for side in sides)
    return np.pad(channels, ((0, 0), (top, bottom), (left, right)))


def _smaller(lossy: TilePayload, pixels: Pixels, valid: Mask, own: Shape2d) -> TilePayload:
    """The lossy payload, or the exact one where that takes fewer bytes: nothing is gained by losing quality."""
    seen, count = pixels[:, : own.y, : own.x], valid[:, : own.y, : own.x].sum()
    changes = np.count_nonzero(seen[..., 1:] != seen[..., :-1]) / seen.size
    if count >= _FEW_PIXELS and lossy.size < _LARGE_SHARE * seen.nbytes and changes > _FEW_CHANGES:
        return lossy
    exact = exact_payload(pixels, valid)
    return exact if exact.size <= lossy.size else lossy


def exact_payload(pixels: Pixels, known: Mask) -> TilePayload:
    """A tile whose pixels come back exactly, but for those not known, which may come back as their band's fill."""
    body, lost = encode_exact(pixels, known)
    predicted = TilePayload(
        TileMode.PREDICTED,
        mask=None if known.all() else encode_mask(known),
        outliers=_stored(pixels, lost),
        body=body,
    )
    if np.count_nonzero(pixels[..., 1:] != pixels[..., :-1]) > _RUNS * pixels.size:
        return predicted
    runs = TilePayload(TileMode.LOSSLESS, body=encode_lossless(pixels))
    return runs if runs.size < predicted.size else predicted
