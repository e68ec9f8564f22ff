"""Where scenes lie: paths of the local file system, or URLs of objects in a store."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote
from urllib.request import url2pathname

from .errors import UsageError

__all__ = ["WRITABLE_SCHEMES", "Location", "ObjectUrl", "beside", "is_object_url", "locate"]

WRITABLE_SCHEMES = ("s3", "gs", "az", "memory")
_SCHEMES = (*WRITABLE_SCHEMES, "http", "https")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://([^/]*)(.*)", re.DOTALL)  # two letters or more: "C:/scene" is a path


@dataclass(frozen=True)
class ObjectUrl:
    """An object in a store, or, if its name ends in ``.zarr`` or with a slash, all objects below that.

    Like a `Path` in what it offers, as far as it goes.

    Parameters
    ----------
    url : str
        ``s3://bucket/key``, ``gs://bucket/key``, ``az://container/key``, ``http(s)://host/path`` (reading
        only), or ``memory:///key``, which lasts as long as the process.
    """

    url: str

    def __post_init__(self) -> None:
        scheme, host, path = self._parts
        if scheme not in _SCHEMES:
            raise UsageError(f"{self.url}: unknown kind of address; known are {', '.join(_SCHEMES)}")
        if not path.strip("/") or (not host and scheme != "memory"):
            raise UsageError(f"{self.url} names no object: write {scheme}://bucket/name")
        if scheme in ("http", "https") and "?" in path:
            raise UsageError(f"{self.url}: addresses with a query (?...) cannot be read in place: download the file")

    @property
    def _parts(self) -> tuple[str, str, str]:
        found = _URL.match(self.url)
        return ("", "", "") if found is None else (found[1].lower(), found[2], found[3])

    @property
    def scheme(self) -> str:
        """Such as ``s3``."""
        return self._parts[0]

    @property
    def root(self) -> str:
        """The store: scheme and bucket, container or host."""
        scheme, host, _ = self._parts
        return f"{scheme}://{host}"

    @property
    def key(self) -> str:
        """Name within the store."""
        path = self._parts[2].strip("/")
        return unquote(path) if self.scheme in ("http", "https") else path

    @property
    def name(self) -> str:
        """The last part of the key."""
        return PurePosixPath(self.key).name

    @property
    def stem(self) -> str:
        """`name` without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """Of `name`, with its dot."""
        return PurePosixPath(self.name).suffix

    def is_dir(self) -> bool:
        """Whether a scene here is many objects."""
        return self.suffix.lower() == ".zarr" or self.url.endswith("/")

    def __str__(self) -> str:
        return self.url

    def __fspath__(self) -> str:
        return self.url


Location = Path | ObjectUrl


def is_object_url(name: str | os.PathLike[str]) -> bool:
    """Whether a name is a URL other than ``file://``, by its form."""
    found = _URL.match(os.fspath(name))
    return found is not None and found[1].lower() != "file"


def locate(name: str | os.PathLike[str]) -> Location:
    """The place a name means.

    Raises
    ------
    UsageError
        A URL of an unknown kind, or one that names nothing.
    """
    if isinstance(name, Path | ObjectUrl):
        return name
    name = os.fspath(name)
    if is_object_url(name):
        return ObjectUrl(name)
    found = _URL.match(name)
    return Path(name) if found is None else Path(url2pathname(found[3]))


def beside(place: Location, suffix: str) -> Path:
    """A local file named after a scene: in its folder, or in the current one if it lies in an object store."""
    if not place.name:
        raise UsageError(f"{place} is no name of a scene: say where to write the result")
    return Path(place.stem + suffix) if isinstance(place, ObjectUrl) else place.with_suffix(suffix)
