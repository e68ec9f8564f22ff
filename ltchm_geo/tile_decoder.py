"""Payloads to tiles: entropy decoder + network -> bands -> data units -> outliers -> holes.

Joins bitstream, engine, components, radiometry and masks; its counterpart is `tile_encoder`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .bitstream import TileMode, TilePayload, decode_lossless
from .components import ComponentTransform, to_bands
from .corrections import add_correction, base_pixels
from .errors import CorruptContainerError, CorruptTileError, DesynchronisedError
from .exact_pixels import decode_pixels
from .masks import decode_mask, valid_pixels
from .radiometry import BandMapping, decode_outliers, from_model, outlier_mask
from .tile_coding import GroupCoding, Mask, Pixels
from .tiles import TILE_MULTIPLE, latents_of
from .timing import StageClock
from .types import EXACT_DTYPES, Shape2d, Sides, TileIndex

if TYPE_CHECKING:
    import torch

    from .engine import Engine
    from .nn.inference import Precision
    from .seams import Surroundings

__all__ = ["check_latents", "decode_for_zarr", "decode_tiles", "tile_validity"]

_Values = NDArray[np.float32] | CorruptTileError  # what the network made of a tile, or why it made nothing


class _Decoder(Protocol):
    """What decoding needs of an `Engine`."""

    @property
    def tile_multiple(self) -> int: ...

    def decode_latents(
        self,
        streams: Sequence[bytes],
        level: int,
        tile: int,
        clock: StageClock | None = None,
        *,
        extents: Sequence[Shape2d] | None = None,
    ) -> tuple[torch.Tensor, Mask]: ...

    def synthesise(
        self,
        y: torch.Tensor,
        level: int,
        clock: StageClock,
        *,
        sides: Sequence[Sides] | None = None,
        extents: Sequence[Shape2d] | None = None,
        precision: Precision | None = None,
    ) -> NDArray[np.float32]: ...


def decode_tiles(
    payloads: Sequence[bytes],
    coding: GroupCoding,
    engine: _Decoder | None,
    tile: int,
    clock: StageClock | None = None,
    *,
    surroundings: Surroundings | None = None,
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
    surroundings : Surroundings, optional
        Where the tiles lie; only for a coding with a halo. Without, such tiles do without their neighbours.

    Returns
    -------
    Per tile, pixels (bands, T, T) in the scene's own type, or the error that explains why there are none. With
    `surroundings`, only for the tiles that are wanted.
    """
    clock = clock or StageClock()
    with clock("tiles"):
        results: list[Any] = [_or_error(_unpack, data, coding, tile) for data in payloads]
        if surroundings is not None:
            results = [
                _or_error(_fitting, found, surroundings, place) if isinstance(found, TilePayload) else found
                for found, place in zip(results, surroundings.places, strict=True)
            ]
    alike: dict[tuple[TileMode, int, int], dict[int, _Coded]] = {}
    for i, payload in enumerate(results):
        if isinstance(payload, TilePayload) and payload.mode.networked:
            for number, (level, stream) in enumerate(_passes(payload, coding)):
                if stream or payload.mode != TileMode.COMPONENTS:
                    coded = _Coded(stream, payload.extent or latents_of(tile, tile))
                    alike.setdefault((payload.mode, number, level), {})[i] = coded
    values: dict[int, dict[int, _Values]] = {}
    for (mode, number, level), streams in alike.items():
        if mode == TileMode.CORRECTED:
            found = _synthesise(streams, level, engine, tile, clock, 0, "float32")
        elif surroundings is not None:
            found = _synthesise_joined(streams, number, level, engine, tile, clock, surroundings)
        else:
            found = _synthesise(streams, level, engine, tile, clock, coding.halo)
        count = coding.bands if coding.transform is None else coding.transform.passes[number]
        for i, result in found.items():
            planes = result if isinstance(result, CorruptTileError) else to_bands(result, count)
            values.setdefault(i, {})[number] = planes
    if surroundings is not None:
        results = results[: surroundings.wanted]
    with clock("tiles"):
        for i, payload in enumerate(results):
            if isinstance(payload, TilePayload):
                results[i] = _or_error(_restore, payload, values.get(i, {}), coding, tile)
    return results


