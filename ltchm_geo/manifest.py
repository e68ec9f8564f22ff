"""The list of everything a scene consists of.

Of a folder it is written last, as a file: a scene without it was not finished. A missing shard would otherwise read as
fill value, and nobody would notice. Of a single file the ZIP directory is the list, which is written last as well.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ._json import dumps, is_sha256, loads, require_keys
from ._recognise import MANIFEST_KEY, ROOT_KEY
from ._store import KEY
from .errors import ContainerError, CorruptContainerError, IncompleteContainerError
from .scene_meta import check_version

__all__ = ["MANIFEST_KEY", "MAX_JSON", "MAX_MANIFEST", "MAX_PREVIEW", "PREVIEW_KEY", "ROOT_KEY", "Manifest", "Record"]

PREVIEW_KEY = "preview.jpg"
MAX_JSON = 1 << 24
MAX_MANIFEST = 1 << 26
MAX_PREVIEW = 1 << 20
MAX_FILES = 1_000_000
FORMAT_VERSION = 2


class Digest(Protocol):
    """A checksum of what comes piece by piece; `hashlib`'s are such."""

    def update(self, data: bytes, /) -> None:
        """Take in the next piece."""

    def hexdigest(self) -> str:
        """The checksum of all pieces."""


class _Crc32:
    """See `Digest`."""

    def __init__(self) -> None:
        self._crc = 0

    def update(self, data: bytes, /) -> None:
        self._crc = zlib.crc32(data, self._crc)

    def hexdigest(self) -> str:
        return f"{self._crc:08x}"


@dataclass(frozen=True)
class Record:
    """Size and checksum of what is stored under one key.

    Attributes
    ----------
    size : int
        In bytes.
    checksum : str
        In hex: its SHA-256, or what the ZIP directory has of it, its CRC-32.
    """

    size: int
    checksum: str

    @classmethod
    def of(cls, data: bytes) -> Record:
        """The record of these bytes, with their SHA-256."""
        return cls(len(data), hashlib.sha256(data).hexdigest())

    @property
    def kind(self) -> str:
        """What the checksum is."""
        return "SHA-256" if is_sha256(self.checksum) else "CRC-32"

    def digest(self) -> Digest:
        """What makes a checksum of this kind."""
        return hashlib.sha256() if self.kind == "SHA-256" else _Crc32()

    def fits(self, data: bytes) -> bool:
        """Whether these are the bytes that are meant."""
        digest = self.digest()
        digest.update(data)
        return len(data) == self.size and digest.hexdigest() == self.checksum

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
    """Every key of a scene but the manifest itself: the shards, and the other files.

    Attributes
    ----------
    shards, files : mapping of str to Record
    source : str
        Whom messages name as having said so.
    """

    shards: Mapping[str, Record]
    files: Mapping[str, Record]
    source: str = "its manifest"

    @classmethod
    def of_directory(cls, listed: Mapping[str, tuple[int, int]]) -> Manifest:
        """What a ZIP directory, sizes and CRC-32 of all members by name, says about a scene."""
        records = {key: Record(size, f"{crc:08x}") for key, (size, crc) in listed.items()}
        files = {key: records.pop(key) for key in (ROOT_KEY, PREVIEW_KEY) if key in records}
        return cls(records, files, "the file's directory")

    def pack(self) -> bytes:
        """As it is stored; keys are sorted so that equal scenes have equal manifests."""
        parts = {
            name: {key: {"bytes": record.size, "sha256": record.checksum} for key, record in sorted(records.items())}
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
