"""One scene of an archive: made, checked and described, or an error that says whether trying again makes sense."""

from __future__ import annotations

import errno
import time
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .._resumable_sink import discard_unfinished
from .._sink import checking_place
from ..checked import verify_scene
from ..compress import CompressResult, compress_scene, measure_scene
from ..errors import (
    AlreadyCompressedError,
    ArchiveError,
    ClusterError,
    DestinationError,
    DestinationExistsError,
    DeviceError,
    LtchmError,
    SourceError,
    SourceReadError,
    VerificationError,
    WeightsError,
)
from ..fingerprint import fingerprint, is_remote
from ..inspection import SceneInfo, info, verify
from ..location import Location
from ..raster import Source, open_source
from ..schedule import Progress, worker_count
from ..settings import CompressSettings
from .journal import SceneRecord, State
from .plan import left_by_dead
from .space import Space
from .target import Target

__all__ = ["SceneMaker", "SourceChangedError", "explain", "is_fatal", "is_no_failure", "may_pass"]

_Measured = tuple[tuple[float, ...] | None, tuple[float, ...] | None]  # PSNR and largest error by band


class SourceChangedError(SourceReadError):
    """The source was written to while it was read."""


@dataclass(frozen=True)
class SceneMaker:
    """Makes the scenes of an archive. Safe to use from any number of threads.

    Attributes
    ----------
    target : Target
    settings : CompressSettings
        `overwrite` says whether results that the journal knows nothing of may be replaced.
    space : Space or None
        None where results do not take room on this machine.
    client : dask.distributed Client or None
    """

    target: Target
    settings: CompressSettings
    space: Space | None
    client: Any = None

    @property
    def alone(self) -> bool:
        """Whether the cluster that was to do the work is gone."""
        return self.client is not None and self.client.status != "running"

    def begin(self, scene: SceneRecord) -> SceneRecord:
        """The record to be kept while the scene is made."""
        return replace(
            scene,
            state="running",
            attempts=scene.attempts + 1,
            fingerprint=fingerprint(scene.source),
            replaced=self.target.state(scene.result),
        )

    def adopt(self, scene: SceneRecord) -> SceneRecord | None:
        """The finished record of a scene whose result was complete when the process died; None if it was not."""
        if scene.fingerprint is None or not left_by_dead(self.target, scene):
            return None
        if fingerprint(scene.source) != scene.fingerprint:
            return None
        path = self.target.path(scene.result)
        if not isinstance(path, Path):
            return None
        try:
            if not verify(path).ok:
                return None
            self._discard(scene)
            with open_source(scene.source, self.settings.purpose, self.settings.nodata) as source:
                measured = self._look_at(source, path, measure=self.settings.measure)
                found, size = info(path), source.nbytes_file
            return self._finished(scene, found, size, measured, None)
        except Exception:  # it is made anew; what is wrong with more than the scene shows again then
            return None

    def _look_at(self, source: Source, path: Location, *, measure: bool) -> _Measured:
        """Verify and measure a scene that has its name already, as the settings ask for."""
        if self.settings.verify:
            verify_scene(source, path, self.settings)
        if not measure:
            return None, None
        return measure_scene(source, path, self.settings.device, worker_count(self.settings.workers))

    def _discard(self, scene: SceneRecord) -> None:
        """Remove what unfinished attempts left."""
        if isinstance(path := self.target.path(scene.result), Path):
            discard_unfinished(path)
            discard_unfinished(checking_place(path))

    def make(self, scene: SceneRecord, overwrite: bool, progress: Progress) -> SceneRecord:
        """The finished record of a scene. Raises whatever goes wrong, see `may_pass`."""
        path, began = self.target.path(scene.result), time.perf_counter()
        with open_source(scene.source, self.settings.purpose, self.settings.nodata) as source:
            self.target.prepare(scene.result)
            with closing(_Room(self.space, source)):
                # Looked at below instead: the journal does not call it done before, and to be killed meanwhile then
                # costs no more than to look again.
                settings = replace(
                    self.settings,
                    overwrite=overwrite,
                    resume=self.target.folder is not None,
                    verify=False,
                    measure=False,
                )
                result = compress_scene(source, path, settings, progress=progress, client=self.client)
            try:
                # Where a PSNR had to be hit it was measured already.
                measure = self.settings.measure and result.psnr is None
                psnr, max_error = self._look_at(source, path, measure=measure)
                if fingerprint(scene.source) != scene.fingerprint:
                    raise SourceChangedError(
                        f"{scene.source} changed while it was compressed: wait until it is at rest"
                    )
                measured = (psnr or result.psnr, max_error or result.max_error)
                seconds = round(time.perf_counter() - began, 3)
                finished = self._finished(scene, result, result.source_bytes, measured, seconds)
            except BaseException:  # or the next attempt would take it for somebody else's file
                self.target.remove(scene.result)
                raise
        if self.space is not None:
            self.space.learn(result.raw_bytes, result.bytes)
        return finished

    def _finished(
        self,
        scene: SceneRecord,
        made: CompressResult | SceneInfo,
        source_bytes: int | None,
        measured: _Measured,
        seconds: float | None,
    ) -> SceneRecord:
        psnr, max_error = measured
        return replace(
            scene,
            source_bytes=source_bytes,
            raw_bytes=made.raw_bytes,
            bytes=made.bytes,
            bpp=made.bpp,
            psnr=psnr,
            max_error=max_error,
            seconds=seconds,
            state="done",
            error=None,
            passing=False,
            sha256=self.target.digest(scene.result),
            verified=self.settings.verify,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def failed(self, scene: SceneRecord, error: Exception) -> SceneRecord:
        """The record of a scene that is given up, and what is left of it removed unless it will be of use."""
        passing = may_pass(error, scene.source)
        if not passing:
            self._discard(scene)
        state: State = "skipped" if is_no_failure(error) else "failed"
        return replace(scene, state=state, error=explain(error), passing=passing)


class _Room:
    """Room on the disk for one scene, until closed."""

    def __init__(self, space: Space | None, source: Source):
        self._space = space
        self._taken = 0 if space is None else space.take(source.raw_bytes, source.name)

    def close(self) -> None:
        if self._space is not None:
            self._space.give(self._taken)


def explain(error: Exception) -> str:
    """An error in one line."""
    text = str(error) if isinstance(error, LtchmError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__
    return found


def is_fatal(error: BaseException) -> bool:
    """Whether every other scene would fail alike: no room, no network weights, no device."""
    full = (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, ArchiveError | WeightsError | DeviceError) or any(
        isinstance(cause, OSError) and cause.errno in full for cause in _causes(error)
    )


def is_no_failure(error: Exception) -> bool:
    """Whether the scene is left alone on purpose."""
    return isinstance(error, AlreadyCompressedError | DestinationExistsError)


def may_pass(error: Exception, source: str) -> bool:
    """Whether the same may work a moment later: disks, networks and workers, but not rasters that are no good."""
    if is_no_failure(error):
        return False
    if isinstance(error, SourceReadError | DestinationError | VerificationError | ClusterError):
        return True
    if isinstance(error, SourceError):
        return is_remote(source)
    if isinstance(error, LtchmError):
        return False
    return isinstance(error, OSError)
