"""Whether there is room for the next scene, so that an archive stops before the disk is full rather than when it is."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

from ..errors import ArchiveError

__all__ = ["Space"]

#: Left free for journal, manifests and everybody else.
RESERVE = 1 << 28
#: Of the pixels' bytes, before any scene has shown better: lossy ones stay far below, lossless ones do not.
_FIRST_SHARE = {True: 1.0, False: 0.35}
_HEADROOM = 1.5  # over the largest share seen


class Space:
    """Free room of a file system, less what scenes in work may still take.

    Parameters
    ----------
    folder : Path
        On that file system.
    guaranteed : bool
        Whether the scenes bound their errors: then they are larger.
    reserve : int
        Bytes to be left free.
    """

    def __init__(self, folder: Path, guaranteed: bool, reserve: int = RESERVE):
        self._folder, self._reserve, self._share = folder, reserve, _FIRST_SHARE[guaranteed]
        self._largest, self._taken = 0.0, 0
        self._lock = threading.Lock()

    def learn(self, raw_bytes: int, size: int) -> None:
        """A finished scene of `raw_bytes` of pixels took `size` bytes."""
        with self._lock:
            self._largest = max(self._largest, size / raw_bytes)
            self._share = min(_HEADROOM * self._largest, 1.1)

    def needed(self, raw_bytes: int) -> int:
        """Bytes that a scene may take while it is made.

        Its shards, the single file packed from them, and overviews waiting for their turn: a sixteenth of the pixels
        and a third of that.
        """
        with self._lock:
            return round(raw_bytes * (2 * self._share + 1 / 12))

    def take(self, raw_bytes: int, name: str) -> int:
        """Set room aside for a scene, to be given back by `give`; returns the bytes.

        Raises
        ------
        ArchiveError
            There is not enough. When other scenes are in work, theirs counts as taken in full.
        """
        need = self.needed(raw_bytes)
        with self._lock:
            free = shutil.disk_usage(self._folder).free - self._taken - self._reserve
            if need > free:
                raise ArchiveError(
                    f"the disk of {self._folder} is nearly full: {name} may need {need / 1e9:.2f} GB, "
                    f"{max(free, 0) / 1e9:.2f} GB are left: free some space and run the same command again"
                )
            self._taken += need
        return need

    def give(self, need: int) -> None:
        """Give back what `take` returned."""
        with self._lock:
            self._taken -= need
