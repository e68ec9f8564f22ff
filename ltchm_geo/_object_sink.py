"""Writing scenes to an object store.

A scene is made in a temporary folder (of the size of the result, a few percent of the pixels) and uploaded when it is
complete, so that a run that fails leaves nothing in the store and what was there before. A single file appears there
whole or not at all. Of a ``.zarr`` scene the manifest comes last, and without it the rest is not taken for a scene.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ._object_client import ObjectClient
from ._recognise import MANIFEST_KEY, ROOT_KEY
from ._sink import DirectorySink, Sink, ZipSink, explained, is_folder
from .errors import DestinationExistsError, LtchmError, UsageError
from .location import WRITABLE_SCHEMES, ObjectUrl

__all__ = ["ObjectSink", "check_object_destination", "object_state", "remove_objects", "upload_scene"]

_UPLOADS = 8  # at once


def check_object_destination(url: ObjectUrl, overwrite: bool) -> None:
    """Raise `DestinationExistsError` for one that exists and must not be replaced; says too whether it is in reach.

    Raises
    ------
    DestinationExistsError, DestinationError, UsageError
    """
    if url.scheme not in WRITABLE_SCHEMES:
        raise UsageError(f"{url} can only be read: write to {', '.join(f'{s}://' for s in WRITABLE_SCHEMES)} or a file")
    if url.is_dir() and not is_folder(url):
        raise UsageError(f"{url} is no name for a scene: end it in .ltchm or .zarr")
    with explained(url):
        client = ObjectClient(url)
        if not is_folder(url):
            found = client.exists(url.key)
        elif found := next(client.keys(url.key), None) is not None:
            # Overwriting deletes everything below this name: only ever do that to something that is a Zarr store.
            _refuse_others(client, url)
    if found and not overwrite:
        raise DestinationExistsError(f"{url} exists: give another name, or replace it by --overwrite (overwrite=True)")


def _refuse_others(client: ObjectClient, url: ObjectUrl) -> None:
    if not client.exists(f"{url.key}/{ROOT_KEY}"):
        raise DestinationExistsError(f"{url} holds other objects and will not be replaced; choose another name")


def object_state(url: ObjectUrl) -> str | None:
    """What tells one scene, or what an upload that was killed left of one, from another; None where there is none."""
    client = ObjectClient(url)
    if not is_folder(url):
        return client.state(url.key)
    return client.state(f"{url.key}/{MANIFEST_KEY}") or client.state(f"{url.key}/{ROOT_KEY}")


def remove_objects(url: ObjectUrl) -> None:
    """Remove a scene: an object, or all below its name; nothing where there is none."""
    client = ObjectClient(url)
    if not is_folder(url):
        client.delete(url.key)
        return
    client.delete(f"{url.key}/{MANIFEST_KEY}")  # first: what is left of a removal that fails is no scene any more
    _delete(client, client.keys(url.key), f"{url.key}/{ROOT_KEY}")


def upload_scene(local: Path, url: ObjectUrl, overwrite: bool) -> None:
    """Store a finished scene of this machine.

    Raises
    ------
    DestinationExistsError, DestinationError
    """
    check_object_destination(url, overwrite)
    with explained(url):
        client = ObjectClient(url)
        if is_folder(url):
            _upload_folder(client, local, url.key)
        else:
            client.put(url.key, local, replace=overwrite)


def _upload_folder(client: ObjectClient, local: Path, base: str) -> None:
    files = {f"{base}/{p.relative_to(local).as_posix()}": p for p in local.rglob("*") if p.is_file()}
    marker, manifest = f"{base}/{ROOT_KEY}", f"{base}/{MANIFEST_KEY}"
    before = set(client.keys(base))
    # From here on the scene that was here is none any more, whatever happens: it is about to be mixed with another.
    client.delete(*before & {manifest})
    try:
        client.put(marker, files[marker], replace=True)  # first: by it the next run knows what this one may leave
        with ThreadPoolExecutor(_UPLOADS, "ltchm-upload") as pool:
            others = [(key, path) for key, path in files.items() if key not in (marker, manifest)]
            list(pool.map(lambda item: client.put(*item, replace=True), others))
        client.delete(*before - files.keys())
        client.put(manifest, files[manifest], replace=True)
    except BaseException:
        with contextlib.suppress(LtchmError):  # the error that brought us here matters more
            _delete(client, before | files.keys(), marker)
        raise


def _delete(client: ObjectClient, keys: Iterable[str], marker: str) -> None:
    """Remove objects, the marker last: what is left of a removal that fails can be removed or replaced again."""
    client.delete(*(key for key in keys if key != marker))
    client.delete(marker)


class ObjectSink:
    """See `Sink`."""

    def __init__(self, url: ObjectUrl, overwrite: bool):
        self._url, self._overwrite = url, overwrite
        self._folder = tempfile.TemporaryDirectory(prefix="ltchm-", ignore_cleanup_errors=True)
        self._local = Path(self._folder.name) / url.name
        self._staged: Sink = DirectorySink(self._local, False) if is_folder(url) else ZipSink(self._local, False)

    def put(self, key: str, data: bytes) -> None:
        """See `Sink.put`."""
        self._staged.put(key, data)

    def commit(self) -> None:
        """See `Sink.commit`."""
        self._staged.commit()
        upload_scene(self._local, self._url, self._overwrite)
        self._folder.cleanup()

    def abort(self) -> None:
        """See `Sink.abort`."""
        self._staged.abort()
        self._folder.cleanup()
