"""Windows of a compressed scene as pixels: what decompressing, measuring and lazy opening have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .codec import GroupCoding, decode_tiles
from .container import BandGroup, ContainerReader, SceneMeta
from .engine import Engine, load_engine
from .errors import CorruptTileError
from .timing import StageClock
from .types import PixelBox, TileIndex

__all__ = ["DamagedTile", "SceneDecoder", "group_coding"]


@dataclass(frozen=True)
class DamagedTile:
    """A tile that could not be decoded: its array, its row and column in the tile grid, and why."""

    array: str
    tile: TileIndex
    message: str


def group_coding(meta: SceneMeta, group: BandGroup) -> GroupCoding:
    """How the tiles of a group are coded."""
    return GroupCoding(np.dtype(meta.dtype), group.mapping, group.fill, meta.nodata(group))


class SceneDecoder:
    """Decodes windows of an open scene. Thread-safe.

    Parameters
    ----------
    reader : ContainerReader
    device : str
    allow_damaged : bool
        Put fill values (0 where a band has none) in place of damaged tiles and list them in `damaged`, instead of
        raising.
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
        self.damaged: list[DamagedTile] = []
        self._device, self._allow_damaged = device, allow_damaged
        self._clock = clock or StageClock()

    @cached_property
    def engine(self) -> Engine | None:
        """The network the scene's tiles were coded with."""
        return load_engine(self.meta.weights, self._device) if self.meta.weights else None

    def read(self, box: PixelBox, bands: Sequence[int] | None = None) -> NDArray[Any]:
        """Decode a window.

        Parameters
        ----------
        box : PixelBox
            Inside the scene.
        bands : 0-based band numbers
            In the order wanted; all if None. Only the groups they belong to are decoded.

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
                pixels = self.read_group(group, box)
                for position, band in enumerate(wanted):
                    if band in group.bands:
                        out[position] = pixels[group.bands.index(band)]
        for position, band in enumerate(wanted):
            if band == self.meta.alpha:
                out[position] = self.read_plane("alpha", box)
        return out

    def read_group(self, group: BandGroup, box: PixelBox) -> NDArray[Any]:
        """Decode a window of one band group: (group bands, box.height, box.width)."""
        grid, coding = self.reader.grid, group_coding(self.meta, group)
        out = np.empty((coding.bands, box.height, box.width), coding.dtype)
        tiles = grid.covering(box)
        with self._clock("read"):
            stored = {tile: self._payload(group.name, tile) for tile in tiles}
        sound = {tile: data for tile, data in stored.items() if isinstance(data, bytes)}
        engine = self.engine if sound else None
        decoded = decode_tiles(list(sound.values()), coding, engine, self.meta.tile, self._clock)
        results: dict[TileIndex, Any] = {**stored, **dict(zip(sound, decoded, strict=True))}
        for tile in tiles:
            pixels = results[tile]
            if isinstance(pixels, CorruptTileError):
                self._report(group.name, tile, pixels)
                fill = np.array([0 if value is None else value for value in group.fill], coding.dtype)
                pixels = np.broadcast_to(fill[:, None, None], (coding.bands, self.meta.tile, self.meta.tile))
            whole = grid.tile_box(tile)
            common = whole.intersection(box)
            if common is not None:
                source, target = common.relative_to(whole).slices, common.relative_to(box).slices
                out[:, target[0], target[1]] = pixels[:, source[0], source[1]]
        return out

    def read_plane(self, name: str, box: PixelBox) -> NDArray[Any]:
        """A window of the exact plane "alpha" or "mask"; damaged tiles read as 0 (not valid) where they are allowed."""
        out = np.zeros((box.height, box.width), self.meta.array_dtype(name))
        for tile in self.reader.grid.covering(box):
            common = self.reader.grid.tile_box(tile).intersection(box)
            if common is None:
                continue
            try:
                with self._clock("read"):
                    out[common.relative_to(box).slices] = self.reader.plane(name, common)
            except CorruptTileError as error:
                self._report(name, tile, error)
        return out

    def _payload(self, array: str, tile: TileIndex) -> bytes | CorruptTileError:
        try:
            return self.reader.tile_payload(array, tile)
        except CorruptTileError as error:
            return error

    def _report(self, array: str, tile: TileIndex, error: CorruptTileError) -> None:
        message = str(error)
        if error.tile is None:  # found while decoding, where a tile does not know its place
            message = f"{self.reader.path}: tile ({tile.iy}, {tile.ix}) of {array}: {message}"
        if not self._allow_damaged:
            advice = "all other tiles can be restored with --allow-damaged (allow_damaged=True)"
            raise type(error)(f"{message}; {advice}", array=array, tile=tile) from error
        self.damaged.append(DamagedTile(array, tile, message))
