"""`plan_many`: what `compress_many` would do, and how much room it would take. Writes nothing."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import LtchmError
from ..estimate import Estimate, estimate_scene
from ..raster import open_source
from ..settings import CompressSettings
from .journal import Journal, SceneRecord
from .plan import check_settings, checked_settings, owns, plan_scenes, refuse_foreign, to_do
from .sources import arrange
from .target import Target
from .work import explain, is_fatal

__all__ = ["ArchivePlan", "PlannedScene", "plan_many"]

_SAMPLES = 4
_TILES = 8


@dataclass(frozen=True)
class PlannedScene:
    """What would happen to a scene.

    Attributes
    ----------
    result, source : str
    action : "make", "keep" (finished, or given up earlier) or "refuse"
    raw_bytes : int or None
        Of the pixels uncompressed; None for scenes to keep, and where the source cannot be opened.
    reason : str or None
        Why it would be refused, or was given up.
    """

    result: str
    source: str
    action: Literal["make", "keep", "refuse"]
    raw_bytes: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class ArchivePlan:
    """What a run would do.

    Attributes
    ----------
    destination : str
    scenes : tuple of PlannedScene
    raw_bytes : int
        Of the scenes to be made.
    bytes : int or None
        Their size in the archive, estimated from a few of them; None where that is not possible.
    free_bytes : int or None
        Room on the disk; None for an object store.
    """

    destination: str
    scenes: tuple[PlannedScene, ...]
    raw_bytes: int
    bytes: int | None
    free_bytes: int | None

    @property
    def counts(self) -> dict[str, int]:
        """Number of scenes by action."""
        return dict(Counter(scene.action for scene in self.scenes))

    @property
    def fits(self) -> bool:
        """Whether the estimate leaves no doubt that there is room."""
        return self.bytes is None or self.free_bytes is None or self.bytes < self.free_bytes

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {
            "destination": self.destination,
            "counts": self.counts,
            "raw_bytes": self.raw_bytes,
            "bytes": self.bytes,
            "free_bytes": self.free_bytes,
            "scenes": [asdict(scene) for scene in self.scenes],
        }


def plan_many(
    sources: Iterable[str | os.PathLike[str]],
    destination: str | os.PathLike[str],
    settings: CompressSettings | None = None,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    base: str | os.PathLike[str] | None = None,
    folders: bool = False,
    keep_suffix: bool = False,
    journal: str | os.PathLike[str] | None = None,
    restart: bool = False,
    retry_failed: bool = False,
    check: bool = False,
    stac: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ArchivePlan:
    """Tell what `compress_many` would do with the same arguments. Opens every source it would compress.

    The size is estimated from a few scenes of different places in the archive, unless `settings` ask for a size or a
    PSNR, which say what it will be or cannot be had without compressing.

    Raises
    ------
    UsageError, ArchiveError, DestinationError, WeightsError, DeviceError
        As `compress_many` would.
    """
    settings = checked_settings(settings)
    target = Target.of(destination, journal)
    results = arrange(
        sources,
        include=include,
        exclude=exclude,
        base=base,
        skip=target.folder,
        folders=folders,
        keep_suffix=keep_suffix,
    )
    if not settings.overwrite:
        refuse_foreign(target, results, stac=stac)
    known: list[SceneRecord] = []
    if target.journal.exists():
        with Journal(target.journal, target.root) as book:
            known = book.scenes()
            if not restart:
                check_settings(book.settings(), settings)
    planned = plan_scenes(known, results, target, restart=restart, retry_failed=retry_failed, check=check)
    waiting = {scene.result for scene in to_do(planned, results)}
    scenes = []
    for number, scene in enumerate(record for record in planned if record.result in results):
        if progress is not None:
            progress(number, len(results))
        scenes.append(_look(scene, target, settings) if scene.result in waiting else _kept(scene))
    to_make = [scene for scene in scenes if scene.action == "make"]
    raw = sum(scene.raw_bytes or 0 for scene in to_make)
    return ArchivePlan(target.root, tuple(scenes), raw, _estimate(to_make, raw, settings), _free(target.folder))


def _kept(scene: SceneRecord) -> PlannedScene:
    return PlannedScene(scene.result, scene.source, "keep", None, scene.error)


def _look(scene: SceneRecord, target: Target, settings: CompressSettings) -> PlannedScene:
    if not (settings.overwrite or owns(target, scene)) and target.state(scene.result) is not None:
        reason = "exists, and is none of this archive: --overwrite replaces it"
        return PlannedScene(scene.result, scene.source, "refuse", None, reason)
    try:
        with open_source(scene.source, settings.purpose, settings.nodata) as source:
            settings.guarantee(len(source.bands), classes=source.classes)  # raises where there are other bands
            raw = source.raw_bytes
    except LtchmError as error:
        return PlannedScene(scene.result, scene.source, "refuse", None, explain(error))
    return PlannedScene(scene.result, scene.source, "make", raw)


def _estimate(scenes: Sequence[PlannedScene], raw: int, settings: CompressSettings) -> int | None:
    if settings.target is not None:
        return None
    step = max(1, len(scenes) // _SAMPLES)
    found = [_estimate_one(scene.source, settings) for scene in scenes[step // 2 :: step][:_SAMPLES]]
    known = [one for one in found if one is not None]
    return round(raw * sum(one.bytes for one in known) / sum(one.raw_bytes for one in known)) if known else None


def _estimate_one(source: str, settings: CompressSettings) -> Estimate | None:
    try:
        return estimate_scene(source, settings, samples=_TILES)
    except LtchmError as error:
        if is_fatal(error):
            raise
        return None  # the run itself will say so of this scene


def _free(folder: Path | None) -> int | None:
    if folder is None:
        return None
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
