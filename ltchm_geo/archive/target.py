"""Where an archive lies: its results, and the journal and manifests about them."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from .._recognise import MANIFEST_KEY
from .._sink import explained, remove_scene
from ..errors import DestinationError, UsageError
from ..location import Location, ObjectUrl, is_object_url, locate

__all__ = ["Target"]

JOURNAL_NAME = "journal.sqlite"


@dataclass(frozen=True)
class Target:
    """The destination of an archive.

    Attributes
    ----------
    root : str
        Folder, or URL of one in an object store.
    journal : Path
        Always on this machine. Manifests and STAC documents lie beside it.
    """

    root: str
    journal: Path

    @classmethod
    def of(cls, destination: str | os.PathLike[str], journal: str | os.PathLike[str] | None = None) -> Target:
        """The target with its journal where it was asked for, or in the folder.

        Raises
        ------
        UsageError
            An object store and no place for the journal.
        DestinationError
            The destination is a file.
        """
        root = os.fspath(destination)
        if is_object_url(root):
            if journal is None:
                raise UsageError(
                    f"{root} is no local folder: say where the journal is to be, with --journal (journal=)"
                )
            return cls(root.rstrip("/"), Path(journal).absolute())
        folder = Path(os.path.abspath(root))
        if folder.exists() and not folder.is_dir():
            raise DestinationError(f"{folder} is not a folder: an archive needs one of its own")
        return cls(str(folder), folder / JOURNAL_NAME if journal is None else Path(journal).absolute())

    @property
    def folder(self) -> Path | None:
        """The folder of results, if they lie on this machine."""
        return None if is_object_url(self.root) else Path(self.root)

    @property
    def documents(self) -> Path:
        """The folder of manifests and STAC documents."""
        return self.journal.parent

    def path(self, result: str) -> Location:
        """Where a result lies."""
        return locate(f"{self.root}/{result}")

    def prepare(self, result: str) -> None:
        """Create the folder of a result."""
        if isinstance(path := self.path(result), Path):
            with explained(path):
                path.parent.mkdir(parents=True, exist_ok=True)

    def state(self, result: str) -> str | None:
        """What tells one scene under the result's name from another; None where there is none.

        Raises
        ------
        DestinationError
            The object store does not answer.
        """
        path = self.path(result)
        if isinstance(path, ObjectUrl):
            from .._object_sink import object_state

            with explained(path):
                return object_state(path)
        try:
            found = os.stat(_essential(path))
        except OSError:
            return None
        return f"{found.st_size} {found.st_mtime_ns} {found.st_ino}"

    def remove(self, result: str) -> None:
        """Remove a result."""
        remove_scene(self.path(result))

    def digest(self, result: str) -> str | None:
        """SHA-256 of a result, of its manifest if it is a folder; None in an object store."""
        path = self.path(result)
        if not isinstance(path, Path):
            return None
        with explained(path), _essential(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def _essential(path: Path) -> Path:
    """The file that stands for a scene: itself, or the manifest, which has the hashes of all else, of a folder."""
    return path / MANIFEST_KEY if path.is_dir() else path
