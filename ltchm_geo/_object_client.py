"""Objects in a store over the network: ranged reads, whole writes, and errors that say what to do.

obstore does the talking: S3 and everything that speaks its language, Google Cloud Storage, Azure, plain HTTP. Keys,
region and endpoint come from the usual environment variables (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ...).
Requests that fail for a passing reason are repeated.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from .errors import DestinationExistsError, LtchmError, ObjectMissingError, ObjectStoreError, UsageError, installing
from .location import ObjectUrl

__all__ = ["ObjectClient", "Piece"]

_PART = 8 << 20
_MAX_PARTS = 10_000  # S3's limit
_ENVIRONMENT = ("AWS_", "AZURE_", "GOOGLE_")
_CLIENT = {"timeout": "120s", "connect_timeout": "10s"}
_RETRY = {
    "max_retries": 5,
    "retry_timeout": timedelta(seconds=180),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=10), "base": 2},
}
_BEHIND_END = re.compile("416 Range Not Satisfiable|Wanted range starting at")
_REPLACED = "the object was replaced while it was read: open it again"
_DENIED = "access was denied: check the keys and the bucket's policy"
_SIGNS = (  # what an error's text says, and what that means to the user
    ("Precondition", _REPLACED),
    ("NoSuchBucket", "there is no such bucket"),
    ("InvalidAccessKeyId", "the access key is not known there: check AWS_ACCESS_KEY_ID"),
    ("SignatureDoesNotMatch", "the secret key is wrong: check AWS_SECRET_ACCESS_KEY"),
    ("AccessDenied", _DENIED),
    ("lacked the necessary privileges", _DENIED),
    ("lacked valid authentication", _DENIED),
    ("PermanentRedirect", "the bucket is in another region: set AWS_REGION"),
    ("169.254.169.254", "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true"),
    ("error sending request", "the server cannot be reached: check the address (AWS_ENDPOINT_URL) and the network"),
)


class Piece(NamedTuple):
    """Part of an object, the object's whole size, and the tag of its present state (None where the store has none).

    `state` is all that the store's answer says of that state; without a tag it has to do.
    """

    data: bytes
    size: int
    tag: str | None
    state: tuple[int, str | None, datetime]

    @classmethod
    def of(cls, data: bytes, meta: Any) -> Piece:
        """Part of the object that obstore describes so."""
        tag, size = meta["e_tag"], meta["size"]
        # A weak tag (of a server that compresses, say) must not be asked for.
        strong = None if tag is None or tag.startswith("W/") else tag
        return cls(data, size, strong, (size, tag, meta["last_modified"]))

    def same_state(self, other: Piece) -> bool:
        """Whether both are parts of one object, as far as can be told."""
        return self.state == other.state if self.tag is None else self.tag == other.tag


class ObjectClient:
    """One store; keys are names in it. Thread-safe.

    Parameters
    ----------
    url : ObjectUrl
        Any object of the store.

    Raises
    ------
    UsageError
        obstore is not installed.
    ObjectStoreError, ObjectMissingError
        Also from every method.
    """

    def __init__(self, url: ObjectUrl):
        settings = tuple(sorted((name, v) for name, v in os.environ.items() if name.startswith(_ENVIRONMENT)))
        self._root = url.root
        with self._explained(url.key):
            self._store = _connect(url.root, settings)

    def get(self, key: str, offset: int, size: int, like: Piece | None = None) -> Piece:
        """Up to `size` (at least 1) bytes from `offset` on, fewer at the end; with `like`, of that state only."""
        import obstore
        from obstore.exceptions import GenericError

        options: dict[str, Any] = {"range": (offset, offset + size)}
        if like is not None and like.tag is not None:
            options["if_match"] = like.tag
        with self._explained(key):
            try:
                found = obstore.get(self._store, key, options=options)  # type: ignore[arg-type]
            except GenericError as error:
                if not _BEHIND_END.search(str(error)):
                    raise
                head = obstore.head(self._store, key)
                if head["size"] > offset:
                    raise
                return Piece.of(b"", head)  # a range behind the end is an error to some stores
            begin, end = found.range
            if begin != offset or end - begin > size:
                raise ObjectStoreError(f"{self._root}/{key}: the server did not send the bytes that were asked for")
            piece = Piece.of(bytes(found.bytes()), found.meta)
            if like is not None and not like.same_state(piece):
                raise ObjectStoreError(f"{self._root}/{key}: {_REPLACED}")
            return piece

    def state(self, key: str) -> str | None:
        """What tells one object of this name from another; None where there is none."""
        try:
            found = self.get(key, 0, 1)  # not its head: only the answer to this says that there is no such bucket
        except ObjectMissingError:
            return None
        return f"{found.size} {found.tag}"

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        return self.state(key) is not None

    def put(self, key: str, file: Path, *, replace: bool) -> None:
        """Store a file; the object appears when all of it has arrived.

        DestinationExistsError unless `replace` when there is one already. Two writers at the same moment cannot both
        succeed, unless the file is large: those go in parts, and stores do not look at the end once more.
        """
        import obstore

        size = file.stat().st_size
        part = max(_PART, -(-size // _MAX_PARTS))
        with self._explained(key):
            if replace or size > _PART:
                obstore.put(self._store, key, file, chunk_size=part)
            else:
                obstore.put(self._store, key, file.read_bytes(), mode="create", use_multipart=False)

    def keys(self, prefix: str) -> Iterator[str]:
        """All keys below ``prefix/``."""
        import obstore

        with self._explained(prefix):
            for page in obstore.list(self._store, f"{prefix}/"):
                yield from (found["path"] for found in page)

    def delete(self, *keys: str) -> None:
        """Remove objects; those that are not there are no error."""
        import obstore

        if keys:
            with self._explained(keys[0]):
                obstore.delete(self._store, list(keys))

    @contextlib.contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        try:
            yield
        except ImportError as error:
            raise UsageError(f"{self._root} needs obstore: {installing('cloud')}") from error
        except Exception as error:
            if (found := _explain(error, f"{self._root}/{key}")) is None:
                raise
            raise found from error


def _explain(error: Exception, where: str) -> LtchmError | None:
    """The library's error for one of obstore's, None for any other."""
    from obstore.exceptions import AlreadyExistsError, BaseError

    text = " ".join(str(error).split())
    reason = next((meaning for sign, meaning in _SIGNS if sign in text), None)
    if isinstance(error, AlreadyExistsError):
        return DestinationExistsError(f"{where} exists")
    if isinstance(error, FileNotFoundError) and reason is None:
        return ObjectMissingError(f"{where}: no such object")
    if isinstance(error, FileNotFoundError | PermissionError | BaseError):
        return ObjectStoreError(f"{where}: {reason or text[:300]}")
    return None


@lru_cache(maxsize=16)
def _connect(root: str, settings: tuple[tuple[str, str], ...]) -> Any:
    """The store, shared within the process: it keeps connections open. `settings` is the environment it reads."""
    from obstore.store import from_url

    if root.startswith("memory:"):
        return from_url("memory:///")
    # Whoever names an endpoint without TLS means it.
    plain = root.startswith("http:") or dict(settings).get("AWS_ENDPOINT_URL", "").startswith("http:")
    client = {**_CLIENT, "allow_http": True} if plain else _CLIENT
    return from_url(root, client_options=client, retry_config=_RETRY)  # type: ignore[call-overload]
