"""Archives: many scenes compressed unattended, with a journal, so that a run can end at any moment and go on later."""

from __future__ import annotations

from .dry_run import ArchivePlan, PlannedScene, plan_many
from .journal import SceneRecord
from .report import ArchiveReport
from .run import ArchiveEvent, compress_many

__all__ = [
    "ArchiveEvent",
    "ArchivePlan",
    "ArchiveReport",
    "PlannedScene",
    "SceneRecord",
    "compress_many",
    "plan_many",
]
