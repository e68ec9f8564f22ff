"""`compress_many`: thousands of scenes, unattended."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from ..errors import ArchiveError, DestinationError, UsageError
from ..settings import CompressSettings
from .journal import Journal, SceneRecord
from .plan import check_settings, checked_settings, owns, plan_scenes, refuse_foreign, to_do
from .report import ArchiveReport, write_manifests
from .sources import arrange
from .space import RESERVE, Space
from .stac import has_item, write_collection, write_item
from .target import Target
from .work import SceneMaker, explain, is_fatal

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["ArchiveEvent", "compress_many"]

_MOST_WAIT = 60.0  # seconds between two attempts


@dataclass(frozen=True)
class ArchiveEvent:
    """Something that happened to a scene.

    Attributes
    ----------
    kind : "begin", "tiles" (progress within the scene), "retry" or "end"
    scene : SceneRecord
    done, total : int
        Tiles of the scene for "tiles", otherwise scenes of the run.
    """

    kind: Literal["begin", "tiles", "retry", "end"]
    scene: SceneRecord
    done: int
    total: int


class _Stopped(BaseException):
    """Ends a scene's work from within its progress report; no `Exception`, so that nobody takes it for a failure."""


def compress_many(
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
    scenes: int = 1,
    retries: int = 2,
    retry_wait: float = 2.0,
    fail_fast: bool = False,
    restart: bool = False,
    retry_failed: bool = False,
    check: bool = False,
    stac: bool = False,
    reserve: int = RESERVE,
    client: Client | str | None = None,
    on_event: Callable[[ArchiveEvent], None] | None = None,
) -> ArchiveReport:
    """Compress many rasters, and keep account of it.

    Called again with the same sources and settings it goes on where it stopped, however it stopped: finished scenes are
    left alone as long as their sources are unchanged, unfinished ones keep their finished shards.

    Parameters
    ----------
    sources, include, exclude, base
        What to compress and how results are arranged, see `find_sources`.
    destination : path or URL
        Folder of the archive. Beside the scenes it gets ``journal.sqlite``, ``manifest.csv`` and ``manifest.json``.
    settings : CompressSettings, optional
        How; the same for all scenes. `measure` and `verify` put PSNR and a mark into the journal; `overwrite` replaces
        files that this archive has not made; `resume` is always on.
    folders : bool
        Make each scene a ``.zarr`` folder rather than an ``.ltchm`` file.
    keep_suffix : bool
        ``a.tif`` becomes ``a.tif.ltchm``.
    journal : path, optional
        Where the journal is to be; manifests and STAC documents lie beside it. Needed for object stores.
    scenes : int
        Scenes in work at once. Small ones use a machine, or a cluster, better together.
    retries : int
        How often a scene is begun anew after an error that may pass: of a disk, network or worker.
    retry_wait : float
        Seconds before the first of these, doubled each time.
    fail_fast : bool
        Let no further scene begin once one has failed; those in work are finished.
    restart : bool
        Make all scenes anew, possibly with other settings than the archive was begun with.
    retry_failed : bool
        Try also scenes that failed in an earlier run for good. Those that failed for what may pass, or whose source has
        changed, are tried anyway.
    check : bool
        Compare finished scenes with their SHA-256, and make those anew that do not match.
    stac : bool
        Describe the results as STAC Items, and the archive as a Collection. A scene that cannot be described stops
        nothing; the report names it, and the next run tries again.
    reserve : int
        Bytes of the disk to leave free. The archive stops before a scene that might not fit.
    client : optional
        A dask.distributed Client, or the address of a scheduler; this machine's threads unless given.
    on_event : callable, optional
        Called with every `ArchiveEvent`, from several threads.

    Returns
    -------
    ArchiveReport
        Also of scenes that failed: that does not raise.

    Raises
    ------
    UsageError
        Sources that are missing or collide, or settings that are not those of the archive. Nothing was written.
    ArchiveError
        The journal is damaged, or the disk nearly full.
    DestinationExistsError
        A file that no archive wrote has the name of a manifest or STAC document. Nothing was written.
    DestinationError, WeightsError, DeviceError
        What would stop every scene.
    """
    settings = checked_settings(settings)
    if scenes < 1 or retries < 0 or retry_wait < 0:
        raise UsageError("scenes must be at least 1; retries and retry_wait may not be negative")
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
    with Journal(target.journal, target.root) as book:
        if not restart:
            check_settings(book.settings(), settings)
        planned = plan_scenes(book.scenes(), results, target, restart=restart, retry_failed=retry_failed, check=check)
        book.put(planned, settings.outcome)
        space = Space(target.folder, settings.guaranteed, reserve) if target.folder else None
        for scene in planned:
            if space is not None and scene.state == "done" and scene.raw_bytes and scene.bytes:
                space.learn(scene.raw_bytes, scene.bytes)
        with _connected(client) as workers:
            maker = SceneMaker(target, settings, space, workers)
            run = _Run(book, maker, retries, retry_wait, fail_fast, stac, on_event or (lambda _: None))
            return run(to_do(planned, results), scenes)


