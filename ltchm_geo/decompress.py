"""`decompress_raster`: a compressed scene in, a GeoTIFF out."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ._sink import part_of, refuse_suffix
from .container import ContainerReader
from .errors import DestinationError, DestinationExistsError, UsageError
from .georef import Georef
from .location import Location, beside
from .place import bounds_box, check_place, window_box
from .raster import create_geotiff
from .scene_decoder import DamagedTile, SceneDecoder
from .schedule import Progress, Ticker, run_shards, worker_count
from .timing import StageClock
from .types import Bounds, PixelBox, Shape2d

__all__ = ["DecompressResult", "decompress_raster"]

_OTHER_FORMATS = (".ltchm", ".zarr", ".png", ".jpg", ".jpeg", ".webp", ".jp2", ".vrt", ".img", ".nc", ".zip")


@dataclass(frozen=True)
class DecompressResult:
    """What decompressing a scene gave.

    Attributes
    ----------
    path : Path
        The GeoTIFF.
    bytes : int
        Its size.
    seconds : float
        Wall-clock time.
    damaged : tuple of DamagedTile
        Tiles filled with nodata (or 0) because they could not be decoded; only with `allow_damaged`.
    stages : dict
        Seconds by stage, summed over threads.
    cpu : dict
        As `stages`, but seconds that the threads spent computing, without waiting.
    """

    path: Path
    bytes: int
    seconds: float
    damaged: tuple[DamagedTile, ...]
    stages: dict[str, float]
    cpu: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {**asdict(self), "path": str(self.path)}


def decompress_raster(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str] | None = None,
    *,
    window: Sequence[int] | None = None,
    bounds: Bounds | None = None,
    bands: Sequence[int] | None = None,
    level: int = 0,
    device: str = "auto",
    overwrite: bool = False,
    allow_damaged: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> DecompressResult:
    """Restore a compressed scene as a GeoTIFF with everything the source had: CRS, transform, tags, nodata, masks.

    Parameters
    ----------
    src : path
        A ``.ltchm`` file or a ``.zarr`` folder; a URL where they lie in an object store.
    dst : path, optional
        Default: the scene's name with the suffix .tif; in the current folder for a scene in an object store.
    window : (row, column, height, width), optional
        Only these pixels, counted in those of the level; the transform moves along.
    bounds : (x_min, y_min, x_max, y_max), optional
        Instead, a place in the scene's CRS: whatever pixels of the scene it touches.
    bands : 1-based band numbers, optional
        Only these bands, in this order.
    level : int
        Pyramid level: 0 is full resolution, 1 the first overview.
    device : str
        "auto", "cpu", "cuda", "cuda:1".
    overwrite : bool
        Replace an existing `dst`, when the new one is complete.
    allow_damaged : bool
        Restore what can be, with nodata (or 0) in place of damaged tiles, instead of refusing.
    workers : int, optional
        Shards in work at once.
    progress : callable, optional
        Called with (tiles done, tiles in all).

    Raises
    ------
    ContainerError, WeightsError, DestinationError, DeviceError, UsageError
    """
    began, clock, count = time.perf_counter(), StageClock(), worker_count(workers)
    with ContainerReader(src) as reader:
        meta = reader.meta
        grid = meta.pyramid_grid(level)
        georef = meta.pyramid_georef(level)
        box = _box(window, bounds, georef, grid.scene)
        chosen = _bands(bands, len(meta.bands))
        path = Path(dst) if dst is not None else _default_destination(reader)
        _refuse_own_file(reader.path, path)
        refuse_suffix(path, _OTHER_FORMATS, "a GeoTIFF", ".tif")
        decoder = SceneDecoder(reader, device, allow_damaged=allow_damaged, clock=clock)
        with create_geotiff(
            path,
            Shape2d(box.height, box.width),
            [meta.bands[band] for band in chosen],
            georef.shifted(box.y0, box.x0),
            overwrite=overwrite,
        ) as writer:
            ticker = Ticker(grid.count(box), progress)

            def work(piece: PixelBox) -> None:
                target = piece.relative_to(box)
                pixels = decoder.read(piece, chosen, level)
                mask = decoder.read_plane("mask", piece, level) if meta.mask else None
                with clock("write"):
                    writer.write(pixels, target, range(len(chosen)))
                    if mask is not None:
                        writer.write_mask(mask, target)
                ticker.add(grid.count(piece))

            run_shards(work, grid.for_reading.pieces(box), count)
    damaged = tuple(sorted(decoder.damaged, key=lambda d: (d.array, d.tile)))
    seconds = time.perf_counter() - began
    return DecompressResult(path, path.stat().st_size, seconds, damaged, clock.totals, clock.cpu)


def _default_destination(reader: ContainerReader) -> Path:
    """Beside the scene; but never over what is, by its name, the raster that the scene was made from."""
    path = beside(reader.path, ".tif")
    if path.exists() and path.name == reader.meta.source.get("name"):
        raise DestinationExistsError(f"{path} is what the scene was made from, by its name: say where else to write")
    return path


def _refuse_own_file(scene: Location, path: Path) -> None:
    """Raise `DestinationError` where writing the GeoTIFF would replace the scene."""
    places = [place for place in (path, part_of(path)) if os.path.exists(place)]
    if isinstance(scene, Path) and any(os.path.samefile(scene, place) for place in places):
        raise DestinationError(f"{path} would replace the scene itself; choose another destination")


def _box(window: Sequence[int] | None, bounds: Bounds | None, georef: Georef, shape: Shape2d) -> PixelBox:
    check_place(window, bounds)
    if bounds is not None:
        return bounds_box(bounds, georef, shape)
    return PixelBox(0, 0, *shape) if window is None else window_box(window, shape)


def _bands(bands: Sequence[int] | int | None, count: int) -> list[int]:
    if bands is None:
        return list(range(count))
    bands = [bands] if isinstance(bands, int) else bands
    if not bands or any(not 1 <= band <= count for band in bands):
        raise UsageError(f"bands are numbered from 1 to {count}, not {list(bands)}")
    return [band - 1 for band in bands]
