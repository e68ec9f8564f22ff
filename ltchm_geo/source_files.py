"""Which files of this machine a raster's pixels come from, whatever GDAL calls them.

What must not be overwritten, and what tells whether a raster is still the one it was, are files; GDAL has many names
for them: ``/vsizip/scene.zip/band.tif``, ``GTIFF_DIR:1:scene.tif``, ``NETCDF:"scene.nc":ndvi``, ``file:///scene.tif``,
and mosaics of mosaics.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from rasterio.errors import RasterioError

from .georef_rasterio import quiet_open

__all__ = ["Files", "file_behind", "files_behind", "lies_in", "listed_files"]

_MOSAIC = ".vrt"  # lists its own sources only, not what those are made of
_PREFIX = re.compile(r"file://|/vsi[a-z0-9_]+/")
_NETWORK = re.compile(r"/vsi(curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs|mem|stdin)|(?!file:)[A-Za-z][A-Za-z0-9+.-]+://")


class Files(NamedTuple):
    """Files of a raster.

    Attributes
    ----------
    paths : absolute paths of those on this machine; some rasters are folders
    complete : whether there are no others, on another machine or in memory
    """

    paths: frozenset[str]
    complete: bool


def files_behind(name: str, listed: Iterable[str]) -> Files:
    """All files that a raster consists of.

    Parameters
    ----------
    name : what the raster was opened by
    listed : what GDAL says it consists of
    """
    found: set[str] = set()
    itself = file_behind(name)  # what it lists is known
    waiting = [name, *listed]
    complete = True
    while waiting:
        file = file_behind(waiting.pop())
        if file is None:
            complete = False
        elif file not in found:
            found.add(file)
            if file != itself and file.lower().endswith(_MOSAIC):
                waiting += listed_files(file)
    return Files(frozenset(found), complete)


def file_behind(name: str) -> str | None:
    """Absolute path of the local file that a name of GDAL's leads to, the archive where it lies in one; or None.

    Of a raster that is a folder, the folder.
    """
    if os.path.isdir(name):
        return os.path.abspath(name)
    return next((os.path.abspath(path) for path in _candidates(name) if os.path.isfile(path)), None)


def _candidates(name: str) -> Iterator[str]:
    """What could be the path in a name, the likeliest first."""
    yield name
    if _NETWORK.match(name):
        return
    archived = False
    while found := _PREFIX.match(name):
        archived = archived or found[0] != "file://"
        name = name[found.end() :]
    name = name.replace("{", "").replace("}", "")
    yield name
    if archived:  # in an archive: the part of its name that is a file
        folder, tail = os.path.split(name)
        while folder and tail:
            yield folder
            folder, tail = os.path.split(folder)
    # DRIVER:details:"path":details, and parts of files
    yield from (part for part in re.findall(r'"([^"]+)"', name))
    yield from (name[colon.end() :] for colon in re.finditer("[:,]", name))


def listed_files(file: str) -> list[str]:
    """What a raster on disk consists of; nothing if it cannot be opened, which whoever reads it will explain."""
    try:
        with quiet_open(file) as dataset:
            return list(dataset.files)
    except (RasterioError, OSError, ValueError):
        return []


def lies_in(file: str, place: str | os.PathLike[str]) -> bool:
    """Whether an existing file is the same as `place`, or lies in that folder, through whatever links."""
    if not os.path.exists(place):
        return False
    if os.path.samefile(file, place):
        return True
    return os.path.isdir(place) and Path(os.path.realpath(place)) in Path(os.path.realpath(file)).parents
