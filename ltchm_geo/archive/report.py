"""What came out of an archive: the report, and the same as ``manifest.csv`` and ``manifest.json``."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._json import encode_number
from .._sink import write_file
from ..version import __version__
from .journal import SceneRecord

__all__ = ["ArchiveReport", "manifest_marks", "write_manifests"]

_FORMAT = 1
_JSON_NAME, _CSV_NAME = "manifest.json", "manifest.csv"
_SOFTWARE = "ltchm_geo"
_COLUMNS = (
    "result",
    "source",
    "state",
    "bytes",
    "raw_bytes",
    "source_bytes",
    "ratio",
    "bpp",
    "psnr",
    "max_error",
    "sha256",
    "verified",
    "seconds",
    "attempts",
    "interruptions",
    "finished",
    "error",
)
_OF_RESULTS = ("bytes", "ratio", "bpp", "psnr", "max_error", "sha256", "verified", "seconds", "finished")


@dataclass(frozen=True)
class ArchiveReport:
    """What an archive holds after a run.

    Attributes
    ----------
    destination : str
    scenes : tuple of SceneRecord
        All that the journal knows, by result.
    made : int
        Scenes finished in this run.
    seconds : float
        Wall-clock time of this run.
    undescribed : dict of str to str
        Results without the STAC Item that was asked for, and why.
    """

    destination: str
    scenes: tuple[SceneRecord, ...]
    made: int
    seconds: float
    undescribed: Mapping[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Number of scenes by state, those that occur."""
        return dict(Counter(scene.state for scene in self.scenes))

    @property
    def ok(self) -> bool:
        """Whether no scene failed and none is left to do, or to describe."""
        return not {"failed", "waiting", "running"} & self.counts.keys() and not self.undescribed

    @property
    def bytes(self) -> int:
        """Size of all results."""
        return sum(scene.bytes or 0 for scene in self.done)

    @property
    def raw_bytes(self) -> int:
        """Size of their pixels uncompressed."""
        return sum(scene.raw_bytes or 0 for scene in self.done)

    @property
    def done(self) -> tuple[SceneRecord, ...]:
        """The finished scenes."""
        return tuple(scene for scene in self.scenes if scene.state == "done")

    @property
    def failed(self) -> tuple[SceneRecord, ...]:
        """The scenes that failed."""
        return tuple(scene for scene in self.scenes if scene.state == "failed")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {
            "destination": self.destination,
            "ok": self.ok,
            "counts": self.counts,
            "made": self.made,
            "bytes": self.bytes,
            "raw_bytes": self.raw_bytes,
            "seconds": self.seconds,
            "undescribed": dict(self.undescribed),
            "scenes": [_entry(scene) for scene in self.scenes],
        }


def _entry(scene: SceneRecord) -> dict[str, Any]:
    """What the manifests say of a scene. Figures of a result only while there is one that counts."""
    found = {name: getattr(scene, name) for name in _COLUMNS}
    if scene.state != "done":
        found |= dict.fromkeys(_OF_RESULTS)
    for name in ("psnr", "max_error"):
        if found[name] is not None:
            found[name] = [encode_number(value) for value in found[name]]
    return found


def manifest_marks(folder: Path) -> dict[Path, bytes]:
    """What `write_manifests` writes to `folder`, and what tells it from other files of these names."""
    return {
        folder / _JSON_NAME: f'"software": "{_SOFTWARE} '.encode(),
        folder / _CSV_NAME: ",".join(_COLUMNS[:4]).encode(),
    }


def write_manifests(folder: Path, report: ArchiveReport, settings: Mapping[str, Any]) -> None:
    """Write ``manifest.json`` and ``manifest.csv`` to `folder`."""
    entries = report.to_dict()["scenes"]
    document = {
        "format": _FORMAT,
        "software": f"{_SOFTWARE} {__version__}",
        "settings": dict(settings),
        "counts": report.counts,
        "bytes": report.bytes,
        "raw_bytes": report.raw_bytes,
        "scenes": entries,
    }
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1)
    write_file(folder / _JSON_NAME, text.encode(), overwrite=True)
    write_file(folder / _CSV_NAME, _csv(entries).encode(), overwrite=True)


def _csv(entries: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for entry in entries:
        writer.writerow({name: _cell(value) for name, value in entry.items()})
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Values per band are separated by blanks."""
    return " ".join(map(str, value)) if isinstance(value, list) else value
