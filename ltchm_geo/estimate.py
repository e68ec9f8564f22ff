"""`estimate_raster`: what compressing a raster would give, from a sample of its tiles and one window to look at."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ._sink import explained
from .base_choice import choose_engine
from .container import BandGroup, SceneMeta
from .engine import Engine
from .errors import CorruptTileError, UsageError
from .masks import valid_pixels
from .metrics import ErrorStats, known_peak
from .picture import Stretch, display_bands, write_png
from .place import check_place, window_box
from .plan import DOCUMENT_BYTES, describe_scene
from .raster import Source, open_source
from .sampling import code_plane, read_tiles, spread
from .scene_decoder import group_coding
from .schedule import Progress, Ticker
from .seams import Surroundings
from .settings import CompressSettings, as_tuple
from .tile_decoder import decode_tiles
from .tile_encoder import encode_tiles
from .tiles import DEFAULT_TILE, TileGrid, automatic_shard
from .timing import StageClock
from .types import Bounds, PixelBox, TileIndex

__all__ = ["AMPLIFICATION", "Estimate", "estimate_raster", "estimate_scene"]

#: The difference picture shows errors this many times larger than they are, around mid-grey.
AMPLIFICATION = 8
_SAMPLES = 24
_DEFAULT_WINDOW = 512
_MAX_WINDOW = 2048
_MIN_PLACE = 64  # pixels a side; less says nothing about quality
_PER_TILE = 20  # its checksum and its slot in the index
#: What a pixel of an overview costs over one of full resolution (1.3 to 1.4 on a 6000 x 6000 mosaic), and the bytes of
#: a stored preview.
_OVERVIEW_PIXEL, _PREVIEW = 1.35, 60_000

_BATCH = 8

Pixels = NDArray[Any]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """What compressing would give.

    Attributes
    ----------
    bytes, bytes_low, bytes_high : int
        Size of the scene: the estimate, and two standard errors to either side.
    raw_bytes, source_bytes : int
        Of the pixels uncompressed; of the source's files (None where it has none).
    bpp, ratio : float
        As in `CompressResult`.
    level : int
        Quality level; 0 where no network is used.
    tiles, sampled_tiles : int
        Tile positions in all, and how many of them were coded to find out.
    window : PixelBox
        The part that was restored.
    psnr, max_error : tuple of float
        Of the window, per band without alpha, as in `CompressResult`.
    images : dict
        "original", "restored" and "difference": PNG files of the window, if a folder was given.
    amplification : int
        By how much the difference is amplified.
    missed : bool
        Whether the raster does not touch the bounds that were asked for, so that its middle was looked at.
    """

    bytes: int
    bytes_low: int
    bytes_high: int
    raw_bytes: int
    source_bytes: int | None
    bpp: float
    ratio: float
    level: int
    tiles: int
    sampled_tiles: int
    window: PixelBox
    psnr: tuple[float, ...]
    max_error: tuple[float, ...]
    images: dict[str, Path]
    amplification: int = AMPLIFICATION
    missed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {**asdict(self), "images": {name: str(path) for name, path in self.images.items()}}


def estimate_raster(
    src: str | os.PathLike[str] | Any,
    *,
    quality: int | None = None,
    lambda_: float | None = None,
    lossless: bool = False,
    max_error: float | Sequence[float] | None = None,
    nodata: float | None = None,
    model: str | None = None,
    device: str = "auto",
    tile_size: int = DEFAULT_TILE,
    overviews: Sequence[int] | Literal[False] | None = None,
    decorrelate: bool = True,
    window: tuple[int, int, int, int] | None = None,
    bounds: Bounds | None = None,
    images: str | os.PathLike[str] | None = None,
    samples: int = _SAMPLES,
    progress: Progress | None = None,
) -> Estimate:
    """Estimate the size of a compressed scene, and restore one window of it to look at. Writes no scene.

    Tiles spread evenly over the scene are coded for real; the rest is taken to cost as much. Overviews and preview,
    where the scene has them, are counted by rule of thumb.

    Parameters
    ----------
    src, quality, lambda_, lossless, max_error, nodata, model, device, tile_size, overviews, decorrelate
        As in `compress_raster`.
    window : (row, column, height, width), optional
        What to restore, at most 2048 pixels a side. Default: 512 x 512 pixels in the middle.
    bounds : (x_min, y_min, x_max, y_max), optional
        Instead, a place in the raster's CRS, such as what a map shows: its middle is restored, at most 512 x 512 pixels
        and no less than 64 x 64. The raster's own middle if it is not there, or has no transform.
    images : path, optional
        A folder, made if there is none, for original.png, restored.png and difference.png of the window, stretched
        alike.
    samples : int
        Number of tiles to code, at least 1; all tiles if there are no more.
    progress : callable, optional
        Called with (tiles done, tiles in all).

    Raises
    ------
    SourceError, UnsupportedRasterError, WeightsError, DeviceError, UsageError, DestinationError
    """
    settings = CompressSettings(
        quality=quality,
        lambda_=lambda_,
        lossless=lossless,
        max_error=as_tuple(max_error),
        nodata=nodata,
        model=model,
        device=device,
        tile_size=tile_size,
        overviews=as_tuple(overviews),
        decorrelate=decorrelate,
    )
    return estimate_scene(
        src, settings, window=window, bounds=bounds, images=images, samples=samples, progress=progress
    )


def estimate_scene(
    src: str | os.PathLike[str] | Any,
    settings: CompressSettings,
    *,
    window: tuple[int, int, int, int] | None = None,
    bounds: Bounds | None = None,
    images: str | os.PathLike[str] | None = None,
    samples: int = _SAMPLES,
    progress: Progress | None = None,
) -> Estimate:
    """As `estimate_raster`, of a single file made with `settings`. Targets of theirs are not looked at."""
    tile_size = settings.tile_size
    if samples < 1:
        raise UsageError("samples must be at least 1")
    check_place(window, bounds)
    with open_source(src, settings.purpose, settings.nodata) as source:
        folder = None if images is None else _made(Path(images))
        aimed = None if bounds is None else _middle_of(bounds, source)
        box = aimed or _window_box(window, source)
        grid = TileGrid(source.shape, tile_size, automatic_shard(source.shape, tile_size))
        factors, preview = [one.factor for one in settings.overviews_of(grid.scene)], settings.preview_of(grid.scene)
        promised, clock = settings.guarantee(len(source.bands), classes=source.classes), StageClock()
        engine, level = choose_engine(source, grid, settings, promised, clock)
        seen, sampled = grid.covering(box), spread(grid.shape, samples)
        looked_at = [grid.tile_box(tile) for tile in dict.fromkeys([*sampled, *seen])]
        meta = describe_scene(
            source,
            engine,
            level,
            tile_size,
            grid.shard,
            clock,
            boxes=looked_at,
            guarantee=promised,
            decorrelate=settings.decorrelate,
        )
        meta = replace(meta, halo=settings.halo(grid, folder=False))
        coder, ticker = _TileCoder(source, meta, engine), Ticker(len(sampled) + len(seen), progress)
        sizes = coder.sizes(sampled, ticker)
        view = coder.restore(box, seen, ticker)
        pictures = view.write(folder, meta) if folder is not None else {}
        psnr, max_error = view.errors(meta)
        low, size, high = _total(sizes, math.prod(grid.shape), factors, preview=preview)
        return Estimate(
            bytes=size,
            bytes_low=low,
            bytes_high=high,
            raw_bytes=source.raw_bytes,
            source_bytes=source.nbytes_file,
            bpp=8 * size / (source.shape.y * source.shape.x),
            ratio=source.raw_bytes / size,
            level=level,
            tiles=math.prod(grid.shape),
            sampled_tiles=len(sampled),
            window=box,
            missed=bounds is not None and aimed is None,
            psnr=psnr,
            max_error=max_error,
            images=pictures,
        )


def _made(folder: Path) -> Path:
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _window_box(window: tuple[int, int, int, int] | None, source: Source) -> PixelBox:
    if window is None:
        height, width = (min(_DEFAULT_WINDOW, side) for side in source.shape)
        return PixelBox((source.shape.y - height) // 2, (source.shape.x - width) // 2, height, width)
    box = window_box(window, source.shape)
    if max(box.height, box.width) > _MAX_WINDOW:
        raise UsageError(f"a window to look at may have {_MAX_WINDOW} pixels a side, not {box.height} x {box.width}")
    return box


def _middle_of(bounds: Bounds, source: Source) -> PixelBox | None:
    """The window in the middle of what `bounds` shows of a raster; None if that is nothing."""
    found = source.georef.pixels_of(bounds)
    spans = [] if found is None else [_middle(*pair) for pair in zip(found, source.shape, strict=True)]
    if not spans or spans[0] is None or spans[1] is None:
        return None
    (row, height), (column, width) = spans[0], spans[1]
    return PixelBox(row, column, height, width)


def _middle(lines: tuple[float, float], size: int) -> tuple[int, int] | None:
    """First pixel and count along one axis of `size` pixels; None if what lies between `lines` does not touch it."""
    low, high = max(lines[0], 0.0), min(lines[1], float(size))
    if not low < high:
        return None
    count = min(size, _DEFAULT_WINDOW, max(_MIN_PLACE, round(high - low)))
    first = math.floor(round((low + high - count) / 2, 6))
    return max(0, min(first, size - count)), count


def _total(sizes: Sequence[int], count: int, factors: Iterable[int], *, preview: bool) -> tuple[int, int, int]:
    """Bytes of a scene of `count` tiles: two standard errors below the estimate, the estimate, and above it."""
    extra = sum(1 / factor**2 for factor in factors) * _OVERVIEW_PIXEL
    fixed, n = DOCUMENT_BYTES + _PREVIEW * preview, len(sizes)
    tiles = count * (sum(sizes) / n)
    # Of a sample without replacement; where every tile was coded, nothing is left to chance.
    error = count * statistics.stdev(sizes) * math.sqrt((1 / n) * (1 - n / count)) if n > 1 else tiles
    error = 0.0 if n == count else error
    found = [round((1 + extra) * max(tiles + k * error, 0)) + fixed for k in (-2, 0, 2)]
    return found[0], found[1], found[2]


@dataclass(frozen=True)
class _View:
    """A window before and after: (bands, h, w) each, in file order, with what is valid before."""

    original: Pixels
    restored: Pixels
    valid: Mask

    def errors(self, meta: SceneMeta) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """PSNR and largest error per band without alpha."""
        stats = []
        for band in range(len(meta.bands)):
            if band != meta.alpha:
                stats.append(ErrorStats())
                stats[-1].add(self.original[band], self.restored[band], self.valid[band])
        peak = known_peak(meta.dtype)
        return tuple(s.psnr(peak) for s in stats), tuple(s.max_abs for s in stats)

    def write(self, folder: Path, meta: SceneMeta) -> dict[str, Path]:
        """The three pictures, stretched alike."""
        shown = list(display_bands([band.colorinterp for band in meta.bands], meta.alpha))
        original, restored, valid = self.original[shown], self.restored[shown], self.valid[shown]
        stretch = Stretch.of(original, valid)
        pictures = {"original": stretch.apply(original, valid), "restored": stretch.apply(restored, valid)}
        difference = pictures["restored"].astype(np.int16) - pictures["original"]
        pictures["difference"] = np.clip(difference * AMPLIFICATION + 128, 0, 255).astype(np.uint8)
        return {name: write_png(folder / f"{name}.png", picture) for name, picture in pictures.items()}


class _TileCoder:
    """Codes single tiles of an open raster as compressing it would."""

    def __init__(self, source: Source, meta: SceneMeta, engine: Engine | None):
        self._source, self._meta, self._engine = source, meta, engine

    def sizes(self, tiles: Sequence[TileIndex], ticker: Ticker) -> list[int]:
        """Bytes that each tile position takes in the file, over all arrays."""
        found = []
        for start in range(0, len(tiles), _BATCH):
            batch = tiles[start : start + _BATCH]
            arrays = [self._encode(group, batch) for group in self._meta.groups]
            arrays += [
                [code_plane(self._source, self._meta, name, tile) for tile in batch] for name in self._meta.planes
            ]
            found += [sum(len(data) + _PER_TILE for data in position) for position in zip(*arrays, strict=True)]
            ticker.add(len(batch))
        return found

    def restore(self, box: PixelBox, tiles: Sequence[TileIndex], ticker: Ticker) -> _View:
        """A window as it is, and as it will be."""
        meta, bands = self._meta, range(len(self._meta.bands))
        original = self._source.read(box, bands)
        restored = original.copy()  # alpha is exact
        for group in meta.groups:
            for tile, pixels in zip(tiles, self._restore(group, tiles), strict=True):
                whole = meta.grid.tile_box(tile)
                common = whole.intersection(box)
                if common is not None:
                    (ys, xs), (rows, columns) = common.relative_to(whole).slices, common.relative_to(box).slices
                    restored[list(group.bands), rows, columns] = pixels[:, ys, xs]
        ticker.add(len(tiles))
        nodata = [band.nodata if number != meta.alpha else None for number, band in enumerate(meta.bands)]
        return _View(original, restored, valid_pixels(original, nodata, self._source.read_mask(box)))

    def _encode(self, group: BandGroup, tiles: Sequence[TileIndex]) -> list[bytes]:
        meta, inputs = self._meta, read_tiles(self._source, self._meta, group, tiles)
        sides = [meta.grid.sides(tile) for tile in tiles] if meta.halo else None
        return encode_tiles(inputs, group_coding(meta, group), self._engine, meta.level, sides=sides)

    def _restore(self, group: BandGroup, tiles: Sequence[TileIndex]) -> list[Pixels]:
        """Tiles as they will be; the network sees their neighbours, so these are coded along with them."""
        coding, grid, restored = group_coding(self._meta, group), self._meta.grid, []
        ring = dict.fromkeys(near for tile in tiles for near in grid.around(tile)) if coding.halo else {}
        places = list(dict.fromkeys([*tiles, *ring]))
        surroundings = Surroundings(grid, places, len(tiles), {}) if coding.halo else None
        payloads = self._encode(group, places)
        for pixels in decode_tiles(payloads, coding, self._engine, grid.tile, surroundings=surroundings):
            if isinstance(pixels, CorruptTileError):
                raise pixels
            restored.append(pixels)
        return restored
