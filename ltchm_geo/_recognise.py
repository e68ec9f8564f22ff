"""How a compressed scene is told from other files, without reading it."""

from __future__ import annotations

import os
import zipfile

__all__ = ["MANIFEST_KEY", "is_scene"]

MANIFEST_KEY = "ltchm-manifest.json"


def is_scene(path: str) -> bool:
    """Whether a file or folder is, or calls itself, a compressed scene; quickly, so it may still be a damaged one."""
    if path.endswith(".ltchm") and os.path.exists(path):
        return True
    if os.path.isdir(path):
        return os.path.exists(os.path.join(path, MANIFEST_KEY))
    try:
        with zipfile.ZipFile(path) as archive:
            return MANIFEST_KEY in archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return False  # not a local ZIP file
