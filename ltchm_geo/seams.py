"""Tiles that see one latent of their neighbours, so that nobody sees where they meet (docs/decisions/0008-seams.md).

What g_s makes of a tile depends on that tile, on the facing latents of its up to eight neighbours, and on nothing else:
not on the window that is read, nor on what is decoded together. A neighbour without latents of the same level (damaged,
exact, empty) is replaced by the tile's own outermost latents.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from .nn.transforms import trim
from .tiles import TileGrid
from .types import Shape2d, Sides, TileIndex

__all__ = ["LatentCache", "Part", "Surroundings", "alike", "alone", "in_order", "with_neighbours"]

_CACHE_BYTES = 64 << 20

Spot = tuple[int, TileIndex]  # a pass through the network, and a tile

#: Rows (or columns) of a tile's margin of one, of the neighbour that they come from, and of the tile itself.
_MARGIN = {-1: slice(0, 1), 0: slice(1, -1), 1: slice(-1, None)}
_FACING = {-1: slice(-1, None), 0: slice(None), 1: slice(0, 1)}
_OWN = {-1: slice(0, 1), 0: slice(None), 1: slice(-1, None)}
_DIRECTIONS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]


# --- tiles with a margin ---------------------------------------------------------------------------------------------


def with_neighbours(y: torch.Tensor, rows: NDArray[np.intp]) -> torch.Tensor:
    """Latents of tiles with a margin of one.

    Parameters
    ----------
    y : (K, M, h, w)
        Latents of tiles, in any order.
    rows : (B, 3, 3)
        Per tile wanted, where in `y` its neighbours are, and in the middle itself; -1 for those that are not there.

    Returns
    -------
    (B, M, h + 2, w + 2). What is missing repeats the nearest latent of the tile itself.
    """
    own = y[torch.from_numpy(rows[:, 1, 1]).to(y.device)]
    count, channels, height, width = own.shape
    out = own.new_empty(count, channels, height + 2, width + 2)
    for dy, dx in _DIRECTIONS:
        out[:, :, _MARGIN[dy], _MARGIN[dx]] = own[:, :, _OWN[dy], _OWN[dx]]
        found = np.flatnonzero(rows[:, 1 + dy, 1 + dx] >= 0)
        if (dy or dx) and found.size:
            source = torch.from_numpy(rows[found, 1 + dy, 1 + dx]).to(y.device)
            target = torch.from_numpy(found).to(y.device)
            out[target, :, _MARGIN[dy], _MARGIN[dx]] = y[source][:, :, _FACING[dy], _FACING[dx]]
    return out


def alone(count: int) -> NDArray[np.intp]:
    """The `rows` of `with_neighbours` for tiles of which no neighbour is known."""
    rows = np.full((count, 3, 3), -1, np.intp)
    rows[:, 1, 1] = np.arange(count)
    return rows


class Members(Protocol):
    """Something made of some of the tiles."""

    @property
    def members(self) -> list[int]:
        """Their numbers."""


class Part(NamedTuple):
    """Tiles that pass the network together: they have neighbours on the same sides, and are of one size."""

    members: list[int]
    tiles: torch.Tensor
    sides: Sides


def alike(
    tiles: torch.Tensor,
    sides: Sequence[Sides] | None,
    batch: int,
    margin: int,
    beyond: Sequence[Shape2d] | None = None,
) -> list[Part]:
    """Cut tiles (B, C, H, W) into parts of at most `batch`.

    Parts are without the `margin` on sides that have no neighbour, and without the rows below and the columns to the
    right that `beyond` tells for each tile: they lie beyond the scene.
    """
    kinds: dict[tuple[Sides, Shape2d], list[int]] = {}
    every = sides if sides is not None else [Sides()] * len(tiles)
    for number, key in enumerate(zip(every, beyond or [Shape2d(0, 0)] * len(tiles), strict=True)):
        kinds.setdefault(key, []).append(number)
    found = []
    for (kind, (rows, columns)), members in kinds.items():
        top, bottom, left, right = (margin * (1 - side) for side in kind) if sides is not None else Sides()
        outside = Sides(top, bottom + rows, left, right + columns)
        for first in range(0, len(members), batch):
            some = members[first : first + batch]
            found.append(Part(some, trim(tiles[some], outside), kind))
    return found


def in_order(results: Sequence[torch.Tensor], parts: Sequence[Members]) -> torch.Tensor:
    """The results of all parts, tile by tile as they came."""
    order, together = torch.tensor([number for part in parts for number in part.members]), torch.cat(list(results))
    return together if bool((order[1:] > order[:-1]).all()) else together[order.argsort().to(together.device)]


# --- tiles in their place --------------------------------------------------------------------------------------------


class LatentCache:
    """Latents of tiles at the rim of what was decoded, as their neighbours will be asked for next. Thread-safe.

    Keys are (pyramid level, array, pass and tile); values the pass's quality level and latents (M, h, w).
    """

    def __init__(self, limit: int = _CACHE_BYTES):
        self._limit, self._bytes, self._lock = limit, 0, threading.Lock()
        self._kept: OrderedDict[tuple[int, str, Spot], tuple[int, torch.Tensor]] = OrderedDict()

    def get(self, pyramid: int, array: str, spots: Iterable[Spot]) -> dict[Spot, tuple[int, torch.Tensor]]:
        """Those of `spots` that are there."""
        found = {}
        with self._lock:
            for spot in spots:
                if (key := (pyramid, array, spot)) in self._kept:
                    self._kept.move_to_end(key)
                    found[spot] = self._kept[key]
        return found

    def put(self, pyramid: int, array: str, latents: Mapping[Spot, tuple[int, torch.Tensor]]) -> None:
        """Keep these, and forget what was not asked for longest."""
        for spot, (level, y) in latents.items():
            small = y.to(torch.int16)
            kept = small if bool((small == y).all()) else y.clone()  # a view would keep its whole batch in memory
            with self._lock:
                if (key := (pyramid, array, spot)) in self._kept:
                    continue
                self._kept[key] = (level, kept)
                self._bytes += kept.nbytes
                while self._bytes > self._limit:
                    self._bytes -= self._kept.popitem(last=False)[1][1].nbytes


@dataclass(frozen=True)
class Surroundings:
    """Where tiles that are decoded together lie, for a network that sees their neighbours.

    Attributes
    ----------
    grid : TileGrid
    places : sequence of TileIndex
        Of each payload. Those after the first `wanted` are neighbours whose pixels nobody wants.
    wanted : int
    known : dict
        By pass and tile, level and latents (M, h, w) that need not be decoded; those that are decoded are added.
    """

    grid: TileGrid
    places: Sequence[TileIndex]
    wanted: int
    known: dict[Spot, tuple[int, torch.Tensor]]

    def rows(self, places: Sequence[TileIndex], number: int, level: int) -> tuple[torch.Tensor, NDArray[np.intp]]:
        """`y` and `rows` for `with_neighbours` of a pass of the tiles at `places`, all known and of this level."""
        numbers: dict[TileIndex, int] = {}
        rows = np.full((len(places), 3, 3), -1, np.intp)
        for row, place in zip(rows, places, strict=True):
            for tile in (place, *self.grid.around(place)):
                if self.known.get((number, tile), (None, None))[0] == level:
                    row[tile.iy - place.iy + 1, tile.ix - place.ix + 1] = numbers.setdefault(tile, len(numbers))
        return torch.stack([self.known[number, tile][1].int() for tile in numbers]), rows

    def rim(self) -> dict[Spot, tuple[int, torch.Tensor]]:
        """What is known of the tiles that have neighbours among those not wanted here, or are such themselves."""
        inside = set(self.places[: self.wanted])
        return {
            (number, tile): found
            for (number, tile), found in self.known.items()
            if tile not in inside or not inside.issuperset(self.grid.around(tile))
        }
