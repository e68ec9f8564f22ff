"""`decompress_raster`: a compressed scene in, a GeoTIFF out."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import Any

from ._sink import part_of, refuse_suffix
from .container import ContainerReader, SceneMeta
from .errors import DestinationError, DestinationExistsError, UsageError
from .georef import BandInfo, Georef, Tags
from .location import Location, ObjectUrl, beside, locate
from .place import bounds_box, check_place, whole_numbers, window_box
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
    options: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> DecompressResult:
    """Restore a compressed scene as a GeoTIFF with everything the source had: CRS, transform, tags, nodata, masks.

    A part of the scene, or an overview, is without the bands' ``STATISTICS_*`` tags, which speak of the whole.

    Parameters
    ----------
    src : path
        A ``.ltchm`` file or a ``.zarr`` folder; a URL where they lie in an object store.
    dst : path, optional
        Default: the scene's name with the suffix .tif; in the current folder for a scene in an object store. It lies on
        a local disk.
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
    options : mapping of str to str, optional
        GDAL's creation options for GeoTIFFs, such as ``{"compress": "zstd"}``. Default: deflate with predictor, in
        tiles of 256 x 256 pixels.
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
        path = _default_destination(reader) if dst is None else _local(dst)
        _refuse_own_file(reader.path, path)
        refuse_suffix(path, _OTHER_FORMATS, "a GeoTIFF", ".tif")
        decoder = SceneDecoder(reader, device, allow_damaged=allow_damaged, clock=clock)
        with create_geotiff(
            path,
            Shape2d(box.height, box.width),
            _band_infos(meta, chosen, whole=not level and box == PixelBox(0, 0, *meta.shape)),
            georef.shifted(box.y0, box.x0),
            options,
            overwrite=overwrite,
        ) as writer:
            ticker = Ticker(grid.count(box), progress)
            together = _read_together(meta, chosen) if writer.by_band else [range(len(chosen))]

            def work(piece: PixelBox) -> None:
                target = piece.relative_to(box)
                for places in together:
                    pixels = decoder.read(piece, [chosen[place] for place in places], level)
                    with clock("write"):
                        writer.write(pixels, target, places)
                if meta.mask:
                    mask = decoder.read_plane("mask", piece, level)
                    with clock("write"):
                        writer.write_mask(mask, target)
                ticker.add(grid.count(piece))

            run_shards(work, grid.for_reading.pieces(box), count)
    damaged = tuple(sorted(decoder.damaged, key=lambda d: (d.array, d.tile)))
    seconds = time.perf_counter() - began
    return DecompressResult(path, path.stat().st_size, seconds, damaged, clock.totals, clock.cpu)


def _local(dst: str | os.PathLike[str]) -> Path:
    path = locate(dst)
    if isinstance(path, ObjectUrl):
        raise DestinationError(f"{path}: a GeoTIFF is written to a local disk: give a file name, then copy the file")
    return path


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


def _band_infos(meta: SceneMeta, chosen: Sequence[int], *, whole: bool) -> list[BandInfo]:
    """What the GeoTIFF says of its bands: of a part, not what was measured on the `whole` of them."""
    bands = [meta.bands[band] for band in chosen]
    return bands if whole else [replace(band, tags=_without_statistics(band.tags)) for band in bands]


def _without_statistics(tags: Tags) -> Tags:
    own = {key: value for key, value in tags.get("", {}).items() if not key.startswith("STATISTICS_")}
    others = {namespace: items for namespace, items in tags.items() if namespace}
    return {"": own, **others} if own else others


def _read_together(meta: SceneMeta, chosen: Sequence[int]) -> list[list[int]]:
    """Places among the chosen bands, by band group: all of a group cost no more than one, and need be held at once."""
    groups = [group.bands for group in meta.groups] + ([] if meta.alpha is None else [(meta.alpha,)])
    found = [[place for place, band in enumerate(chosen) if band in group] for group in groups]
    return [places for places in found if places]


def _box(window: Sequence[int] | None, bounds: Bounds | None, georef: Georef, shape: Shape2d) -> PixelBox:
    check_place(window, bounds)
    if bounds is not None:
        return bounds_box(bounds, georef, shape)
    return PixelBox(0, 0, *shape) if window is None else window_box(window, shape)


def _bands(bands: Sequence[int] | int | None, count: int) -> list[int]:
    if bands is None:
        return list(range(count))
    expected = f"bands are numbered from 1 to {count}"
    numbers = whole_numbers([bands] if isinstance(bands, Integral) else bands, expected)
    if not numbers or any(not 1 <= band <= count for band in numbers):
        raise UsageError(f"{expected}, not {list(numbers)}")
    return [band - 1 for band in numbers]
