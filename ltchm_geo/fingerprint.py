"""Whether a raster is still the one it was: size and modification time of every file it consists of."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .source_files import files_behind, listed_files

if TYPE_CHECKING:
    from .settings import CompressSettings
    from .source import Source

__all__ = ["fingerprint", "is_remote", "unchanged", "work_identity"]


def is_remote(name: str) -> bool:
    """Whether a raster's name leads to another machine or into GDAL's virtual file systems, by its form."""
    return "://" in name or name.startswith("/vsi")


def fingerprint(name: str) -> str | None:
    """What tells one state of a raster from another, as JSON; None where nothing does.

    Parameters
    ----------
    name : str
        A path: side-car files, and the rasters that a VRT is made of, are looked at as well. For anything else that
        GDAL opens there is no fingerprint; one of a VRT says nothing of what lies on other machines.
    """
    if is_remote(name) or not os.path.exists(name):
        return None
    return _state(sorted(files_behind(name, listed_files(name)).paths))


def unchanged(recorded: str) -> bool:
    """Whether the files of a `fingerprint` are as they were then. ValueError if it is none."""
    found = json.loads(recorded)
    if not isinstance(found, list) or not all(isinstance(entry, list) and len(entry) == 3 for entry in found):
        raise ValueError("not a fingerprint")
    return _state([str(entry[0]) for entry in found]) == recorded


def work_identity(source: Source, settings: CompressSettings) -> str:
    """What two runs must have in common, beside the scene's description, for one to go on where the other stopped.

    No two are alike for a source that is not all files of this machine, as nothing says that it is still the same.
    """
    state = fingerprint(source.name) if source.files.complete else None
    return json.dumps({"source": state or uuid.uuid4().hex, "settings": settings.outcome}, sort_keys=True)


def _state(files: Iterable[str]) -> str:
    entries: list[tuple[str, int, int] | tuple[str, None, None]] = []
    for file in files:
        try:
            status = os.stat(file)
            entries.append((os.path.abspath(file), status.st_size, status.st_mtime_ns))
        except OSError:
            entries.append((os.path.abspath(file), None, None))
    return json.dumps(entries, ensure_ascii=False)