def _passes(payload: TilePayload, coding: GroupCoding) -> list[tuple[int, bytes]]:
    """Level and entropy stream of each pass through the network."""
    if payload.mode != TileMode.COMPONENTS or coding.transform is None:
        return [(payload.level, payload.stream)]
    streams = payload.streams(len(coding.transform.passes))
    return [(coding.transform.level(number, payload.level), stream) for number, stream in enumerate(streams)]


def _unpack(data: bytes, coding: GroupCoding, tile: int) -> TilePayload:
    payload, whole = TilePayload.unpack(data), latents_of(tile, tile)
    if payload.extent is not None and (payload.extent == whole or max(payload.extent) > whole.y):
        raise CorruptTileError(f"an extent of {tuple(payload.extent)} latents is not for a tile of {tuple(whole)}")
    if payload.mode in (TileMode.LATENT, TileMode.COMPONENTS) and coding.max_error is not None:
        raise CorruptTileError(f"the scene bounds its errors, and a {payload.mode.name} tile has no bound")
    if coding.transform is not None and payload.mode in (TileMode.LATENT, TileMode.CORRECTED):
        raise CorruptTileError(f"the bands have a transform, and a {payload.mode.name} tile knows none")
    if payload.mode == TileMode.COMPONENTS:
        if coding.transform is None:
            raise CorruptTileError("a COMPONENTS tile among bands without a transform")
        payload.streams(len(coding.transform.passes))
    return payload


def _fitting(payload: TilePayload, surroundings: Surroundings, place: TileIndex) -> TilePayload:
    """The payload, unless it holds fewer or more latents than its place in the scene has."""
    if payload.mode in (TileMode.LATENT, TileMode.COMPONENTS):
        box = surroundings.grid.tile_box(place)
        expected = latents_of(box.height, box.width)
        if payload.extent not in (None, expected):
            raise CorruptTileError(
                f"an extent of {tuple(payload.extent)} latents where the scene has {tuple(expected)}"
            )
    return payload


class _Coded(NamedTuple):
    """What a pass of a tile is decoded from."""

    stream: bytes
    extent: Shape2d


def _synthesise(
    streams: Mapping[int, _Coded],
    level: int,
    engine: _Decoder | None,
    tile: int,
    clock: StageClock,
    halo: int,
    precision: Precision | None = None,
) -> dict[int, _Values]:
    """The network's output for each stream, or what is wrong with it; each tile by itself."""
    if engine is None or tile % engine.tile_multiple:
        return dict.fromkeys(streams, _unusable(engine, tile))
    coded, extents = zip(*streams.values(), strict=True)
    y, intact = engine.decode_latents(coded, level, tile, clock, extents=extents)
    if halo:
        from .seams import alone, with_neighbours

        # Where a tile ends with the scene, it has no neighbour.
        whole = latents_of(tile, tile)
        sides = [Sides(1, int(rows == whole.y), 1, int(columns == whole.x)) for rows, columns in extents]
        margined = with_neighbours(y, alone(len(y)))
        pixels = engine.synthesise(margined, level, clock, sides=sides, extents=extents)
    else:
        pixels = engine.synthesise(y, level, clock, precision=precision, extents=extents)
    return {i: p if ok else _desynchronised() for i, p, ok in zip(streams, pixels, intact, strict=True)}


