"""The network's weights: which there are, where they lie, and that they are what they claim to be.

A scene names its weights by SHA-256, so this module never trusts a file name. Weights are plain arrays here
(safetensors read with numpy); torch comes in only where a model is built from them.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from ._json import is_sha256, loads, require_keys
from .errors import InvalidWeightsError, WeightsError, WeightsHashError, WeightsNotFoundError

__all__ = [
    "MANIFEST",
    "TAG",
    "LoadedWeights",
    "WeightsEntry",
    "available",
    "find",
    "load",
    "read_manifest",
    "search_path",
    "user_weights_dir",
]

MANIFEST = "manifest.json"
MAX_BYTES = 1 << 30
_MAX_JSON = 1 << 24
_HASH_PREFIX = re.compile(r"[0-9a-f]{8,64}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors")  # a bare name: never leads out of its folder
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_STATUSES = ("preview", "stable", "archived", "local")


@dataclass(frozen=True)
class WeightsEntry:
    """One line of a weights manifest.

    Parameters
    ----------
    tag : str
        Name for people, e.g. ``"ltchm-128-v0"``.
    file : str
        Bare file name beside the manifest, ending in ``.safetensors``.
    sha256 : str
        Lower-case hex digest of the whole file; what scenes refer to.
    bytes : int
        Size of the file.
    N : int
        Channels of the network (paper, table 1).
    lambdas : tuple of two floats
        Lowest and highest rate-distortion weight the network was trained for.
    status : str
        ``preview`` (may be superseded), ``stable``, ``archived`` (superseded; kept so that old scenes can be read) or
        ``local`` (in no manifest).
    licence, data, recipe, commit, notes : str
        Provenance, for people.
    """

    tag: str
    file: str
    sha256: str
    bytes: int
    N: int
    lambdas: tuple[float, float]
    status: str
    licence: str
    data: str
    recipe: str
    commit: str
    notes: str = ""

    def __post_init__(self) -> None:
        texts = (
            self.tag,
            self.file,
            self.sha256,
            self.status,
            self.licence,
            self.data,
            self.recipe,
            self.commit,
            self.notes,
        )
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("weights entry: tag, file, hash and provenance must be strings")
        if not TAG.fullmatch(self.tag) or not _FILE_NAME.fullmatch(self.file) or not is_sha256(self.sha256):
            raise ValueError(
                f"weights entry {self.tag!r}: malformed tag, file name {self.file!r} or hash {self.sha256!r}"
            )
        if self.status not in _STATUSES:
            raise ValueError(f"weights entry {self.tag!r}: status {self.status!r} is not one of {', '.join(_STATUSES)}")
        if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in (self.bytes, self.N)):
            raise ValueError(f"weights entry {self.tag!r}: bytes and N must be whole numbers")
        if len(self.lambdas) != 2 or not all(isinstance(x, int | float) and 0 < x < 1e9 for x in self.lambdas):
            raise ValueError(f"weights entry {self.tag!r}: lambdas must be two positive numbers")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` gives an equal entry back."""
        return {**asdict(self), "lambdas": list(self.lambdas)}

    @classmethod
    def from_dict(cls, found: Any) -> WeightsEntry:
        """Strict inverse of `to_dict` (``notes`` may be left out); ValueError says what is wrong."""
        found = {"notes": "", **found} if isinstance(found, dict) else found
        found = require_keys(found, {field.name for field in fields(cls)}, what="weights entry")
        if not isinstance(found["lambdas"], list):
            raise ValueError("weights entry: lambdas is not a list")
        return cls(**{**found, "lambdas": tuple(found["lambdas"])})


