"""Writing scenes to an object store.

A scene is made in a temporary folder (of the size of the result, a few percent of the pixels) and uploaded when it is
complete, so that a run that fails leaves nothing in the store and what was there before. A single file appears there
whole or not at all. Of a ``.zarr`` scene the manifest comes last, and without it the rest is not taken for a scene.
"""

from __future__ import annotations

import contextlib
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ._object_client import ObjectClient
from ._recognise import MANIFEST_KEY
from ._sink import MARKER, DirectorySink, Sink, ZipSink, explained, is_folder
from .errors import DestinationExistsError, LtchmError, UsageError
from .location import WRITABLE_SCHEMES, ObjectUrl

__all__ = ["ObjectSink", "check_object_destination"]

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
        raise DestinationExistsError(f"{url} exists; remove it, choose another name, or ask to overwrite")


def _refuse_others(client: ObjectClient, url: ObjectUrl) -> None:
    if not client.exists(f"{url.key}/{MARKER}"):
        raise DestinationExistsError(f"{url} holds other objects and will not be replaced; choose another name")


class ObjectSink:
    """See `Sink`."""

    def __init__(self, url: ObjectUrl, overwrite: bool):
        self._url, self._overwrite = url, overwrite
        self._client = ObjectClient(url)
        self._folder = tempfile.TemporaryDirectory(prefix="ltchm-", ignore_cleanup_errors=True)
        self._local = Path(self._folder.name) / url.name
        self._staged: Sink = DirectorySink(self._local, False) if is_folder(url) else ZipSink(self._local, False)

    def put(self, key: str, data: bytes) -> None:
        """See `Sink.put`."""
        self._staged.put(key, data)

    def commit(self) -> None:
        """See `Sink.commit`."""
        self._staged.commit()
        check_object_destination(self._url, self._overwrite)
        with explained(self._url):
            if is_folder(self._url):
                self._upload_folder()
            else:
                self._client.put(self._url.key, self._local, replace=self._overwrite)
        self._folder.cleanup()

    def _upload_folder(self) -> None:
        base = self._url.key
        files = {f"{base}/{p.relative_to(self._local).as_posix()}": p for p in self._local.rglob("*") if p.is_file()}
        manifest = f"{base}/{MANIFEST_KEY}"
        before = set(self._client.keys(base))
        # From here on the scene that was here is none any more, whatever happens: it is about to be mixed with another.
        self._client.delete(*before & {manifest})
        try:
            with ThreadPoolExecutor(_UPLOADS, "ltchm-upload") as pool:
                others = [(key, path) for key, path in files.items() if key != manifest]
                list(pool.map(lambda item: self._client.put(*item, replace=True), others))
            self._client.delete(*before - files.keys())
            self._client.put(manifest, files[manifest], replace=True)
        except BaseException:
            with contextlib.suppress(LtchmError):  # the error that brought us here matters more
                self._client.delete(*files)
            raise

    def abort(self) -> None:
        """See `Sink.abort`."""
        self._staged.abort()
        self._folder.cleanup()