def _synthesise_joined(
    streams: Mapping[int, _Coded],
    number: int,
    level: int,
    engine: _Decoder | None,
    tile: int,
    clock: StageClock,
    surroundings: Surroundings,
) -> dict[int, _Values]:
    """The same for the tiles that are wanted, each with the facing latents of its neighbours."""
    if engine is None or tile % engine.tile_multiple:
        return dict.fromkeys(streams, _unusable(engine, tile))
    from .seams import with_neighbours

    places, known = surroundings.places, surroundings.known
    values: dict[int, _Values] = {}
    if todo := [i for i in streams if (number, places[i]) not in known]:
        coded, extents = zip(*(streams[i] for i in todo), strict=True)
        y, intact = engine.decode_latents(coded, level, tile, clock, extents=extents)
        known |= {(number, places[i]): (level, latents) for i, latents, ok in zip(todo, y, intact, strict=True) if ok}
        values = {i: _desynchronised() for i, ok in zip(todo, intact, strict=True) if not ok}
    if wanted := [i for i in streams if i < surroundings.wanted and i not in values]:
        here = [places[i] for i in wanted]
        sides = [surroundings.grid.sides(place) for place in here]
        margined = with_neighbours(*surroundings.rows(here, number, level))
        kept = [streams[i].extent for i in wanted]
        pixels = engine.synthesise(margined, level, clock, sides=sides, extents=kept)
        values |= zip(wanted, pixels, strict=True)
    return values


def _unusable(engine: _Decoder | None, tile: int) -> CorruptTileError:
    if engine is None:
        return CorruptTileError("the tile needs a network, but its scene names no weights")
    return CorruptTileError(f"the scene's network codes no tiles of {tile} pixels")


def _desynchronised() -> DesynchronisedError:
    return DesynchronisedError("the entropy stream does not decode to the latents it was made from")


def _or_error(function: Any, *arguments: Any) -> Any:
    """A tile's result, or its error as a value: one damaged tile must not take its neighbours with it."""
    try:
        return function(*arguments)
    except CorruptTileError as error:
        return error


def _restore(payload: TilePayload, found: Mapping[int, _Values], coding: GroupCoding, tile: int) -> Pixels:
    """Pixels of one tile from its payload and, where its mode takes them, the planes that the network made by pass."""
    outputs: dict[int, NDArray[np.float32]] = {}
    for number, output in found.items():
        if isinstance(output, CorruptTileError):
            raise output
        outputs[number] = output
    shape = (coding.bands, tile, tile)
    if payload.mode == TileMode.LOSSLESS:
        return decode_lossless(payload.body, shape, coding.dtype)
    valid = decode_mask(payload.mask, shape) if payload.mask is not None else None
    if payload.mode == TileMode.EMPTY:
        valid = np.zeros(shape, bool)
    if payload.mode in (TileMode.LATENT, TileMode.COMPONENTS):
        values = outputs[0] if coding.transform is None else _mixed(outputs, coding.transform, tile)
        pixels = from_model(values, coding.mapping, coding.dtype, coding.nodata)
    elif payload.mode == TileMode.PREDICTED:
        pixels = decode_pixels(payload.body, _predictable(payload, valid, shape, coding.dtype), coding.dtype)
    elif payload.mode == TileMode.CORRECTED:
        base = base_pixels(outputs[0], coding.mapping)
        known = _predictable(payload, valid, shape, coding.dtype)
        pixels = add_correction(payload.correction, base, known, coding.dtype, coding.nodata)
    else:
        pixels = _constant(payload, shape, coding.dtype)
    if payload.outliers is not None:
        decode_outliers(payload.outliers, pixels)
    if valid is not None:
        _fill_holes(pixels, valid, coding)
    return pixels


def _mixed(outputs: Mapping[int, NDArray[np.float32]], transform: ComponentTransform, tile: int) -> NDArray[np.float32]:
    """All bands from the planes of each pass; what has no stream is grey."""
    grey = [np.full((count, tile, tile), 0.5, np.float32) for count in transform.passes]
    return transform.bands([outputs.get(number, planes) for number, planes in enumerate(grey)])