@dataclass(frozen=True)
class LoadedWeights:
    """A verified weights file in memory. The arrays are read-only because every caller in the process shares them."""

    entry: WeightsEntry
    path: Path
    metadata: Mapping[str, str]
    tensors: Mapping[str, NDArray[Any]]

    @property
    def sha256(self) -> str:
        """Digest of the file the tensors came from."""
        return self.entry.sha256

    @property
    def config(self) -> dict[str, Any]:
        """The model configuration stored in the file (metadata key ``ltchm_config``)."""
        return self.document("ltchm_config")

    def document(self, key: str) -> dict[str, Any]:
        """The JSON object stored in the file's metadata under `key`."""
        try:
            found = loads(self.metadata[key].encode())
        except KeyError as error:
            raise InvalidWeightsError(
                f"{self.path}: no {key!r} in the metadata; not weights of this library"
            ) from error
        except ValueError as error:
            raise InvalidWeightsError(f"{self.path}: metadata {key!r} is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise InvalidWeightsError(f"{self.path}: metadata {key!r} is not a JSON object")
        return found


# --- where weights lie -----------------------------------------------------------------------------------------------


def user_weights_dir() -> Path:
    """The folder for weights a user adds by hand."""
    if sys.platform == "win32":
        base = Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "ltchm_geo" / "weights"


def search_path() -> list[Path]:
    """Folders looked through for weights, first to last: LTCHM_WEIGHTS, the user's, the installed package's."""
    folders = [Path(entry) for entry in os.environ.get("LTCHM_WEIGHTS", "").split(os.pathsep) if entry]
    folders.append(user_weights_dir())
    installed = find_spec("ltchm_geo_weights")
    if installed is not None:
        folders.extend(p for p in map(Path, installed.submodule_search_locations or ()) if p.is_dir())
    return folders


def available() -> list[tuple[WeightsEntry, Path]]:
    """All weights on this machine, in search order: entries of readable manifests whose file is there."""
    return [
        (entry, folder / entry.file)
        for folder in search_path()
        for entry in read_manifest(folder)[1]
        if (folder / entry.file).is_file()
    ]


def find(name: str | os.PathLike[str] | None = None) -> tuple[WeightsEntry, Path]:
    """Look weights up by tag, by SHA-256 or at least eight digits of it, or by path of a ``.safetensors`` file.

    Without a name, the default of the first manifest that has one. The file itself is checked by `load`.

    Raises
    ------
    WeightsNotFoundError
        Says what was looked for, where, and what to do.
    """
    if name is None:
        name = next((tag for folder in search_path() if (tag := read_manifest(folder)[0])), None)
        if name is None:
            raise _not_found("default weights")
    name = os.fspath(name)
    if name.endswith(".safetensors"):
        return _find_file(Path(name))
    known = available()
    for entry, path in known:
        if name in (entry.tag, entry.sha256):
            return entry, path
    matches = {entry.sha256: (entry, path) for entry, path in reversed(known) if entry.sha256.startswith(name)}
    if not _HASH_PREFIX.fullmatch(name) or not matches:
        raise _not_found(f"weights {name!r}")
    if len(matches) > 1:
        raise WeightsNotFoundError(
            f"{name!r} begins more than one hash: {', '.join(sorted(matches))}; give more digits"
        )
    return next(iter(matches.values()))


def _find_file(path: Path) -> tuple[WeightsEntry, Path]:
    if not os.path.isfile(path):  # where `Path` raises, as for a folder that may not be looked into, it says no
        raise WeightsNotFoundError(f"no weights file {path}, or it may not be read")
    for entry in read_manifest(path.parent)[1]:
        if entry.file == path.name:
            return entry, path
    digest = hashlib.sha256(_read(path)).hexdigest()
    tag = re.sub(r"[^A-Za-z0-9._-]", "_", path.stem).lstrip("._-") or "local"
    unknown = dict.fromkeys(("licence", "data", "recipe", "commit"), "unknown")
    file = f"{tag}.safetensors"
    return WeightsEntry(tag, file, digest, path.stat().st_size, 0, (1.0, 1.0), "local", **unknown), path


def _not_found(what: str) -> WeightsNotFoundError:
    folders = ", ".join(str(folder) for folder in search_path())
    known = ", ".join(entry.tag for entry, _ in available()) or "none"
    return WeightsNotFoundError(
        f"{what} not found; looked in {folders}, which have {known}. Put the .safetensors file and its {MANIFEST} "
        "into one of them or name another folder in LTCHM_WEIGHTS"
    )


def read_manifest(folder: Path) -> tuple[str | None, list[WeightsEntry]]:
    """Default tag and entries of a folder; (None, []) when it has no manifest.

    Raises
    ------
    WeightsError
        The manifest is damaged, cannot be read, or is of a newer format.
    """
    path = folder / MANIFEST
    try:
        if not path.is_file():
            return None, []
        if path.stat().st_size > _MAX_JSON:
            raise ValueError(f"larger than {_MAX_JSON} bytes")
        found = require_keys(loads(path.read_bytes()), {"format", "default", "entries"}, what="manifest")
        if found["format"] != 1:
            raise ValueError(f"format {found['format']!r} is not 1; update ltchm_geo")
        if not isinstance(found["entries"], list) or not isinstance(found["default"], str | None):
            raise ValueError("entries is not a list or default is not a tag")
        return found["default"], [WeightsEntry.from_dict(entry) for entry in found["entries"]]
    except (ValueError, OSError) as error:
        raise WeightsError(f"weights manifest {path} cannot be used: {error}") from error


# --- reading them ----------------------------------------------------------------------------------------------------


def load(name: str | os.PathLike[str] | None = None) -> LoadedWeights:
    """Find weights as `find` does, verify their SHA-256 and load them; loaded once per process.

    Raises
    ------
    WeightsNotFoundError, WeightsHashError, InvalidWeightsError
    """
    entry, path = find(name)
    try:
        state = path.stat()
    except OSError as error:
        raise WeightsNotFoundError(f"weights file {path} cannot be read: {error.strerror}") from error
    return _load(entry, path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4)
def _load(entry: WeightsEntry, path: Path, _size: int, _mtime_ns: int) -> LoadedWeights:
    # Hash and tensors come from one read: the file cannot change between the check and the use.
    data = _read(path)
    digest = hashlib.sha256(data).hexdigest()
    if digest != entry.sha256:
        raise WeightsHashError(f"{path} has SHA-256 {digest}, expected {entry.sha256}: fetch it again")
    return LoadedWeights(entry, path, MappingProxyType(_metadata(path, data)), MappingProxyType(_tensors(path, data)))


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InvalidWeightsError(f"{path} is larger than {MAX_BYTES} bytes: not weights of this library")
        return path.read_bytes()
    except OSError as error:
        raise WeightsNotFoundError(f"weights file {path} cannot be read: {error.strerror}") from error


def _metadata(path: Path, data: bytes) -> dict[str, str]:
    """The string metadata in a safetensors header (8 bytes of length, then JSON)."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(len(data) - 8, _MAX_JSON):
        raise InvalidWeightsError(f"{path} is not a safetensors file")
    try:
        found = loads(data[8 : 8 + size])
        metadata = found.get("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("metadata is not a map of strings")
    except (ValueError, AttributeError) as error:
        raise InvalidWeightsError(f"{path} has a damaged safetensors header: {error}") from error
    return metadata


def _tensors(path: Path, data: bytes) -> dict[str, NDArray[Any]]:
    # Imported here so that listing and finding weights stays cheap.
    import safetensors
    from safetensors.numpy import load as load_tensors

    try:
        tensors: dict[str, NDArray[Any]] = load_tensors(data)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InvalidWeightsError(f"{path} is not a usable safetensors file: {error}") from error
    for tensor in tensors.values():
        tensor.flags.writeable = False
    return dict(sorted(tensors.items()))
