"""Windows of a compressed scene as pixels: what decompressing, measuring and lazy opening have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .container import BandGroup, ContainerReader, SceneMeta
from .errors import CorruptTileError
from .scene_meta import array_path
from .tile_coding import GroupCoding
from .tile_decoder import decode_tiles, tile_validity
from .timing import StageClock
from .types import PixelBox, TileIndex

if TYPE_CHECKING:
    from .engine import Engine
    from .seams import LatentCache

__all__ = ["DamagedTile", "SceneDecoder", "group_coding"]


@dataclass(frozen=True)
class DamagedTile:
    """A tile that could not be decoded: its array (of an overview as in ``1/g0``), row and column, and why."""

    array: str
    tile: TileIndex
    message: str


def group_coding(meta: SceneMeta, group: BandGroup) -> GroupCoding:
    """How the tiles of a group are coded."""
    promised = meta.guarantee
    bounds = None if promised is None else tuple(promised.max_error[band] for band in group.bands)
    return GroupCoding(
        np.dtype(meta.dtype), group.mapping, group.fill, meta.nodata(group), meta.halo, bounds, group.transform
    )


class SceneDecoder:
    """Decodes windows of an open scene. Thread-safe.

    Parameters
    ----------
    reader : ContainerReader
    device : str
    allow_damaged : bool
        Put fill values (0 where a band has none) in place of damaged tiles and list them in `damaged`, instead of
        raising.

    Attributes
    ----------
    damaged : list of DamagedTile
        Those that were met, each once.
    """

    def __init__(
        self,
        reader: ContainerReader,
        device: str = "auto",
        *,
        allow_damaged: bool = False,
        clock: StageClock | None = None,
    ):
        self.reader, self.meta = reader, reader.meta
        self._damaged: dict[tuple[str, TileIndex], DamagedTile] = {}
        self._device, self._allow_damaged = device, allow_damaged
        self._clock = clock or StageClock()

    @property
    def damaged(self) -> list[DamagedTile]:
        """See the class."""
        return list(self._damaged.values())

    @cached_property
    def _latents(self) -> LatentCache:
        from .seams import LatentCache

        return LatentCache()

    @cached_property
    def engine(self) -> Engine | None:
        """The network the scene's tiles were coded with."""
        if self.meta.weights is None:
            return None  # and PyTorch is not even loaded
        from .engine import load_engine

        return load_engine(self.meta.weights, self._device)

    def read(self, box: PixelBox, bands: Sequence[int] | None = None, pyramid: int = 0) -> NDArray[Any]:
        """Decode a window.

        Parameters
        ----------
        box : PixelBox
            Inside the pyramid level, in its pixels.
        bands : 0-based band numbers
            In the order wanted; all if None. Only the groups they belong to are decoded.
        pyramid : int
            Pyramid level; 0 is full resolution.

        Returns
        -------
        (bands, box.height, box.width) in the scene's data type.

        Raises
        ------
        CorruptTileError
            Unless damaged tiles are allowed.
        """
        wanted = range(len(self.meta.bands)) if bands is None else bands
        out = np.empty((len(wanted), box.height, box.width), self.meta.dtype)
        for group in self.meta.groups:
            if any(band in group.bands for band in wanted):
                pixels = self.read_group(group, box, pyramid)
                for position, band in enumerate(wanted):
                    if band in group.bands:
                        out[position] = pixels[group.bands.index(band)]
        for position, band in enumerate(wanted):
            if band == self.meta.alpha:
                out[position] = self.read_plane("alpha", box, pyramid)
        return out

    def read_group(self, group: BandGroup, box: PixelBox, pyramid: int = 0) -> NDArray[Any]:
        """Decode a window of one band group: (group bands, box.height, box.width)."""
        grid, coding = self.reader.grids[pyramid], group_coding(self.meta, group)
        out = np.empty((coding.bands, box.height, box.width), coding.dtype)
        tiles = grid.covering(box)
        with self._clock("read"):
            stored = {tile: self._payload(group.name, tile, pyramid) for tile in tiles}
        sound = {tile: data for tile, data in stored.items() if isinstance(data, bytes)}
        decoded = self._decode(group, sound, pyramid) if sound else []
        results: dict[TileIndex, Any] = {**stored, **dict(zip(sound, decoded, strict=True))}
        for tile in tiles:
            pixels = results[tile]
            if isinstance(pixels, CorruptTileError):
                self._report(array_path(group.name, pyramid), tile, pixels)
                fill = np.array([0 if value is None else value for value in coding.holes], coding.dtype)
                pixels = np.broadcast_to(fill[:, None, None], (coding.bands, self.meta.tile, self.meta.tile))
            whole = grid.tile_box(tile)
            common = whole.intersection(box)
            if common is not None:
                source, target = common.relative_to(whole).slices, common.relative_to(box).slices
                out[:, target[0], target[1]] = pixels[:, source[0], source[1]]
        return out

    def _decode(self, group: BandGroup, sound: dict[TileIndex, bytes], pyramid: int) -> list[Any]:
        """Pixels, or what is wrong, of tiles whose bytes are there; with the neighbours that the network has to see."""
        coding, side = group_coding(self.meta, group), self.meta.tile
        if not coding.halo:
            return decode_tiles(list(sound.values()), coding, self.engine, side, self._clock)
        from .seams import Surroundings

        grid = self.reader.grids[pyramid]
        ring = [tile for tile in dict.fromkeys(chain.from_iterable(map(grid.around, sound))) if tile not in sound]
        passes = range(1 if group.transform is None else len(group.transform.passes))
        known = self._latents.get(pyramid, group.name, product(passes, [*sound, *ring]))
        unknown = [tile for tile in ring if any((number, tile) not in known for number in passes)]
        with self._clock("read"):
            found = {tile: self._payload(group.name, tile, pyramid) for tile in unknown}
        payloads = sound | {tile: data for tile, data in found.items() if isinstance(data, bytes)}
        surroundings = Surroundings(grid, list(payloads), len(sound), known)
        decoded = decode_tiles(
            list(payloads.values()), coding, self.engine, side, self._clock, surroundings=surroundings
        )
        self._latents.put(pyramid, group.name, surroundings.rim())
        return decoded

    def read_plane(self, name: str, box: PixelBox, pyramid: int = 0) -> NDArray[Any]:
        """A window of the exact plane "alpha" or "mask"; damaged tiles read as 0 (not valid) where they are allowed."""
        out, grid = np.zeros((box.height, box.width), self.meta.array_dtype(name)), self.reader.grids[pyramid]
        for tile in grid.covering(box):
            common = grid.tile_box(tile).intersection(box)
            if common is None:
                continue
            try:
                with self._clock("read"):
                    out[common.relative_to(box).slices] = self.reader.plane(name, common, pyramid)
            except CorruptTileError as error:
                self._report(array_path(name, pyramid), tile, error)
        return out

    def read_mask(self, box: PixelBox, pyramid: int = 0) -> NDArray[np.bool_] | None:
        """What the mask or alpha band says: (box.height, box.width), True = valid; None without such a band."""
        plane = "mask" if self.meta.mask else "alpha"
        return self.read_plane(plane, box, pyramid) != 0 if plane in self.meta.planes else None

    def read_valid(self, box: PixelBox, pyramid: int = 0) -> NDArray[np.bool_]:
        """Where any band but alpha holds data: (box.height, box.width) bool. Needs no network.

        Raises
        ------
        CorruptTileError
        """
        mask = self.read_mask(box, pyramid)
        groups = [group for group in self.meta.groups if self._has_own_holes(group)]
        if len(groups) < len(self.meta.groups):
            return np.ones((box.height, box.width), bool) if mask is None else mask
        grid, out = self.reader.grids[pyramid], np.zeros((box.height, box.width), bool)
        for tile in grid.covering(box):
            whole = grid.tile_box(tile)
            if (common := whole.intersection(box)) is not None:
                rows, columns = common.relative_to(whole).slices
                target = common.relative_to(box).slices
                for group in groups:
                    for band in self._tile_valid(group, tile, pyramid)[:, rows, columns]:
                        out[target] |= band
        return out

    def _has_own_holes(self, group: BandGroup) -> bool:
        """Whether every band of a group may have holes that no mask or alpha band knows of."""
        if None in group.fill:
            return False
        return not self.meta.planes or None not in self.meta.nodata(group)

    def _tile_valid(self, group: BandGroup, tile: TileIndex, pyramid: int) -> NDArray[np.bool_]:
        side, path = self.meta.tile, array_path(group.name, pyramid)
        mask = self.read_mask(self.reader.grids[pyramid].tile_box(tile), pyramid)
        if mask is not None:
            mask = np.pad(mask, ((0, side - mask.shape[0]), (0, side - mask.shape[1])))
        payload = self.reader.tile_payload(group.name, tile, pyramid)
        try:
            return tile_validity(payload, group_coding(self.meta, group), side, mask)
        except CorruptTileError as error:
            raise CorruptTileError(
                f"{self.reader.path}: tile ({tile.iy}, {tile.ix}) of {path}: {error}", array=path, tile=tile
            ) from error

    def _payload(self, array: str, tile: TileIndex, pyramid: int) -> bytes | CorruptTileError:
        try:
            return self.reader.tile_payload(array, tile, pyramid)
        except CorruptTileError as error:
            return error

    def _report(self, array: str, tile: TileIndex, error: CorruptTileError) -> None:
        message = str(error)
        if error.tile is None:  # found while decoding, where a tile does not know its place
            message = f"{self.reader.path}: tile ({tile.iy}, {tile.ix}) of {array}: {message}"
        if not self._allow_damaged:
            advice = (
                "`ltchm decompress --allow-damaged` (decompress_raster(allow_damaged=True)) restores all other tiles"
            )
            raise type(error)(f"{message}; {advice}", array=array, tile=tile) from error
        self._damaged[array, tile] = DamagedTile(array, tile, message)
