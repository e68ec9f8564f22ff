"""How a compressed scene is told from other files, without reading it."""

from __future__ import annotations

import os
import struct
import zipfile
from typing import Protocol

from .location import is_object_url, locate

__all__ = ["MANIFEST_KEY", "NO_ZIP", "ROOT_KEY", "is_scene", "names_scene"]

ROOT_KEY = "zarr.json"
MANIFEST_KEY = "ltchm-manifest.json"
_FIRST_SHARD = "0/g0/c/0/0/0"  # which every scene has
#: What zipfile raises of a file that is none, or none that it can read.
NO_ZIP = (zipfile.BadZipFile, OSError, ValueError, struct.error, NotImplementedError, OverflowError)


def is_scene(path: str) -> bool:
    """Whether a file or folder is, or calls itself, a compressed scene; quickly, so it may still be a damaged one.

    What lies in an object store is not asked: its name has to say so.
    """
    if is_object_url(path):
        return path.endswith(".ltchm")
    path = os.fspath(locate(path))
    if path.endswith(".ltchm") and os.path.exists(path):
        return True
    if os.path.isdir(path):
        return os.path.exists(os.path.join(path, MANIFEST_KEY))
    try:
        with zipfile.ZipFile(path) as archive:
            return names_scene(archive.namelist())
    except NO_ZIP:
        return False  # not a local ZIP file


class _Keys(Protocol):
    def __contains__(self, key: str, /) -> bool: ...


def names_scene(keys: _Keys) -> bool:
    """Whether what has these keys means to be a scene. Single files have no manifest since format 4."""
    return MANIFEST_KEY in keys or _FIRST_SHARD in keys
