"""`compress_raster`: a raster in, a compressed scene out."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ._resumable_sink import refuse_unfinished
from ._sink import check_destination, checking_place, is_folder, part_of, refuse_suffix, scratch_for
from .base_choice import choose_engine
from .container import ContainerReader, ContainerWriter, SceneMeta
from .errors import DestinationError, UsageError
from .fingerprint import work_identity
from .location import Location, ObjectUrl, locate
from .masks import valid_pixels
from .metrics import ErrorStats, known_peak
from .nn.config import level_to_lambda
from .plan import describe_scene, warn_of_alpha
from .raster import RASTER_SUFFIXES, Source, open_source
from .scene_decoder import SceneDecoder
from .scene_encoder import Crew, SceneEncoder, ThreadCrew
from .schedule import Progress, run_shards, worker_count
from .settings import CompressSettings, as_tuple
from .source_files import lies_in
from .tiles import DEFAULT_TILE, TileGrid, automatic_shard
from .timing import StageClock
from .types import TileIndex

if TYPE_CHECKING:
    from distributed import Client

    from .engine import Engine

__all__ = ["CompressResult", "Writing", "compress_raster", "compress_scene", "measure_scene"]

SUFFIX = ".ltchm"


#: Compresses the source at hand to a place: see `checked.compress_checked`.
Writing = Callable[[Location, CompressSettings], "CompressResult"]
#: Is told of a scene that is complete.
Written = Callable[["CompressResult"], None]


@dataclass(frozen=True)
class CompressResult:
    """What compressing a raster gave.

    Attributes
    ----------
    path : Path or ObjectUrl
        The compressed scene.
    bytes, source_bytes, raw_bytes : int
        Size of the scene; of the source's files (None where it has none); of its pixels uncompressed.
    bpp : float
        Bits per pixel position, all bands and every byte of the file counted.
    ratio : float
        raw_bytes / bytes.
    seconds : float
        Wall-clock time, of finding a target, verifying and measuring, too.
    level : int
        Quality level used.
    tiles : dict
        Number of tiles by mode, overviews included.
    stages : dict
        Seconds by stage, summed over threads.
    psnr, max_error : tuple or None
        Per band in file order over valid pixels, if measuring was asked for: PSNR in dB against the band's data range
        (255 for 8 bits), and the largest absolute error in data units. An alpha band is exact and left out.
    kept : int
        Shards that an earlier, unfinished run had stored (`resume`).
    cpu : dict
        As `stages`, but seconds that the threads spent computing, without waiting.
    alpha : int or None
        Number, from 1, of the alpha band, which is stored exactly.
    """

    path: Location
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
    kept: int = 0
    cpu: dict[str, float] = field(default_factory=dict)
    alpha: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {**asdict(self), "path": str(self.path), "lambda": level_to_lambda(self.level)}


def compress_raster(
    src: str | os.PathLike[str] | Any,
    dst: str | os.PathLike[str] | None = None,
    *,
    quality: int | None = None,
    lambda_: float | None = None,
    lossless: bool = False,
    max_error: float | Sequence[float] | None = None,
    target_psnr: float | None = None,
    target_bpp: float | None = None,
    target_ratio: float | None = None,
    nodata: float | None = None,
    model: str | None = None,
    device: str = "auto",
    tile_size: int = DEFAULT_TILE,
    shard_tiles: int | None = None,
    overwrite: bool = False,
    measure: bool = False,
    verify: bool = False,
    overviews: Sequence[int] | Literal[False] | None = None,
    overview_quality: int | None = None,
    preview: bool | None = None,
    seamless: bool | None = None,
    decorrelate: bool = True,
    resume: bool = False,
    workers: int | None = None,
    client: Client | str | None = None,
    progress: Progress | None = None,
    written: Written | None = None,
) -> CompressResult:
    """Compress a georeferenced raster.

    Parameters
    ----------
    src : path, any name rasterio opens (also /vsi paths), an open rasterio dataset, an xarray DataArray or Dataset
        Never modified. uint8, uint16, int16, float32 or float64, any number of bands. What else xarray objects must be
        like, says `array_source`.
    dst : path, optional
        ``*.zarr`` writes a folder, any other name a single file. Default: the source's name with the suffix .ltchm; in
        a folder that exists, if one is given.
        ``s3://bucket/scene.ltchm`` and ``s3://bucket/scene.zarr`` write to an object store (docs/scaling.md).
    quality : int, optional
        1 (smallest) to 100 (best); 50 if neither this nor `lambda_` is given.
    lambda_ : float, optional
        The paper's Lagrangian weight instead, 128 to 16384; the nearest of 113 levels is used.
    lossless : bool
        Instead, keep every pixel exactly: any integers and floats up to 64 bits, classes and palettes, too. Needs no
        weights.
    max_error : float or sequence of float, optional
        Instead, let no valid pixel be further than this from the original, in data units, on any machine: one number,
        or one per band in file order. 0 keeps a band exactly.
    target_psnr, target_bpp, target_ratio : float, optional
        Instead, find the quality that gives this PSNR (in dB, the mean over the bands of what `measure` reports), size
        in bits per pixel position, or ratio of uncompressed to compressed size. Sizes are hit within 2 % (PSNR: within
        2 % or 0.2 dB), or a UsageError says what can be reached. The scene is coded a few times.
    nodata : float, optional
        What pixels without data hold, in all bands but alpha, if the raster does not say so, or something else: the
        black around many scenes is 0. Such pixels come back exactly, cost next to nothing and do not count in any
        measure; the restored raster declares the value. Not for xarray objects, which have attributes for it.
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
    verify : bool
        Read the result back before it gets its name: every checksum, every tile's latents, and every pixel that a
        guarantee is about. What fails is removed, with a VerificationError.
    overviews : sequence of int or False, optional
        Factors of the coarser copies to store beside full resolution, ascending powers of two, such as (2, 4, 8);
        False for none. Default: 4, 8, 16, ... for a scene longer than 2048 pixels, else none.
    overview_quality : int, optional
        Their quality, 1 to 100; that of the scene unless given.
    preview : bool, optional
        Store a quick-look, a JPEG of up to 512 pixels. Default: for a scene longer than 2048 pixels.
    seamless : bool, optional
        Let the network see a little of each tile's neighbours, so that nobody sees where tiles meet: better pixels for
        a quarter more work in compressing. Default: for a single file, but not for a ``*.zarr`` folder, as plain Zarr
        readers see one tile at a time, and such tiles fit worse than those made to stand alone. Guaranteed and
        lossless tiles have no seams.
    decorrelate : bool
        Code more than three bands, or two or three that are little alike, as uncorrelated components of each other:
        27 to 33 % less at equal quality for 4, 8 and 12 bands of real scenes. Reading one band then takes decoding all
        of them, up to 16; without, up to 3.
    resume : bool
        Keep what is finished when the run ends early, however it ends, and go on from what an earlier such run of the
        same source (same files, sizes and times), settings and weights left in ``<dst>.part``. Equal bytes come out.
        The source has to be files, and `dst` local, or the run begins anew. A run without it does not throw away what
        is kept, unless `overwrite` says so. With `verify`, a run that ends while it reads back begins anew, and what a
        run without it left is not used.
    workers : int, optional
        Shards in work at once. Memory is bounded by them, whatever the scene's size, plus GDAL's block cache (5 % of
        the machine unless the environment variable GDAL_CACHEMAX says otherwise; the command line sets 256 MB).
    client : distributed.Client, or the address of its scheduler, optional
        Let the workers of a cluster code the shards (docs/scaling.md). They open `src` by its name and choose a device
        by `device`; the result is stored from here, and the same bytes come out.
    progress : callable, optional
        Called with (tiles done, tiles in all).
    written : callable, optional
        Called with the result so far when the scene is complete under its name and only `measure` remains.

    Returns
    -------
    CompressResult

    Raises
    ------
    SourceError, UnsupportedRasterError, DestinationError, WeightsError, DeviceError, UsageError, VerificationError,
    ClusterError

    Examples
    --------
    >>> import ltchm_geo
    >>> result = ltchm_geo.compress_raster("scene.tif", quality=60)  # doctest: +SKIP
    >>> result.path, round(result.ratio)  # doctest: +SKIP
    (PosixPath('scene.ltchm'), 31)
    """
    settings = CompressSettings(
        quality=quality,
        lambda_=lambda_,
        lossless=lossless,
        max_error=as_tuple(max_error),
        target_psnr=target_psnr,
        target_bpp=target_bpp,
        target_ratio=target_ratio,
        nodata=nodata,
        model=model,
        device=device,
        tile_size=tile_size,
        shard_tiles=shard_tiles,
        overwrite=overwrite,
        measure=measure,
        verify=verify,
        overviews=as_tuple(overviews),
        overview_quality=overview_quality,
        preview=preview,
        seamless=seamless,
        decorrelate=decorrelate,
        resume=resume,
        workers=workers,
    )
    with open_source(src, settings.purpose, settings.nodata) as source:
        path = _destination(dst, source.name)
        return compress_scene(source, path, settings, progress=progress, client=client, written=written)


def compress_scene(
    source: Source,
    path: Location,
    settings: CompressSettings,
    *,
    progress: Progress | None = None,
    client: Client | str | None = None,
    written: Written | None = None,
) -> CompressResult:
    """Compress a raster, opened for `settings.purpose`, to `path`; for the rest see `compress_raster`."""
    # What is wrong with destination or sizes must be told before the weights are loaded and the scene surveyed.
    check_destination(path, settings.overwrite)
    _refuse_own_files(source, path)
    refuse_suffix(path, RASTER_SUFFIXES, "a compressed scene", SUFFIX)
    checked = settings.verify or settings.target is not None
    if isinstance(path, Path) and not (settings.resume or settings.overwrite):
        refuse_unfinished(checking_place(path) if checked else path)
    if not settings.lossless:
        warn_of_alpha(source)
    if checked:
        from .checked import compress_checked

        def write(place: Location, plain: CompressSettings) -> CompressResult:
            return _compress(source, place, plain, progress, client)

        return compress_checked(write, source, path, settings)
    return _compress(source, path, settings, progress, client, written)


def _compress(
    source: Source,
    path: Location,
    settings: CompressSettings,
    progress: Progress | None,
    client: Client | str | None,
    written: Written | None = None,
) -> CompressResult:
    """Once, without looking whether the result is as it should be."""
    began, clock, count = time.perf_counter(), StageClock(), worker_count(settings.workers)
    meta, engine = _plan(source, path, settings, clock)
    unfinished = work_identity(source, settings) if settings.resume and isinstance(path, Path) else None
    with (
        _crew(client, source, engine, settings, clock, in_order=unfinished is None) as crew,
        ContainerWriter(path, meta, settings.overwrite, resume=unfinished) as writer,
    ):
        kept = writer.stored
        encoder = SceneEncoder(meta, crew, writer, clock)
        encoder.encode(source, scratch_for(path), progress, preview=settings.preview_of(source.shape))
        with clock("write"):
            writer.finish()
    with ContainerReader(path) as reader:
        size = reader.sizes()["total"]
    result = CompressResult(
        path=path,
        bytes=size,
        source_bytes=source.nbytes_file,
        raw_bytes=source.raw_bytes,
        bpp=8 * size / (source.shape.y * source.shape.x),
        ratio=source.raw_bytes / size,
        seconds=time.perf_counter() - began,
        level=meta.level,
        tiles=dict(encoder.modes),
        stages=clock.totals,
        kept=kept,
        cpu=clock.cpu,
        alpha=None if meta.alpha is None else meta.alpha + 1,
    )
    if not settings.measure:
        return result
    if written is not None:
        written(result)
    psnr, max_error = measure_scene(source, path, settings.device, count)
    return replace(result, psnr=psnr, max_error=max_error, seconds=time.perf_counter() - began)


def _plan(
    source: Source, path: Location, settings: CompressSettings, clock: StageClock
) -> tuple[SceneMeta, Engine | None]:
    """What the scene will say about itself, and the network that codes it; None where none is needed."""
    tile, shard = settings.tile_size, settings.shard_tiles
    grid = TileGrid(source.shape, tile, automatic_shard(source.shape, tile) if shard is None else shard)
    overviews = settings.overviews_of(source.shape)
    promised = settings.guarantee(len(source.bands), classes=source.classes)
    engine, level = choose_engine(source, grid, settings, promised, clock)
    if promised is not None:
        overviews = tuple(replace(overview, level=level) for overview in overviews)
    meta = describe_scene(
        source, engine, level, tile, grid.shard, clock, guarantee=promised, decorrelate=settings.decorrelate
    )
    return replace(meta, overviews=overviews, halo=settings.halo(grid, folder=is_folder(path))), engine


@contextlib.contextmanager
def _crew(
    client: Client | str | None,
    source: Source,
    engine: Engine | None,
    settings: CompressSettings,
    clock: StageClock,
    *,
    in_order: bool,
) -> Iterator[Crew]:
    if client is None:
        yield ThreadCrew(engine, clock, worker_count(settings.workers), in_order=in_order)
        return
    from .cluster import ClusterCrew, connected

    with connected(client) as connection:
        yield ClusterCrew(connection, source, settings.device, clock)


def _refuse_own_files(source: Source, path: Location) -> None:
    """Raise `DestinationError` where writing the scene would replace what it is made from."""
    if isinstance(path, ObjectUrl):
        return
    checking = checking_place(path)
    for place in (path, part_of(path), checking, part_of(checking)):
        for file in source.files.paths:
            if lies_in(file, place):
                what = "the source itself" if place == path else f"written by way of {place.name}, which the source is"
                raise DestinationError(f"{path} is {what}; choose another destination")


def _destination(dst: str | os.PathLike[str] | None, name: str) -> Location:
    if dst is None:
        return _default_destination(name)
    path = locate(dst)
    if isinstance(path, Path) and os.path.isdir(path) and not is_folder(path):
        return path / _default_destination(name).name
    return path


def _default_destination(name: str) -> Path:
    if name.startswith("/vsi") or "://" in name or not os.path.exists(name):
        raise UsageError(f"{name} is not a plain file: say where to write the result")
    return Path(name).with_suffix(SUFFIX)


def measure_scene(
    source: Source, path: Location, device: str, workers: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
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
    peak = known_peak(meta.dtype)
    return tuple(stats[b].psnr(peak) for b in coded), tuple(stats[b].max_abs for b in coded)
