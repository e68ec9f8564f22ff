"""Reading scenes where they lie in an object store, by ranged requests.

A request takes as long as a hundred kilobytes more, so bytes are fetched in blocks and the last ones kept: opening a
scene takes two or three requests, and the tiles of a shard come together.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from ._object_client import ObjectClient
from ._recognise import MANIFEST_KEY
from ._store import KEY, Store, ZipStore, exactly
from .errors import CorruptContainerError, NotAContainerError, ObjectMissingError, ObjectStoreError
from .location import Location, ObjectUrl

__all__ = ["BLOCK", "open_object_store"]

BLOCK = 1 << 18
_KEPT_BLOCKS = 64  # 16 MiB per open scene
_KEPT_OBJECTS = 1024


def open_object_store(url: ObjectUrl) -> Store:
    """Open a scene for reading.

    Raises
    ------
    NotAContainerError, CorruptContainerError, ObjectStoreError, UsageError
    """
    client = ObjectClient(url)
    if url.is_dir():
        return ObjectFolder(url, client)
    try:
        return ZipStore(url, RangedObject(client, url.key, _Blocks()))
    except ObjectMissingError as error:
        raise NotAContainerError(str(error)) from error


class _Blocks:
    """The blocks used last, of any number of objects."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, number: int) -> bytes | None:
        with self._lock:
            if (key, number) in self._blocks:
                self._blocks.move_to_end((key, number))
            return self._blocks.get((key, number))

    def put(self, key: str, number: int, data: bytes) -> None:
        with self._lock:
            self._blocks[key, number] = data
            while len(self._blocks) > _KEPT_BLOCKS:
                self._blocks.popitem(last=False)


class RangedObject:
    """One object; see `RandomAccess`. Replaced while it is read, it gives an error, never a mixture.

    Parameters
    ----------
    client : ObjectClient
    key : str
    blocks : _Blocks
        Where to keep blocks.
    """

    def __init__(self, client: ObjectClient, key: str, blocks: _Blocks):
        self._client, self._key, self._blocks = client, key, blocks
        first = client.get(key, 0, BLOCK)  # tells the size, and holds what is wanted first
        self.size, self._opened = first.size, first._replace(data=b"")
        blocks.put(key, 0, first.data)

    def confirm(self) -> None:
        """Raise `ObjectStoreError` unless the object is still what it was when it was opened."""
        self._client.get(self._key, 0, 1, self._opened)

    def pread(self, offset: int, size: int) -> bytes:
        """See `RandomAccess.pread`."""
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        first, last = offset // BLOCK, (end - 1) // BLOCK
        blocks = {number: self._blocks.get(self._key, number) for number in range(first, last + 1)}
        missing = [number for number, data in blocks.items() if data is None]
        if missing:
            blocks.update(self._fetch(missing[0], missing[-1]))
        data = b"".join(block for block in blocks.values() if block is not None)
        return data[offset - first * BLOCK : end - first * BLOCK]

    def _fetch(self, first: int, last: int) -> dict[int, bytes]:
        begin, end = first * BLOCK, min((last + 1) * BLOCK, self.size)
        data = self._client.get(self._key, begin, end - begin, self._opened).data
        exactly(data, end - begin, self._key)
        found = {number: data[number * BLOCK - begin :][:BLOCK] for number in range(first, last + 1)}
        for number, block in found.items():
            self._blocks.put(self._key, number, block)
        return found

    def close(self) -> None:
        """See `RandomAccess.close`; there is nothing to release."""


class ObjectFolder:
    """A scene kept as one object per key; see `Store`.

    Each object that is opened after the manifest has to belong to it. Who replaces a scene removes its manifest first:
    as long as that is there unchanged, so is what was opened before it was asked for.
    """

    def __init__(self, url: ObjectUrl, client: ObjectClient):
        self.path: Location = url
        self._manifest: RangedObject | None = None
        self._base, self._client, self._blocks = url.key, client, _Blocks()
        self._objects: OrderedDict[str, RangedObject] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, key: str) -> bool:
        try:
            self._object(key)
        except ObjectMissingError:
            return False
        return True

    def size(self, key: str) -> int:
        """See `Store.size`."""
        return self._present(key).size

    def stored_size(self, key: str) -> int:
        """See `Store.stored_size`."""
        return self.size(key)

    def read(self, key: str, offset: int, size: int) -> bytes:
        """See `Store.read`."""
        return exactly(self._present(key).pread(offset, size), size, key)

    def directory(self) -> dict[str, tuple[int, int]] | None:
        """See `Store.directory`."""
        return None

    def total_size(self) -> int | None:
        """See `Store.total_size`."""
        return None

    def close(self) -> None:
        """See `Store.close`."""

    def _confirm(self) -> None:
        """Raise `ObjectStoreError` once another scene has taken the name."""
        if self._manifest is None:
            return
        try:
            self._manifest.confirm()
        except ObjectMissingError as error:
            raise ObjectStoreError(f"{self.path} was replaced while it was open: open it again") from error

    def _present(self, key: str) -> RangedObject:
        try:
            return self._object(key)
        except ObjectMissingError as error:
            raise CorruptContainerError(f"{key} is missing") from error

    def _object(self, key: str) -> RangedObject:
        if not KEY.fullmatch(key):
            raise CorruptContainerError(f"unsafe name {key!r}")
        with self._lock:
            if key in self._objects:
                self._objects.move_to_end(key)
                return self._objects[key]
        try:
            found = RangedObject(self._client, f"{self._base}/{key}", self._blocks)
        except ObjectMissingError:
            self._confirm()  # it may be missing because the scene is being replaced
            raise
        self._confirm()
        if key == MANIFEST_KEY and self._manifest is None:
            self._manifest = found
        with self._lock:
            self._objects[key] = found
            while len(self._objects) > _KEPT_OBJECTS:
                self._objects.popitem(last=False)
        return found
