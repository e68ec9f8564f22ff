"""What is measured: lists of images (files, windows, bands) in TOML, or all rasters of a folder.

::

    name = "eval-rgb-tiles"
    title = "four tiles of each of eight aerial and satellite images"
    data = "../images"      # optional: folder of the files, relative to this one
    tile = 256              # optional: measure tiles of this side instead of whole windows

    [[image]]
    name = "city"
    file = "city.png"
    bands = [1, 2, 3]
    window = [0, 0, 720, 720]              # row, column, height, width
    sha256 = "..."                         # of the window's pixels, see `pixel_hash`
    tiles = [[0, 0], [0, 464], [464, 0]]   # row and column inside the window

The hash makes sure that two people who compare figures have measured the same pixels.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltchm_geo.errors import SourceError, UsageError

from .geotiff import ignoring_missing_georeference

__all__ = ["Dataset", "Image", "open_dataset", "pixel_hash"]

_SUFFIXES = (".tif", ".tiff", ".png", ".jp2", ".vrt", ".img")
_KEYS = {"name", "title", "image"}
_IMAGE_KEYS = {"name", "file", "bands", "window", "sha256"}
_HERE = Path("benchmarks", "datasets")


@dataclass(frozen=True)
class Image:
    """One image of a data set.

    Attributes
    ----------
    name : in results
    path : of its file
    bands : from 1; None for all
    window : row, column, height, width; None for all
    sha256 : what `pixel_hash` of the window must be; None if nobody said
    tile : row, column and side of a part of the window; None for all of it
    """

    name: str
    path: Path
    bands: tuple[int, ...] | None = None
    window: tuple[int, int, int, int] | None = None
    sha256: str | None = None
    tile: tuple[int, int, int] | None = None

    def load(self) -> NDArray[Any]:
        """Read the pixels, (bands, h, w).

        Raises
        ------
        SourceError
            If the file is missing or unreadable, or holds other pixels than the data set was made of.
        """
        pixels = self._read()
        if self.sha256 is not None and pixel_hash(pixels) != self.sha256:
            raise SourceError(f"{self.path} holds other pixels than the data set's {self.name}; get the original file")
        if self.tile is None:
            return pixels
        row, column, side = self.tile
        return np.ascontiguousarray(pixels[:, row : row + side, column : column + side])

    def _read(self) -> NDArray[Any]:
        import rasterio
        from rasterio.errors import RasterioError
        from rasterio.windows import Window

        try:
            with ignoring_missing_georeference(), rasterio.open(self.path) as source:
                row, column, height, width = self.window or (0, 0, source.height, source.width)
                bands = list(self.bands or source.indexes)
                return source.read(bands, window=Window(column, row, width, height))
        except (RasterioError, IndexError) as error:
            hint = "" if self.path.exists() else "; --data names the folder of the files"
            raise SourceError(f"cannot read {self.path} for {self.name}: {error}{hint}") from error


@dataclass(frozen=True)
class Dataset:
    """Images that are measured together."""

    name: str
    title: str
    images: tuple[Image, ...]


def open_dataset(name: str | Path, data: str | Path | None = None) -> Dataset:
    """A data set by name, by TOML file, or all rasters of a folder.

    Parameters
    ----------
    name : ``bundled`` or another name in ``benchmarks/datasets``, path of a TOML file, or of a folder
    data : folder of the image files; default: what the TOML file says, or its own folder

    Raises
    ------
    UsageError
        If there is no such data set or its description is wrong.
    """
    path = Path(name)
    if path.is_dir():
        return _of_folder(path)
    if path.suffix != ".toml":
        path = _described(str(name))
    try:
        return _parse(tomllib.loads(path.read_text(encoding="utf-8")), path.parent, data)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} does not describe a data set: {error!r}") from error


def pixel_hash(pixels: NDArray[Any]) -> str:
    """SHA-256 over type, shape and values: ``uint8 3x720x720``, a line feed, the pixels in order, little-endian."""
    head = f"{pixels.dtype.name} {'x'.join(map(str, pixels.shape))}\n".encode()
    values = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
    return hashlib.sha256(head + values.tobytes()).hexdigest()


def _described(name: str) -> Path:
    """The description that comes with the sources: below the current folder, or beside the package."""
    folders = (_HERE, Path(__file__).parents[2] / _HERE)
    for folder in folders:
        if (folder / f"{name}.toml").is_file():
            return folder / f"{name}.toml"
    known = sorted({path.stem for folder in folders for path in folder.glob("*.toml")})
    hint = f"known: {', '.join(known)}" if known else "run from the repository, where benchmarks/datasets is"
    raise UsageError(f"there is no data set, TOML file or folder {name!r} ({hint})")


def _of_folder(folder: Path) -> Dataset:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise UsageError(f"{folder} has no rasters ({', '.join(_SUFFIXES)})")
    name = folder.resolve().name
    return Dataset(name, f"all rasters of the folder {name}", tuple(Image(path.stem, path) for path in paths))


def _parse(found: dict[str, Any], folder: Path, data: str | Path | None) -> Dataset:
    _check_keys(found, _KEYS, {"data", "tile"})
    files = Path(data) if data is not None else folder / found.get("data", ".")
    images: list[Image] = []
    for entry in found["image"]:
        _check_keys(entry, _IMAGE_KEYS, {"tiles"} if "tile" in found else set())
        window = tuple(map(int, entry["window"]))
        if len(window) != 4:
            raise ValueError(f"the window of {entry['name']} is not [row, column, height, width]")
        whole = Image(entry["name"], files / entry["file"], tuple(entry["bands"]), window, entry["sha256"])
        images += _tiles(whole, entry["tiles"], int(found["tile"])) if "tile" in found else [whole]
    return Dataset(found["name"], found["title"], tuple(images))


def _tiles(image: Image, corners: list[list[int]], side: int) -> list[Image]:
    assert image.window is not None
    height, width = image.window[2:]
    found = []
    for row, column in corners:
        if not (0 <= row <= height - side and 0 <= column <= width - side):
            raise ValueError(f"tile {row}, {column} does not lie inside {image.name}")
        name = f"{image.name}@{row},{column}"
        found.append(Image(name, image.path, image.bands, image.window, image.sha256, (row, column, side)))
    return found


def _check_keys(found: dict[str, Any], required: set[str], optional: set[str]) -> None:
    if missing := required - found.keys():
        raise ValueError(f"lacks {', '.join(sorted(missing))}")
    if unknown := found.keys() - required - optional:
        raise ValueError(f"unknown keys {', '.join(sorted(unknown))}")
