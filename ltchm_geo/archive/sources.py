"""Which scenes an archive is made of, and where each result goes. Looks at names only, opens nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from ..errors import UsageError
from ..fingerprint import is_remote
from ..raster import RASTER_SUFFIXES

__all__ = ["Found", "arrange", "find_sources"]

_SCENE_SUFFIXES = (".ltchm", ".zarr", ".part")


@dataclass(frozen=True)
class Found:
    """A source, and its path below the archive.

    Attributes
    ----------
    name : str
        Absolute path, or whatever else GDAL opens.
    place : PurePosixPath
        Relative, without "..", suffix included.
    """

    name: str
    place: PurePosixPath


def find_sources(
    sources: Iterable[str | os.PathLike[str]],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    base: str | os.PathLike[str] | None = None,
    skip: Path | None = None,
) -> list[Found]:
    """List all sources, each once, in the order of `sources` and by name within a folder.

    Parameters
    ----------
    sources : paths of files and folders (or one), ``@list.txt``, other names GDAL opens (``s3://b/a.tif``, ``/vsi...``)
        Folders are searched to any depth; hidden ones, links to folders and compressed scenes are left out. A list has
        a name per line; empty lines and those that begin with ``#`` are passed over.
    include, exclude : patterns such as ``*_MS.tif`` or ``2023/*``
        For what is in folders, matched with the name and with the path in the folder: files to take (without `include`,
        those whose suffix is among `RASTER_SUFFIXES`), and files and folders to leave out.
    base : path or URL prefix, optional
        Results lie in the archive as their sources below this. Default: below a folder among `sources`; by name alone
        for a file; as written in a list, for absolute and remote names without root and scheme.
    skip : Path, optional
        A folder not to search: the archive itself.

    Raises
    ------
    UsageError
        Something is missing, cannot be looked into, has a name that nothing can be called by, or is not below `base`.
    """
    found: dict[str, Found] = {}
    root = None if base is None else _absolute(os.fspath(base))
    for name, place in _named(sources, include, exclude, skip):
        source = Found(name, place if root is None else _below(name, root))
        _check(source)
        found.setdefault(name, source)
    return list(found.values())


def _check(source: Found) -> None:
    """UsageError unless a result can be named after it, and the journal can hold its name."""
    name, place = source.name, source.place
    if not place.name or ".." in place.parts:
        raise UsageError(f"{name} names no raster: give files, folders, or @list.txt with a name per line")
    try:
        name.encode()
    except UnicodeEncodeError as error:  # any bytes may be a name on Linux
        raise UsageError(f"{os.fsencode(name)!r} is a name outside UTF-8: rename it or --exclude it") from error


def _read_list(path: str) -> list[str]:
    """The names in a list file. UsageError when it cannot be read."""
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the list {path} cannot be read: {error}") from error
    return [name for line in lines if (name := line.strip()) and not name.startswith("#")]


def _named(
    sources: Iterable[str | os.PathLike[str]], include: Sequence[str], exclude: Sequence[str], skip: Path | None
) -> Iterator[tuple[str, PurePosixPath]]:
    listed = [sources] if isinstance(sources, str | os.PathLike) else sources
    for source in (os.fspath(one) for one in listed):
        if source.startswith("@"):
            for name in _read_list(source[1:]):
                yield _absolute(name), _as_written(name)
        elif is_remote(source):
            yield source, PurePosixPath(PurePosixPath(source).name)
        elif os.path.isdir(source):
            for file in _files(source, include, exclude, skip):
                yield _absolute(os.path.join(source, file)), PurePosixPath(Path(file).as_posix())
        elif os.path.exists(source):
            yield _absolute(source), PurePosixPath(Path(source).name)
        else:
            raise UsageError(f"{source} does not exist: give files, folders, or @list.txt with a name per line")


def _files(folder: str, include: Sequence[str], exclude: Sequence[str], skip: Path | None) -> Iterator[str]:
    for where, folders, names in os.walk(folder, onerror=_refuse):
        below = Path(os.path.relpath(where, folder))
        folders[:] = sorted(
            name
            for name in folders
            if not _left_out(Path(where, name), skip) and not _matches(str(below / name), exclude)
        )
        for name in sorted(names):
            path = str(below / name)
            wanted = _matches(path, include) if include else Path(name).suffix.lower() in RASTER_SUFFIXES
            if wanted and not name.startswith(".") and not _matches(path, exclude) and not _is_scene_name(name):
                yield path


def _refuse(error: OSError) -> None:
    raise UsageError(
        f"the folder {error.filename} cannot be read ({error.strerror}): change its permissions or --exclude it"
    ) from error


def _left_out(folder: Path, skip: Path | None) -> bool:
    if folder.name.startswith(".") or _is_scene_name(folder.name):
        return True
    return skip is not None and folder.resolve() == skip.resolve()


def _is_scene_name(name: str) -> bool:
    return name.lower().endswith(_SCENE_SUFFIXES)


def _matches(path: str, patterns: Sequence[str]) -> bool:
    plain = Path(path).as_posix()
    return any(fnmatch(plain, pattern) or fnmatch(plain.rpartition("/")[2], pattern) for pattern in patterns)


def _absolute(name: str) -> str:
    # GDAL's connection strings, such as NETCDF:"file.nc":band, are no paths and stay as they are.
    return name if is_remote(name) or not (os.path.exists(name) or os.path.isabs(name)) else os.path.abspath(name)


def _as_written(name: str) -> PurePosixPath:
    path = name.split("://", 1)[-1] if is_remote(name) else Path(name).as_posix()
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", ".", "..") and not part.endswith(":")]
    return PurePosixPath(*parts)


def _below(name: str, root: str) -> PurePosixPath:
    kind = PurePosixPath if is_remote(name) else Path
    if kind(root) not in kind(name).parents:
        raise UsageError(f"{name} is not below the base {root}")
    return PurePosixPath(kind(name).relative_to(root).as_posix())


def arrange(
    sources: Iterable[str | os.PathLike[str]],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    base: str | os.PathLike[str] | None = None,
    skip: Path | None = None,
    folders: bool = False,
    keep_suffix: bool = False,
) -> dict[str, str]:
    """Where each result lies below the archive: path with "/" -> name of the source.

    Parameters
    ----------
    sources, include, exclude, base, skip
        See `find_sources`.
    folders : bool
        Results are ``.zarr`` folders rather than ``.ltchm`` files.
    keep_suffix : bool
        ``a.tif`` becomes ``a.tif.ltchm`` rather than ``a.ltchm``.

    Raises
    ------
    UsageError
        There are no sources, or two would have the same result, at least where upper and lower case are not told apart.
    """
    found = find_sources(sources, include=include, exclude=exclude, base=base, skip=skip)
    if not found:
        raise UsageError("no rasters there: check the folders, and --include and --exclude")
    results: dict[str, str] = {}
    seen: dict[str, str] = {}
    for source in found:
        place = source.place
        name = (place.name if keep_suffix else place.stem) + (".zarr" if folders else ".ltchm")
        result = place.with_name(name).as_posix()
        if (other := seen.setdefault(result.casefold(), source.name)) != source.name:
            raise UsageError(
                f"{other} and {source.name} would both become {result}: "
                "use --base to keep their folders apart, --keep-suffix to keep their suffixes, or --exclude one"
            )
        results[result] = source.name
    return results
