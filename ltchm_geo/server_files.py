"""What `SceneServer` serves: scenes as virtual GeoTIFFs, their side-car files, and web maps of them.

    NAME.tif, NAME.tif.aux.xml      the scene as GDAL wants it
    NAME.json                       TileJSON of the web map
    NAME/tiles/{z}/{x}/{y}.png      its tiles

Everything is looked up by what it is called, nothing on a disk: no name that is asked for is ever part of a path.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .container import ContainerReader
from .errors import UsageError
from .location import Location, locate
from .scene_decoder import SceneDecoder
from .server_tiles import MAX_ZOOM, WebMap
from .tile_cache import TileCache
from .version import __version__
from .virtual_tiff import VirtualTiff
from .weights import find

__all__ = ["ServedFile", "ServedFiles", "ServedScene"]

_TIFF = "image/tiff; application=geotiff; profile=cloud-optimized"
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class ServedScene:
    """A scene that is served: its path and its address."""

    path: Location
    url: str


@dataclass(frozen=True)
class ServedFile:
    """Bytes under one name.

    Attributes
    ----------
    media_type, etag : str
    size : int or None
        None where it is known only when it has been made: `read` makes it, whatever it is asked for.
    read : callable
        (offset, length) -> bytes. Blocks, and raises what hinders decoding.
    """

    media_type: str
    etag: str
    size: int | None
    read: Callable[[int, int], bytes]


class ServedFiles:
    """Everything that can be asked for. Looking up is quick; `close` closes the scenes.

    Parameters
    ----------
    paths : sequence of paths
    base : str
        What addresses begin with.
    device : str
    cache : TileCache
    allow_damaged : bool

    Raises
    ------
    ContainerError, WeightsNotFoundError, UsageError
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        base: str,
        device: str,
        cache: TileCache,
        *,
        allow_damaged: bool = False,
    ):
        self._files: dict[str, ServedFile] = {}
        self._maps: dict[str, tuple[WebMap, str]] = {}
        names = _names([locate(path) for path in paths])
        with contextlib.ExitStack() as stack:
            for path, name in names.items():
                reader = stack.enter_context(ContainerReader(path))
                decoder = SceneDecoder(reader, device, allow_damaged=allow_damaged)
                self._add(decoder, name, base, device, cache, stack)
            self._stack = stack.pop_all()
        self.scenes = tuple(ServedScene(path, f"{base}/{name}.tif") for path, name in names.items())

    def _add(
        self, decoder: SceneDecoder, name: str, base: str, device: str, cache: TileCache, stack: contextlib.ExitStack
    ) -> None:
        reader = decoder.reader
        if reader.meta.weights is not None:
            find(reader.meta.weights)  # rather now than at the first pixel
        virtual = VirtualTiff(decoder, cache)
        # Pixels may differ in the last bit between devices and versions, so both are part of what the tag stands for.
        known = [reader.manifest.pack(), __version__.encode(), device.encode(), str(virtual.size).encode()]
        tag = hashlib.sha256(b"\0".join(known)).hexdigest()[:32]
        self._files[f"{name}.tif"] = ServedFile(_TIFF, f'"{tag}"', virtual.size, virtual.read)
        if (aux := virtual.aux_xml) is not None:
            sidecar = ServedFile("application/xml", f'"{tag}-aux"', len(aux), lambda at, length: aux[at : at + length])
            self._files[f"{name}.tif.aux.xml"] = sidecar
        with contextlib.suppress(ValueError):  # a scene that lies nowhere is on no map
            web_map = stack.enter_context(contextlib.closing(WebMap(virtual)))
            self._maps[name] = web_map, tag
            tiles = f"{base}/{name}/tiles/{{z}}/{{x}}/{{y}}.png"
            self._files[f"{name}.json"] = ServedFile(
                "application/json", f'"{tag}-map"', None, lambda *_: json.dumps(web_map.describe(name, tiles)).encode()
            )

    def find(self, parts: Sequence[str]) -> ServedFile | None:
        """What lies at a path, given as the parts between its slashes."""
        if len(parts) == 1:
            return self._files.get(parts[0])
        if len(parts) != 5 or parts[1] != "tiles" or parts[0] not in self._maps or not parts[4].endswith(".png"):
            return None
        numbers = [*parts[2:4], parts[4].removesuffix(".png")]
        if not all(map(_NUMBER.fullmatch, numbers)):
            return None
        zoom, column, row = map(int, numbers)
        if zoom > MAX_ZOOM or max(column, row) >= 2**zoom:
            return None
        web_map, tag = self._maps[parts[0]]
        return ServedFile(
            "image/png", f'"{tag}-{zoom}-{column}-{row}"', None, lambda *_: web_map.tile(zoom, column, row)
        )

    def close(self) -> None:
        """Close the scenes."""
        self._stack.close()


def _names(paths: Sequence[Location]) -> dict[Location, str]:
    """A name for each scene, of characters that mean nothing in a URL."""
    names: dict[Location, str] = {}
    for path in paths:
        name = base = re.sub(r"[^A-Za-z0-9._-]+", "_", path.stem).strip("._") or "scene"
        number = 1
        while name in names.values():
            number += 1
            name = f"{base}-{number}"
        names[path] = name
    if len(names) != len(paths):
        raise UsageError("the same scene is named twice")
    return names
