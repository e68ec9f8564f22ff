"""Scenes that have to be looked at before they get their name: targets that must be hit, and results to be verified.

They are written beside their destination, as ``<name>.checking<suffix>``, and renamed once all is well. For an object
store, where nothing can be renamed, they are written to a temporary folder, uploaded once they hit their target, and
verified there.

With `resume` the shards of a scene that is not complete are kept, in ``<name>.checking<suffix>.part``. A scene that is
complete, but whose check was interrupted, is not: nothing says that it is still what would be written.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ._sink import check_destination, checking_place, claimed, explained, remove_scene, take_place
from .container import ContainerReader
from .errors import CorruptTileError, DestinationExistsError, VerificationError
from .exact_pixels import same_bits, within
from .guarantee import Guarantee
from .inspection import verify
from .location import Location, ObjectUrl
from .masks import valid_pixels
from .raster import Source
from .scene_decoder import SceneDecoder
from .schedule import run_shards, worker_count
from .settings import CompressSettings
from .types import TileIndex

if TYPE_CHECKING:
    from .compress import CompressResult, Writing

__all__ = ["compress_checked", "verify_scene"]


def compress_checked(write: Writing, source: Source, path: Location, settings: CompressSettings) -> CompressResult:
    """Compress with `verify` or a target.

    Parameters
    ----------
    write : callable (path, settings)
        Compresses the source, without either.
    """
    began = time.perf_counter()
    if isinstance(path, ObjectUrl):
        result = _to_store(write, source, path, settings)
    else:
        result = _beside(write, source, path, settings)
    return replace(result, path=path, seconds=time.perf_counter() - began)


def _beside(write: Writing, source: Source, path: Path, settings: CompressSettings) -> CompressResult:
    place = checking_place(path)
    with claimed(path) as left_behind:
        if os.path.lexists(place) and not left_behind:
            raise DestinationExistsError(f"{place} exists, where {path} has to lie while it is checked: move it away")
        try:
            result = _compress(write, source, place, settings)
            if settings.verify:
                verify_scene(source, place, settings)
            check_destination(path, settings.overwrite)
            with explained(path):
                take_place(place, path)
        except BaseException:
            remove_scene(place)
            raise
    return result


def _to_store(write: Writing, source: Source, url: ObjectUrl, settings: CompressSettings) -> CompressResult:
    from ._object_sink import upload_scene

    with tempfile.TemporaryDirectory(prefix="ltchm-", ignore_cleanup_errors=True) as folder:
        place = Path(folder, url.name)
        result = _compress(write, source, place, replace(settings, resume=False))
        upload_scene(place, url, settings.overwrite)
    if settings.verify:
        try:
            verify_scene(source, url, settings)
        except BaseException:
            remove_scene(url)
            raise
    return result


def _compress(write: Writing, source: Source, place: Path, settings: CompressSettings) -> CompressResult:
    """To a place of our own, where what an earlier run or pass left is replaced."""
    plain = replace(settings, verify=False, overwrite=True)
    if settings.target is None:
        return write(place, plain)
    from .targets import hit_target

    return hit_target(write, source, place, plain)


def verify_scene(source: Source, path: Location, settings: CompressSettings) -> None:
    """Read a finished scene back: checksums, every tile decoded and, with a guarantee, compared with the source.

    Raises
    ------
    VerificationError
    """
    report = verify(path, deep=True, device=settings.device)
    if not report.ok:
        reason = report.problems[0].message
        raise VerificationError(f"{path}: what was written does not read back: {reason}; check the disk and the memory")
    with ContainerReader(path) as reader:
        promised = reader.meta.guarantee
        if promised is None:
            return
        compare = partial(_compare, source, SceneDecoder(reader, settings.device), promised)
        try:
            run_shards(compare, reader.meta.grid.shard_indices, worker_count(settings.workers))
        except CorruptTileError as error:
            raise VerificationError(f"{path}: what was written does not read back: {error}") from error


def _compare(source: Source, decoder: SceneDecoder, promised: Guarantee, shard: TileIndex) -> None:
    """Raise unless a shard keeps what its scene promises."""
    meta = decoder.meta
    box = meta.grid.shard_box(shard)
    mask = source.read_mask(box)
    for group in meta.groups:
        original, restored = source.read(box, group.bands), decoder.read_group(group, box)
        if promised.lossless:
            kept = same_bits(original, restored)
        else:
            bounds = [promised.max_error[band] for band in group.bands]
            kept = within(original, restored, bounds) | ~valid_pixels(original, meta.nodata(group), mask)
        if not kept.all():
            band, y, x = (int(places[0]) for places in np.nonzero(~kept))
            where = f"band {group.bands[band] + 1}, row {box.y0 + y}, column {box.x0 + x}"
            raise VerificationError(
                f"{decoder.reader.path}: {where} decodes to {restored[band, y, x]} instead of {original[band, y, x]}: "
                "check the machine's memory and try again; report it if it comes again"
            )