def _predictable(payload: TilePayload, valid: Mask | None, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Mask:
    """The pixels of a PREDICTED or CORRECTED tile that its predictive stream holds: neither masked nor outliers."""
    known = np.ones(shape, bool) if valid is None else valid
    return known if payload.outliers is None else known & ~outlier_mask(payload.outliers, shape, dtype)


def _constant(payload: TilePayload, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Pixels:
    if payload.mode == TileMode.EMPTY:
        return np.zeros(shape, dtype)
    if len(payload.body) != shape[0] * dtype.itemsize:
        raise CorruptTileError(f"a CONSTANT tile of {shape[0]} band(s) has a body of {len(payload.body)} bytes")
    values = np.frombuffer(payload.body, dtype.newbyteorder("<")).astype(dtype, copy=False)
    return np.repeat(values, shape[1] * shape[2]).reshape(shape)


def _fill_holes(pixels: Pixels, valid: Mask, coding: GroupCoding) -> None:
    for plane, band_valid, fill in zip(pixels, valid, coding.holes, strict=True):
        if fill is None:
            if not band_valid.all():
                raise CorruptTileError("the tile has masked pixels, but its scene says none are")
        else:
            plane[~band_valid] = fill


# --- for others ------------------------------------------------------------------------------------------------------


def check_latents(
    payloads: Sequence[bytes],
    coding: GroupCoding,
    engine: Engine | None,
    tile: int,
    *,
    surroundings: Surroundings | None = None,
) -> list[CorruptTileError | None]:
    """Decode everything of the tiles but the network's pixels: sections, latents and their checksum; None = sound.

    Parameters are those of `decode_tiles`. Without `surroundings`, nobody notices latents that do not fit the place.
    """
    decoder = engine and _LatentsOnly(engine)
    decoded = decode_tiles(payloads, coding, decoder, tile, surroundings=surroundings)
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
    payload, shape = _unpack(data, coding, tile), (coding.bands, tile, tile)
    if payload.mode == TileMode.EMPTY:
        return np.zeros(shape, bool)
    if not payload.mode.networked:  # holes may be among the pixels: NaN, or zeros, have more than one form
        return valid_pixels(_restore(payload, {}, coding, tile), coding.nodata, mask)
    valid = decode_mask(payload.mask, shape) if payload.mask is not None else np.ones(shape, bool)
    return valid if mask is None else valid & mask


class _LatentsOnly:
    """An engine that decodes latents for real, but leaves the pixels grey: g_s cannot fail on sound latents."""

    def __init__(self, engine: Engine):
        self.tile_multiple, self.decode_latents = engine.tile_multiple, engine.decode_latents

    def synthesise(
        self,
        y: torch.Tensor,
        level: int,
        clock: StageClock,
        *,
        sides: Sequence[Sides] | None = None,
        extents: Sequence[Shape2d] | None = None,
        precision: Precision | None = None,
    ) -> NDArray[np.float32]:
        side = 16 * (y.shape[-1] - (0 if sides is None else 2))  # where sides are told, there is a margin
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
    CorruptContainerError
        The array's chunks are no tiles of as many bands as the configuration is for.
    WeightsNotFoundError
        The weights the configuration names are not installed.
    """
    from ._json import decode_number
    from .engine import load_engine
    from .scene_meta import MAX_TILE

    bands, dtype = len(configuration["mapping"]), np.dtype(dtype)
    if shape not in [(bands, side, side) for side in range(TILE_MULTIPLE, MAX_TILE + 1, TILE_MULTIPLE)]:
        raise CorruptContainerError(f"chunks of shape {shape} are no tiles of {bands} band(s)")
    if dtype.name not in EXACT_DTYPES:
        raise CorruptContainerError(f"tiles have no pixels of type {dtype}")
    mapping = tuple(BandMapping(*(float(decode_number(n) or 0.0) for n in m)) for m in configuration["mapping"])
    fill, nodata = (tuple(decode_number(n) for n in configuration[key]) for key in ("fill", "nodata"))
    found = configuration.get("transform")
    transform = None if found is None else ComponentTransform.from_dict(found)
    coding = GroupCoding(dtype, mapping, fill, nodata, configuration.get("halo", 0), transform=transform)
    engine = load_engine(configuration["weights"]) if configuration["weights"] else None
    return decode_tiles(payloads, coding, engine, shape[-1])
