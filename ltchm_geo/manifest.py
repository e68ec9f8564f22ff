"""The list of everything a scene consists of. It is written last: a scene without it was not finished.

A missing shard would otherwise read as fill value, and nobody would notice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ._json import dumps, is_sha256, loads, require_keys
from ._recognise import MANIFEST_KEY
from ._store import KEY
from .errors import ContainerError, CorruptContainerError, IncompleteContainerError
from .scene_meta import check_version

__all__ = ["MANIFEST_KEY", "MAX_JSON", "MAX_MANIFEST", "MAX_PREVIEW", "PREVIEW_KEY", "Manifest", "Record"]

PREVIEW_KEY = "preview.jpg"
MAX_JSON = 1 << 24
MAX_MANIFEST = 1 << 26
MAX_PREVIEW = 1 << 20
MAX_FILES = 1_000_000
FORMAT_VERSION = 2


@dataclass(frozen=True)
class Record:
    """Size and SHA-256 of what is stored under one key."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> Record:
        """The record of these bytes."""
        return cls(len(data), hashlib.sha256(data).hexdigest())

    @classmethod
    def from_dict(cls, found: Any) -> Record:
        """Strict; ValueError says what is wrong."""
        found = require_keys(found, {"bytes", "sha256"}, what="manifest entry")
        size, digest = found["bytes"], found["sha256"]
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**53:
            raise ValueError(f"size {size!r} makes no sense")
        if not is_sha256(digest):
            raise ValueError(f"{digest!r} is not a SHA-256")
        return cls(size, digest)


@dataclass(frozen=True)
class Manifest:
    """Every key of a scene but the manifest itself: the shards, and the other files."""

    shards: Mapping[str, Record]
    files: Mapping[str, Record]

    def pack(self) -> bytes:
        """As it is stored; keys are sorted so that equal scenes have equal manifests."""
        parts = {
            name: {key: {"bytes": record.size, "sha256": record.sha256} for key, record in sorted(records.items())}
            for name, records in (("shards", self.shards), ("files", self.files))
        }
        return dumps({"format": FORMAT_VERSION, "complete": True, **parts})

    @classmethod
    def unpack(cls, data: bytes) -> Manifest:
        """Strict inverse of `pack`.

        Raises
        ------
        UnsupportedVersionError, IncompleteContainerError, CorruptContainerError
        """
        try:
            found = loads(data)
            check_version(found, "manifest", known=FORMAT_VERSION)
            found = require_keys(found, {"format", "complete", "shards", "files"}, what="manifest")
            if found["complete"] is not True:
                raise IncompleteContainerError("the scene was not finished: compress it again")
            return cls(_records(found["shards"]), _records(found["files"]))
        except ContainerError:
            raise
        except ValueError as error:
            raise CorruptContainerError(f"manifest is damaged: {error}") from error


def _records(found: Any) -> dict[str, Record]:
    if not isinstance(found, dict) or len(found) > MAX_FILES:
        raise ValueError("its entries are not an object, or too many")
    if unsafe := next((key for key in found if not KEY.fullmatch(key)), None):
        raise ValueError(f"unsafe name {unsafe!r}")
    return {key: Record.from_dict(record) for key, record in found.items()}
