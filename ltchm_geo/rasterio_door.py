"""`rasterio_open`: a compressed scene as a rasterio dataset, decoded where it is read.

rasterio gets a `VirtualTiff` to open through its Python file openers, and GDAL finds a GeoTIFF like any other there:
windows, masks, overviews, tags, WarpedVRT, `rasterio.mask`, all work as they do with files.
"""

from __future__ import annotations

import contextlib
import contextvars
import io
import logging
import math
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import rasterio
from rasterio.abc import FileContainer
from rasterio.errors import RasterioError, RasterioIOError
from rasterio.io import DatasetReader
from rasterio.windows import evaluate

from .container import ContainerReader, SceneMeta
from .errors import CorruptTileError, LtchmError
from .georef_rasterio import quiet_open
from .scene_decoder import SceneDecoder
from .tile_cache import DEFAULT_CACHE_BYTES, TileCache
from .types import PixelBox
from .virtual_tiff import VirtualTiff
from .weights import find

__all__ = ["SceneDataset", "open_virtual", "rasterio_open"]

_GDAL_OVERVIEW_THRESHOLD = 1.2  # how much coarser than asked for GDAL lets an overview be

_log = logging.getLogger(__name__)


def rasterio_open(
    src: str | os.PathLike[str],
    *,
    device: str = "auto",
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    allow_damaged: bool = False,
) -> SceneDataset:
    """Open a compressed scene as a rasterio dataset.

    Parameters
    ----------
    src : path
        A ``.ltchm`` file or a ``.zarr`` folder.
    device : str
        "auto", "cpu", "cuda", "cuda:1".
    cache_bytes : int
        Decoded pixels to keep.
    allow_damaged : bool
        Read nodata (or 0) where a tile is damaged, instead of raising.

    Returns
    -------
    SceneDataset, a `rasterio.DatasetReader`: bands, masks, nodata, tags, colours, overviews as in the GeoTIFF that
    decompressing gives. Close it, or use it in a ``with`` block. Reading raises `rasterio.errors.RasterioIOError` where
    a tile is damaged.

    Raises
    ------
    ContainerError, WeightsNotFoundError, UsageError
    """
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(ContainerReader(src))
        if reader.meta.weights is not None:
            find(reader.meta.weights)  # rather now than at the first pixel
        virtual = VirtualTiff(SceneDecoder(reader, device, allow_damaged=allow_damaged), TileCache(cache_bytes))
        stack.callback(virtual.close)
        return open_virtual(virtual, reader.path.stem + ".tif", stack)


def open_virtual(virtual: VirtualTiff, name: str, stack: contextlib.ExitStack) -> SceneDataset:
    """A virtual TIFF as a rasterio dataset, which takes over what `stack` has to close."""
    files, context = _Files(virtual, name), contextvars.copy_context()
    dataset = context.run(_open, files)
    # rasterio.open makes the object, and it has no place to say of which class.
    dataset.__class__ = SceneDataset
    dataset._adopt(files, context, stack.pop_all())
    return dataset  # type: ignore[no-any-return]


