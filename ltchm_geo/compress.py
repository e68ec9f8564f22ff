"""`compress_raster`: a raster in, a compressed scene out."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ._sink import check_destination
from .container import ContainerReader, ContainerWriter, Overview
from .engine import load_engine
from .errors import DestinationError, UsageError
from .masks import valid_pixels
from .metrics import ErrorStats
from .nn.config import level_to_lambda
from .plan import describe_scene, level_of
from .pyramid import LARGE, automatic_factors, check_overviews
from .raster import Source, open_source
from .scene_decoder import SceneDecoder
from .scene_encoder import SceneEncoder
from .schedule import Progress, run_shards, worker_count
from .tiles import DEFAULT_TILE, TileGrid, automatic_shard
from .timing import StageClock
from .types import Shape2d, TileIndex

__all__ = ["CompressResult", "compress_raster"]

SUFFIX = ".ltchm"


@dataclass(frozen=True)
class CompressResult:
    """What compressing a raster gave.

    Attributes
    ----------
    path : Path
        The compressed scene.
    bytes, source_bytes, raw_bytes : int
        Size of the scene; of the source's files (None where it has none); of its pixels uncompressed.
    bpp : float
        Bits per pixel position, all bands and every byte of the file counted.
    ratio : float
        raw_bytes / bytes.
    seconds : float
        Wall-clock time.
    level : int
        Quality level used.
    tiles : dict
        Number of tiles by mode, overviews included.
    stages : dict
        Seconds by stage, summed over threads.
    psnr, max_error : tuple or None
        Per band in file order over valid pixels, if measuring was asked for: PSNR in dB against the band's data range
        (255 for 8 bits), and the largest absolute error in data units. An alpha band is exact and left out.
    """

    path: Path
    bytes: int
    source_bytes: int | None
    raw_bytes: int
    bpp: float
    ratio: float
    seconds: float
    level: int
    tiles: dict[str, int]
    stages: dict[str, float]
    psnr: tuple[float, ...] | None = None
    max_error: tuple[float, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {**asdict(self), "path": str(self.path), "lambda": level_to_lambda(self.level)}


def compress_raster(
    src: str | os.PathLike[str] | Any,
    dst: str | os.PathLike[str] | None = None,
    *,
    quality: int | None = None,
    lambda_: float | None = None,
    model: str | None = None,
    device: str = "auto",
    tile_size: int = DEFAULT_TILE,
    shard_tiles: int | None = None,
    overwrite: bool = False,
    measure: bool = False,
    overviews: Sequence[int] | Literal[False] | None = None,
    overview_quality: int | None = None,
    preview: bool | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> CompressResult:
    """Compress a georeferenced raster.

    Parameters
    ----------
    src : path, any name rasterio opens (also /vsi paths), an open rasterio dataset, an xarray DataArray or Dataset
        Never modified. uint8, uint16, int16, float32 or float64, any number of bands. What else xarray objects must be
        like, says `array_source`.
    dst : path, optional
        ``*.zarr`` writes a folder, any other name a single file. Default: the source's name with the suffix .ltchm.
    quality : int, optional
        1 (smallest) to 100 (best); 50 if neither this nor `lambda_` is given.
    lambda_ : float, optional
        The paper's Lagrangian weight instead, 128 to 16384; the nearest of 113 levels is used.
    model : str, optional
        Weights by tag, SHA-256 or path. Default: the installed default.
    device : str
        "auto", "cpu", "cuda", "cuda:1". The file decodes on any.
    tile_size : int
        Side of a tile in pixels, a multiple of 128 for networks with the usual windows; they are trained for 256.
    shard_tiles : int, optional
        Side of a shard in tiles. One shard is read, coded and stored at once, so it sets the memory use. Default: 8, or
        what is enough for a smaller scene.
    overwrite : bool
        Replace an existing `dst`, when the new one is complete.
    measure : bool
        Decode the result and report PSNR and largest error per band.
    overviews : sequence of int or False, optional
        Factors of the coarser copies to store beside full resolution, ascending powers of two, such as (2, 4, 8);
        False for none. Default: 4, 8, 16, ... for a scene longer than 2048 pixels, else none.
    overview_quality : int, optional
        Their quality, 1 to 100; that of the scene unless given.
    preview : bool, optional
        Store a quick-look, a JPEG of up to 512 pixels. Default: for a scene longer than 2048 pixels.
    workers : int, optional
        Shards in work at once. Memory is bounded by them, whatever the scene's size, plus GDAL's block cache (5 % of
        the machine unless the environment variable GDAL_CACHEMAX says otherwise; the command line sets 256 MB).
    progress : callable, optional
        Called with (tiles done, tiles in all).

    Returns
    -------
    CompressResult

    Raises
    ------
    SourceError, UnsupportedRasterError, DestinationError, WeightsError, DeviceError, UsageError

    Examples
    --------
    >>> import ltchm_geo
    >>> result = ltchm_geo.compress_raster("scene.tif", quality=60)  # doctest: +SKIP
    >>> result.path, round(result.ratio)  # doctest: +SKIP
    (PosixPath('scene.ltchm'), 31)
    """
    began, clock, level = time.perf_counter(), StageClock(), level_of(quality, lambda_)
    count = worker_count(workers)
    with open_source(src) as source:
        # What is wrong with destination or sizes must be told before the weights are loaded and the scene surveyed.
        path = _destination(source, dst)
        check_destination(path, overwrite)
        shard_tiles = automatic_shard(source.shape, tile_size) if shard_tiles is None else shard_tiles
        TileGrid(source.shape, tile_size, shard_tiles)
        coarse = level if overview_quality is None else level_of(overview_quality, None)
        levels = _overviews(source.shape, overviews, coarse)
        preview = max(source.shape) > LARGE if preview is None else preview
        engine = load_engine(model, device)
        engine.check_tile(tile_size)
        meta = describe_scene(source, engine, level, tile_size, shard_tiles, clock)
        meta = replace(meta, overviews=levels)
        with ContainerWriter(path, meta, overwrite) as writer:
            encoder = SceneEncoder(meta, engine, writer, clock)
            encoder.encode(source, path, count, progress, preview=preview)
            with clock("write"):
                writer.finish()
        seconds = time.perf_counter() - began
        psnr, max_error = _measure(source, path, device, count) if measure else (None, None)
    with ContainerReader(path) as reader:
        size = reader.sizes()["total"]
    pixels = source.shape.y * source.shape.x
    raw = pixels * len(source.bands) * source.dtype.itemsize
    return CompressResult(
        path=path,
        bytes=size,
        source_bytes=source.nbytes_file,
        raw_bytes=raw,
        bpp=8 * size / pixels,
        ratio=raw / size,
        seconds=seconds,
        level=level,
        tiles=dict(encoder.modes),
        stages=clock.totals,
        psnr=psnr,
        max_error=max_error,
    )


def _overviews(shape: Shape2d, factors: Sequence[int] | Literal[False] | None, level: int) -> tuple[Overview, ...]:
    chosen = automatic_factors(shape) if factors is None else factors or ()
    found = tuple(Overview(int(factor), level) for factor in chosen)
    check_overviews(shape, found)
    return found


def _destination(source: Source, dst: str | os.PathLike[str] | None) -> Path:
    path = Path(dst) if dst is not None else _default_destination(source.name)
    if os.path.exists(source.name) and os.path.exists(path) and os.path.samefile(source.name, path):
        raise DestinationError(f"{path} is the source itself; choose another destination")
    return path


def _default_destination(name: str) -> Path:
    if name.startswith("/vsi") or "://" in name or not os.path.exists(name):
        raise UsageError(f"{name} is not a plain file: say where to write the result")
    return Path(name).with_suffix(SUFFIX)


def _measure(source: Source, path: Path, device: str, workers: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """PSNR and largest error per band of what a reader of the finished file gets back."""
    with ContainerReader(path) as reader:
        decoder, meta = SceneDecoder(reader, device), reader.meta
        coded = [band for band in range(len(meta.bands)) if band != meta.alpha]
        stats = {band: ErrorStats() for band in coded}

        def work(shard: TileIndex) -> None:
            box = meta.grid.shard_box(shard)
            mask = source.read_mask(box)
            for group in meta.groups:
                original = source.read(box, group.bands)
                valid = valid_pixels(original, meta.nodata(group), mask)
                restored = decoder.read_group(group, box)
                for band, *planes in zip(group.bands, original, restored, valid, strict=True):
                    stats[band].add(*planes)

        run_shards(work, meta.grid.shard_indices, workers)
    peak = 255.0 if meta.dtype == "uint8" else None
    return tuple(stats[b].psnr(peak) for b in coded), tuple(stats[b].max_abs for b in coded)
