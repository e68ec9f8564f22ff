"""What is left to do: sources and results as they are, against what the journal says."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ArchiveError, DestinationExistsError, UsageError
from ..fingerprint import unchanged
from ..settings import DEFAULT_QUALITY, CompressSettings, aims
from .journal import SceneRecord
from .report import manifest_marks
from .stac import stac_marks
from .target import Target

__all__ = ["check_settings", "checked_settings", "left_by_dead", "owns", "plan_scenes", "refuse_foreign", "to_do"]


def checked_settings(settings: CompressSettings | None) -> CompressSettings:
    """Those given, or the defaults. UsageError for what are no settings."""
    if not isinstance(settings, CompressSettings | None):
        raise UsageError(f"settings are a ltchm_geo.CompressSettings(quality=40, ...), no {type(settings).__name__}")
    return settings or CompressSettings()


def check_settings(before: Mapping[str, Any] | None, settings: CompressSettings) -> None:
    """UsageError if an archive that was begun with `before` would go on with other settings."""
    if before is None:
        return
    try:
        begun = CompressSettings.from_dict(before)  # what was no setting then has its default
    except (UsageError, TypeError) as error:
        raise ArchiveError(
            f"this archive was begun with settings that this version cannot follow ({error}): "
            "update ltchm_geo, or use --restart to make all scenes anew"
        ) from error
    now, before = _said(settings.outcome), _said(begun.outcome)
    if before != now:
        changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        each = ((name.rstrip("_"), _word(before.get(name)), _word(now.get(name))) for name in changed)
        what = ", ".join(f"{name} {old} (now {new})" for name, old, new in each)
        raise UsageError(
            f"this archive was begun with {what}: "
            "use the same settings, --restart to make all scenes anew, or another destination"
        )


def _said(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """What decides over the results, with the default quality named."""
    return dict(outcome) if aims(outcome) else {**outcome, "quality": DEFAULT_QUALITY}


def _word(value: Any) -> str:
    return "by default" if value is None else str(value)


def plan_scenes(
    scenes: list[SceneRecord],
    results: Mapping[str, str],
    target: Target,
    *,
    restart: bool = False,
    retry_failed: bool = False,
    check: bool = False,
) -> list[SceneRecord]:
    """Scenes as they are to be recorded before the work begins: those to be made are "waiting".

    Parameters
    ----------
    scenes : what the journal knows
    results : result -> source
        What the archive is to hold. Scenes that are no longer among them stay as they are.
    target : Target
    restart, retry_failed, check : bool
        See `compress_many`.

    Raises
    ------
    UsageError
        A result was made from another source, or a source is in the archive under another name.
    """
    _check_arrangement(scenes, results)
    known = {scene.result: scene for scene in scenes}
    planned = []
    for result, source in results.items():
        scene = known.pop(result, SceneRecord(result, source))
        if scene.source != source:
            if not restart:
                raise UsageError(
                    f"{result} was made from {scene.source}, not from {source}: "
                    "give the same sources, --restart to make all scenes anew, or another destination"
                )
            scene = replace(scene, source=source, fingerprint=None)
        planned.append(_next(scene, target, restart, retry_failed, check))
    return planned + [_recovered(scene) for scene in known.values()]


def _check_arrangement(scenes: Iterable[SceneRecord], results: Mapping[str, str]) -> None:
    """UsageError if a source would be there twice, under two names: its documents cannot describe both."""
    now = {source: result for result, source in results.items()}
    for scene in scenes:
        if scene.result not in results and (result := now.get(scene.source)) is not None:
            raise UsageError(
                f"{scene.source} is in this archive as {scene.result} and would now become {result}: "
                "arrange them as before (sources, --base, --folders, --keep-suffix), or use another destination"
            )


def to_do(planned: list[SceneRecord], results: Mapping[str, str]) -> list[SceneRecord]:
    """The scenes to be made, in order. One in whose middle the process died comes last: it may be what killed it."""
    waiting = [scene for scene in planned if scene.state == "waiting" and scene.result in results]
    return sorted(waiting, key=lambda scene: scene.interruptions)


def owns(target: Target, scene: SceneRecord) -> bool:
    """Whether what lies under a result's name, before the scene is begun, was put there by this archive."""
    return scene.finished is not None or left_by_dead(target, scene)


def left_by_dead(target: Target, scene: SceneRecord) -> bool:
    """Whether the process died between giving a scene its name and saying so in the journal."""
    return scene.interruptions > 0 and target.state(scene.result) not in (None, scene.replaced)


def refuse_foreign(target: Target, results: Iterable[str], *, stac: bool) -> None:
    """DestinationExistsError if a file that no archive wrote has the name of a document of this one."""
    marks = manifest_marks(target.documents) | (stac_marks(target, results) if stac else {})
    for path, mark in marks.items():
        if os.path.lexists(path) and not (path.is_file() and mark in path.read_bytes()):
            raise DestinationExistsError(
                f"{path} exists, and no archive wrote it: move it, choose another place with --journal, "
                "or replace it with --overwrite"
            )


def _recovered(scene: SceneRecord) -> SceneRecord:
    if scene.state != "running":
        return scene
    return replace(scene, state="waiting", interruptions=scene.interruptions + 1)


def _next(scene: SceneRecord, target: Target, restart: bool, retry_failed: bool, check: bool) -> SceneRecord:
    if scene.state == "done" and not restart and _still_good(scene, target, check):
        return scene
    if scene.state == "failed" and not (restart or retry_failed or scene.passing or _source_changed(scene)):
        return scene
    waiting = replace(_recovered(scene), state="waiting")
    # What lies there was made otherwise, or is no longer good: without a fingerprint it is not taken for finished work.
    return replace(waiting, fingerprint=None) if restart or scene.state == "done" else waiting


def _still_good(scene: SceneRecord, target: Target, check: bool) -> bool:
    if _source_changed(scene):
        return False
    path = target.path(scene.result)
    if not isinstance(path, Path):
        return True
    if target.state(scene.result) is None or (path.is_file() and path.stat().st_size != scene.bytes):
        return False
    return not check or target.digest(scene.result) == scene.sha256


def _source_changed(scene: SceneRecord) -> bool:
    """Where nothing is known of the source's state, or the source is gone, what was made of it is kept."""
    if scene.fingerprint is None or not os.path.exists(scene.source):
        return False
    try:
        return not unchanged(scene.fingerprint)
    except ValueError:  # no fingerprint: nothing is known for sure
        return True