def _open(files: _Files) -> Any:
    # Without a side-car file there is nothing to look for beside the scene, which GDAL does under thirty names.
    options = {} if files.virtual.aux_xml else {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
    with rasterio.Env(**options):
        dataset = quiet_open(files.name, driver="GTiff", opener=files)
        # What GDAL looks for at first use it must look for here: rasterio knows its openers in this thread only.
        _ = dataset.tags(), dataset.mask_flag_enums, dataset.overviews(1)
    return dataset


class SceneDataset(DatasetReader):  # type: ignore[misc]
    """A rasterio dataset whose pixels lie in a compressed scene. Made by `rasterio_open`."""

    def _adopt(self, files: _Files, context: contextvars.Context, stack: contextlib.ExitStack) -> None:
        self._files, self._virtual, self._stack = files, files.virtual, stack
        self._context, self._lock, self._entered = context, threading.RLock(), False

    def read(
        self,
        indexes: int | Sequence[int] | None = None,
        out: Any = None,
        window: Any = None,
        masked: bool = False,
        out_shape: Sequence[int] | None = None,
        *more: Any,
        **keywords: Any,
    ) -> Any:
        """As `rasterio.DatasetReader.read`; the window's tiles are decoded together."""
        try:
            # Preparing only saves time: where a damaged tile is needed, reading tells.
            with contextlib.suppress(CorruptTileError):
                shape = out_shape if out is None else out.shape
                self._prepare(indexes, window, shape, boundless=keywords.get("boundless", False))
        except LtchmError as error:
            raise RasterioIOError(str(error)) from error
        return self._at_home(super().read, indexes, out, window, masked, out_shape, *more, **keywords)

    def read_masks(self, *args: Any, **keywords: Any) -> Any:
        """As `rasterio.DatasetReader.read_masks`."""
        return self._at_home(super().read_masks, *args, **keywords)

    def close(self) -> None:
        """Close dataset and scene, from whatever thread."""
        if not self.closed:
            self._at_home(super().close)
        self._stack.close()

    def __del__(self) -> None:
        if hasattr(self, "_entered"):
            self.close()

    def _at_home(self, method: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        """Call where the dataset was opened: rasterio keeps its openers in context variables, which belong to a thread.

        Elsewhere it would find neither the file to close nor, for a boundless read, the one to open again. An error
        says what was wrong with the scene, if something was.
        """
        with self._lock:
            if self._entered:  # one method calls another
                return method(*args, **keywords)
            self._entered = True
            self._files.take_failure()  # of a call that went ways we do not see
            try:
                return self._context.run(method, *args, **keywords)
            except RasterioError as error:
                cause = self._files.take_failure()
                raise (error if cause is None else RasterioIOError(str(cause))) from (cause or error.__cause__)
            finally:
                self._entered = False

    def _prepare(
        self, indexes: int | Sequence[int] | None, window: Any, shape: Sequence[int] | None, *, boundless: bool
    ) -> None:
        bands = [indexes] if isinstance(indexes, int) else list(self.indexes if indexes is None else indexes)
        if self.closed or not set(bands) <= set(self.indexes):
            return  # rasterio says what is wrong
        box = PixelBox(0, 0, self.height, self.width)
        if window is not None:
            window = evaluate(window, *self.shape, boundless=boundless)
            y0, x0 = math.floor(window.row_off), math.floor(window.col_off)
            y1, x1 = math.ceil(window.row_off + window.height), math.ceil(window.col_off + window.width)
            box = PixelBox(y0, x0, y1 - y0, x1 - x0).intersection(box) or PixelBox(0, 0, 0, 0)
        level, factor = _level(self._virtual.meta, box, shape)
        y0, x0, y1, x1 = box.y0 // factor, box.x0 // factor, -(-box.y1 // factor), -(-box.x1 // factor)
        self._virtual.prepare(level, PixelBox(y0, x0, y1 - y0, x1 - x0), [band - 1 for band in bands])


def _level(meta: SceneMeta, box: PixelBox, shape: Sequence[int] | None) -> tuple[int, int]:
    """Which pyramid level GDAL will read for an output of this shape, and its factor. A guess: it only saves time."""
    if shape is None or len(shape) < 2 or min(shape[-2:]) < 1:
        return 0, 1
    wanted = min(box.height / shape[-2], box.width / shape[-1]) * _GDAL_OVERVIEW_THRESHOLD
    fitting = [(level, meta.pyramid_factor(level)) for level in meta.pyramid if meta.pyramid_factor(level) < wanted]
    return fitting[-1] if fitting else (0, 1)


class _Files(FileContainer):  # type: ignore[misc]
    """What rasterio's opener takes for a file system: the virtual TIFF, and its side-car file where it has one."""

    def __init__(self, virtual: VirtualTiff, name: str):
        self.virtual, self.name = virtual, name
        self._sidecar = name + ".aux.xml"
        self._failure: Exception | None = None

    def open(self, path: str, mode: str = "rb", **_: Any) -> io.RawIOBase | io.BytesIO:
        if not self.isfile(path) or mode not in ("r", "rb"):
            raise FileNotFoundError(path)
        return _SceneFile(self) if os.path.basename(path) == self.name else io.BytesIO(self.virtual.aux_xml or b"")

    def isfile(self, path: str) -> bool:
        name = os.path.basename(path)
        return name == self.name or (name == self._sidecar and self.virtual.aux_xml is not None)

    def isdir(self, path: str) -> bool:
        return False

    def ls(self, path: str) -> list[str]:
        return [name for name in (self.name, self._sidecar) if self.isfile(name)]

    def mtime(self, path: str) -> int:
        return 0

    def rm(self, path: str) -> None:
        raise PermissionError("a compressed scene is open for reading only")

    def size(self, path: str) -> int:
        if not self.isfile(path):
            raise FileNotFoundError(path)
        return self.virtual.size if os.path.basename(path) == self.name else len(self.virtual.aux_xml or b"")

    def read(self, offset: int, length: int) -> bytes:
        try:
            return self.virtual.read(offset, length)
        except (LtchmError, OSError, ValueError) as error:
            # An exception would be lost in GDAL; too few bytes are an error there, and `take_failure` tells the reason.
            self._failure = error
            _log.warning("%s", error)
            return b""

    def take_failure(self) -> Exception | None:
        """Why the last read gave too few bytes, told once."""
        failure, self._failure = self._failure, None
        return failure


class _SceneFile(io.RawIOBase):
    """The virtual TIFF as the file object that rasterio's opener wants."""

    def __init__(self, files: _Files):
        self._files, self._at = files, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._files.virtual.size}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        data = self._files.read(self._at, self._files.virtual.size if size < 0 else size)
        self._at += len(data)
        return data
