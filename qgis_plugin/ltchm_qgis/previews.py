"""Preview pictures on disk, so that a quality seen before shows at once."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

__all__ = ["PreviewCache"]

_RESULT = "result.json"
_MARKER = "ltchm-preview"  # empty; only folders that hold it are ours to remove
_NAME = re.compile("[0-9a-f]{32}")
_IN_WORK = 3600  # seconds for which a place without a result may be another window's


class PreviewCache:
    """Folders of pictures, one per request, the least recently used removed first.

    Whatever else lies in the folder stays: only what `make` has made is removed.

    Parameters
    ----------
    folder : made when needed
    megabytes : size that everything in it may take
    """

    def __init__(self, folder: Path, megabytes: int):
        self._folder, self._limit = folder, megabytes * 1_000_000

    def place(self, source: str, *choices: object) -> Path:
        """Folder of the pictures of a source with these choices; changes when the file does."""
        stamp = [source, *choices]
        if os.path.exists(source):
            status = os.stat(source)
            stamp += [status.st_size, status.st_mtime_ns]
        return self._folder / hashlib.sha256(repr(stamp).encode()).hexdigest()[:32]

    def make(self, place: Path) -> None:
        """Make a folder for pictures, marked as one of ours."""
        place.mkdir(parents=True, exist_ok=True)
        (place / _MARKER).touch()

    def find(self, place: Path) -> dict[str, Any] | None:
        """The result kept there, or None."""
        try:
            result = json.loads((place / _RESULT).read_text(encoding="utf-8"))
            os.utime(place)
        except (OSError, ValueError):
            return None
        images = result.get("images") if isinstance(result, dict) else None
        return result if images and all(os.path.exists(path) for path in images.values()) else None

    def keep(self, place: Path, result: dict[str, Any]) -> None:
        """Keep a result whose pictures are there, and remove the oldest ones that are too many."""
        (place / _RESULT).write_text(json.dumps(result), encoding="utf-8")
        self.prune(keep=place)

    def prune(self, keep: Path | None = None) -> None:
        """Remove what was never finished, and the least recently used until the rest fits."""
        places = [path for path in self._folder.iterdir() if _NAME.fullmatch(path.name) and (path / _MARKER).is_file()]
        places.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        used, oldest = 0, time.time() - _IN_WORK
        for place in places:
            unfinished = not (place / _RESULT).exists() and place.stat().st_mtime < oldest
            used += sum(file.stat().st_size for file in place.iterdir())
            if (unfinished or used > self._limit) and place != keep:
                shutil.rmtree(place, ignore_errors=True)