@contextlib.contextmanager
def _connected(client: Client | str | None) -> Iterator[Client | None]:
    """One connection for all scenes."""
    if client is None:
        yield None
        return
    from ..cluster import connected

    with connected(client) as found:
        yield found


@dataclass
class _Run:
    """One run over the scenes of an archive that are to be made."""

    book: Journal
    maker: SceneMaker
    retries: int
    retry_wait: float
    fail_fast: bool
    stac: bool
    on_event: Callable[[ArchiveEvent], None]
    made: int = 0
    total: int = 0
    ended: int = 0
    enough: threading.Event = field(default_factory=threading.Event)  # no further scene begins
    stop: threading.Event = field(default_factory=threading.Event)  # and those in work end at their next shard
    mutex: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, scenes: Sequence[SceneRecord], at_once: int) -> ArchiveReport:
        """Make the scenes; whatever ends that early, the manifests say how far it came."""
        began, self.total = time.monotonic(), len(scenes)
        try:
            self._make_all(scenes, at_once)
        except BaseException:
            with contextlib.suppress(DestinationError, ArchiveError):
                self._report(began)
            raise
        return self._report(began)

    def _make_all(self, scenes: Sequence[SceneRecord], at_once: int) -> None:
        with ThreadPoolExecutor(at_once, "archive") as pool:
            futures = [pool.submit(self._try, scene) for scene in scenes]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:  # Ctrl-C as well: scenes in work end at their next shard, which is kept
                self.stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _report(self, began: float) -> ArchiveReport:
        target = self.maker.target
        report = ArchiveReport(target.root, tuple(self.book.scenes()), self.made, time.monotonic() - began)
        write_manifests(target.documents, report, self.maker.settings.outcome)
        if not self.stac:
            return report
        # Some may lack their Item, as a process died before it wrote them.
        tried = {scene.result: self._describe(scene) for scene in report.done if not has_item(target, scene)}
        undescribed = {result: error for result, error in tried.items() if error is not None}
        write_collection(target, [scene for scene in report.done if scene.result not in undescribed])
        return replace(report, undescribed=undescribed)

    def _describe(self, scene: SceneRecord) -> str | None:
        """Write the STAC Item of a scene; why that failed if it did, unless every other would fail alike."""
        try:
            write_item(self.maker.target, scene)
        except Exception as error:
            if is_fatal(error):
                raise
            return explain(error)
        return None

    def _try(self, scene: SceneRecord) -> None:
        """Make one scene, several times if need be, and say in the journal what came of it."""
        if self.stop.is_set() or self.enough.is_set():
            return
        self._tell("begin", scene)
        for attempt in range(self.retries + 1):
            scene = self._attempt(scene)
            if scene.state != "failed" or not scene.passing or attempt == self.retries:
                break
            self._tell("retry", scene)
            if self.stop.wait(min(self.retry_wait * 2**attempt, _MOST_WAIT)):
                scene = replace(scene, state="waiting")
                break
        self.book.put([scene])
        if scene.state == "done" and self.stac:
            self._describe(scene)  # what fails is tried again at the end of the run, and reported then
        with self.mutex:
            self.ended += 1
            self.made += scene.state == "done"
        if scene.state == "failed" and self.fail_fast:
            self.enough.set()
        self._tell("end", scene)

    def _attempt(self, scene: SceneRecord) -> SceneRecord:
        """The record after one attempt; raises what would stop every other scene as well."""
        maker = self.maker
        try:
            if (finished := maker.adopt(scene)) is not None:
                return finished
            overwrite = maker.settings.overwrite or owns(maker.target, scene)
            scene = maker.begin(scene)
            self.book.put([scene])
            return maker.make(scene, overwrite, partial(self._tiles, scene))
        except _Stopped:
            return replace(scene, state="waiting")
        except Exception as error:
            if is_fatal(error) or maker.alone:
                self.stop.set()
                self.book.put([replace(scene, state="waiting")])
                raise
            return maker.failed(scene, error)

    def _tiles(self, scene: SceneRecord, done: int, total: int) -> None:
        if self.stop.is_set():
            raise _Stopped
        self.on_event(ArchiveEvent("tiles", scene, done, total))

    def _tell(self, kind: Literal["begin", "retry", "end"], scene: SceneRecord) -> None:
        self.on_event(ArchiveEvent(kind, scene, self.ended, self.total))
