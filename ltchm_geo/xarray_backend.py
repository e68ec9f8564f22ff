"""The xarray engine ``ltchm``: `xarray.open_dataset("scene.ltchm")` decodes what is looked at, and only that.

xarray imports this module whenever it looks for an engine, for whatever file: nothing here may load torch or rasterio
before a pixel is read.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from . import xarray_accessor  # noqa: F401 - gives xarray objects their ``.ltchm``
from ._documents import axis_attributes, coordinates, grid_mapping
from ._recognise import is_scene
from .container import ContainerReader, SceneMeta
from .masks import representable
from .tiles import TileGrid
from .types import PixelBox, TileIndex

if TYPE_CHECKING:
    from .scene_decoder import SceneDecoder

__all__ = ["SceneArray", "SceneBackend"]

VARIABLE, MASK, REFERENCE = "band_data", "mask", "spatial_ref"
_DIMENSIONS = ("band", "y", "x")
_MOST_COORDINATES = 1 << 23  # a scene may claim sides of 2**31 pixels, and xarray keeps those of an index in memory


class SceneBackend(BackendEntrypoint):
    """Opens compressed scenes; see `open_dataset`."""

    description = "Compressed scenes of ltchm_geo, decoded lazily (.ltchm, .zarr)"
    url = "https://pypi.org/project/ltchm-geo"

    def open_dataset(  # type: ignore[override]  # xarray's own engines add options, too
        self,
        filename_or_obj: str | os.PathLike[str],
        *,
        drop_variables: str | Iterable[str] | None = None,
        mask_and_scale: bool = True,
        decode_coords: bool | str = True,
        level: int = 0,
        device: str = "auto",
        allow_damaged: bool = False,
    ) -> xr.Dataset:
        """Open a compressed scene lazily; called by `xarray.open_dataset`.

        Parameters
        ----------
        filename_or_obj : path
            A ``.ltchm`` file or a ``.zarr`` folder, or a URL where they lie in an object store.
        drop_variables : names to leave out
        mask_and_scale : bool
            Make nodata NaN and apply scale and offset, as xarray does for all CF data; an alpha band stays as it is.
            Bands whose scales differ are not scaled, and a warning says so: CF knows one scale per variable. ``scales``
            and ``offsets`` in the attributes tell them. What a mask or alpha band hides is not made NaN:
            ``band_data.where(mask)`` does that.
        decode_coords : True, False, "coordinates" or "all"
            As in `xarray.open_dataset`.
        level : int
            Pyramid level: 0 is full resolution, 1 the first overview.
        device : str
            Where pixels are decoded, when they are.
        allow_damaged : bool
            Read nodata (or 0) where a tile is damaged, instead of raising.

        Returns
        -------
        xarray.Dataset with the variable ``band_data`` (band, y, x) and, for scenes with a mask band, ``mask`` (y, x),
        True where there is data. Coordinates: ``band`` (from 1), ``band_name`` and ``colorinterp`` along it where the
        scene knows them, ``y`` and ``x`` (pixel centres, where the transform has no rotation), and ``spatial_ref``
        (``crs_wkt`` and ``GeoTransform``, as rioxarray reads them). With ``chunks={}`` the chunks are the scene's
        shards. With a side of more than 2**23 pixels there are no ``y`` and ``x``.

        Raises
        ------
        ContainerError, UsageError
        """
        reader = ContainerReader(filename_or_obj)
        reader.close_when_forgotten()  # few who open datasets close them
        try:
            options = {"device": device, "allow_damaged": allow_damaged}
            dataset = _dataset(reader, level, options, mask_and_scale)
            if mask_and_scale and "scales" in dataset[VARIABLE].attrs:
                message = f"{reader.path}: bands differ in scale or offset, so they are not scaled; see the attributes"
                warnings.warn(f"{message} scales and offsets", stacklevel=3)
            # Times are not decoded: a band whose unit is "days" holds numbers.
            decoded = xr.decode_cf(
                dataset,
                mask_and_scale=mask_and_scale,
                decode_times=False,
                decode_timedelta=False,
                decode_coords=decode_coords,  # type: ignore[arg-type]
                drop_variables=drop_variables,
            )
        except BaseException:
            reader.close()
            raise
        decoded.set_close(reader.close)
        here = isinstance(reader.path, Path)
        decoded.encoding["source"] = os.path.abspath(reader.path) if here else str(reader.path)
        return decoded

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether this is a path with the suffix .ltchm, or of a .zarr folder or a ZIP file that holds a scene.

        Folders named .zarr go to xarray's own engine first: name ``engine="ltchm"`` to open them here.
        """
        if not isinstance(filename_or_obj, str | os.PathLike):
            return False
        path = os.fspath(filename_or_obj)
        suffix = PurePath(path).suffix.lower()
        return suffix == ".ltchm" or (suffix in (".zarr", ".zip") and is_scene(path))


class SceneArray(BackendArray):
    """Pixels of one pyramid level as xarray indexes them: (bands, y, x), or (1, y, x) of the mask. Thread-safe.

    Decodes only the tiles that hold chosen pixels, however far apart these lie.

    Parameters
    ----------
    reader : ContainerReader
    level : int
    options : dict
        How to decode: keyword arguments of `SceneDecoder`.
    plane : "mask" or None
    """

    def __init__(self, reader: ContainerReader, level: int, options: dict[str, Any], plane: str | None = None):
        self._reader, self._level, self._options, self._plane = reader, level, options, plane
        self._grid = reader.grids[level].for_reading
        bands = len(reader.meta.bands) if plane is None else 1
        self.shape = (bands, *reader.meta.pyramid_shape(level))
        self.dtype = np.dtype(reader.meta.dtype) if plane is None else np.dtype(bool)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        if not isinstance(key, indexing.VectorizedIndexer):
            return self._block(key.tuple)
        if all(isinstance(part, np.ndarray) for part in key.tuple):
            return self._points(*np.broadcast_arrays(*self._numbers(key.tuple)))
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._block)

    def _numbers(self, key: Sequence[Any]) -> list[NDArray[np.intp]]:
        return [_positions(part, size) for part, size in zip(key, self.shape, strict=True)]

    def _block(self, key: tuple[Any, ...]) -> NDArray[Any]:
        """Whole numbers, slices and lists, each along its own axis."""
        chosen = self._numbers(key)
        bands, ys, xs = (np.atleast_1d(numbers) for numbers in chosen)
        out, decoder = np.empty((len(bands), len(ys), len(xs)), self.dtype), self._decoder()
        for rows in _runs(ys, self._grid):
            for columns in _runs(xs, self._grid):
                box = _around(ys[rows], xs[columns])
                pixels = self._read(decoder, box, bands.tolist())
                out[:, rows[:, None], columns] = pixels[:, (ys[rows] - box.y0)[:, None], xs[columns] - box.x0]
        return out[tuple(slice(None) if numbers.ndim else 0 for numbers in chosen)]

    def _points(self, bands: NDArray[np.intp], ys: NDArray[np.intp], xs: NDArray[np.intp]) -> NDArray[Any]:
        """One pixel for each element of three arrays of one shape."""
        out, (wanted, chosen) = np.empty(bands.size, self.dtype), np.unique(bands, return_inverse=True)
        decoder, chosen, ys, xs = self._decoder(), chosen.ravel(), ys.ravel(), xs.ravel()
        for points in _groups(ys, xs, self._grid):
            box = _around(ys[points], xs[points])
            pixels = self._read(decoder, box, wanted.tolist())
            out[points] = pixels[chosen[points], ys[points] - box.y0, xs[points] - box.x0]
        return out.reshape(bands.shape)

    def _decoder(self) -> SceneDecoder:
        from .scene_decoder import SceneDecoder

        return SceneDecoder(self._reader, **self._options)  # not kept: this object has to travel between processes

    def _read(self, decoder: SceneDecoder, box: PixelBox, bands: list[int]) -> NDArray[Any]:
        """Pixels of a box inside one shard: what is held at once must not grow with what is asked for."""
        if self._plane is None:
            return decoder.read(box, bands, self._level)
        return decoder.read_plane(self._plane, box, self._level)[None]


class _BesideAlpha(SceneArray):
    """Pixels as xarray decodes CF data, but for alpha, which is no amount of anything: it has no nodata and no scale.

    Attributes
    ----------
    sample : xarray.Variable
        Type, attributes and encoding of what comes out.
    """

    def __init__(self, reader: ContainerReader, level: int, options: dict[str, Any], attributes: dict[str, Any]):
        super().__init__(reader, level, options)
        self._attributes = attributes
        self.sample = self._decoded(np.zeros((1, 1, 1), self.dtype))
        self.dtype = self.sample.dtype
        if "scale_factor" in attributes:  # an encoding with it would scale alpha when it is written
            self.sample.encoding = {}

    def _read(self, decoder: SceneDecoder, box: PixelBox, bands: list[int]) -> NDArray[Any]:
        pixels, alpha = super()._read(decoder, box, bands), [band == self._reader.meta.alpha for band in bands]
        found: NDArray[Any] = self._decoded(pixels).values
        found[alpha] = pixels[alpha]
        return found

    def _decoded(self, pixels: NDArray[Any]) -> xr.Variable:
        dataset = xr.Dataset({VARIABLE: (_DIMENSIONS, pixels, self._attributes)})
        return xr.decode_cf(dataset, decode_times=False, decode_timedelta=False, decode_coords=False)[VARIABLE].variable


def _positions(part: Any, size: int) -> NDArray[np.intp]:
    """``np.arange(size)[part]`` without that list, which a scene may claim to be of any length."""
    if isinstance(part, slice):
        return np.arange(*part.indices(size))
    numbers = np.asarray(part, np.intp)
    if numbers.size and not -size <= numbers.min() <= numbers.max() < size:
        raise IndexError(f"{numbers.min()} to {numbers.max()} are not all among {size} pixels")
    return np.where(numbers < 0, numbers + size, numbers)


def _runs(numbers: NDArray[np.intp], grid: TileGrid) -> list[NDArray[np.intp]]:
    """Positions of the numbers, put together where their tiles are the same or neighbours in one shard."""
    if not numbers.size:
        return []
    order = np.argsort(numbers, kind="stable")
    tiles = numbers[order] // grid.tile
    apart = (np.diff(tiles) > 1) | (np.diff(tiles // grid.shard) > 0)
    return np.split(order, np.flatnonzero(apart) + 1)


def _groups(ys: NDArray[np.intp], xs: NDArray[np.intp], grid: TileGrid) -> Iterator[NDArray[np.intp]]:
    """Positions of points, put together where their tiles make a full rectangle in one shard."""
    from .tile_cache import rectangles

    side = grid.tile * grid.shard
    order = np.lexsort((xs // side, ys // side))
    apart = (np.diff(ys[order] // side) != 0) | (np.diff(xs[order] // side) != 0)
    for points in np.split(order, np.flatnonzero(apart) + 1):
        rows, columns = ys[points] // grid.tile, xs[points] // grid.tile
        tiles = np.unique(np.stack([rows, columns]), axis=1).T.tolist()
        for rectangle in rectangles([TileIndex(iy, ix) for iy, ix in tiles]):
            (top, left), (bottom, right) = rectangle[0], rectangle[-1]
            yield points[(rows >= top) & (rows <= bottom) & (columns >= left) & (columns <= right)]


def _around(ys: NDArray[np.intp], xs: NDArray[np.intp]) -> PixelBox:
    y0, x0 = int(ys.min()), int(xs.min())
    return PixelBox(y0, x0, int(ys.max()) + 1 - y0, int(xs.max()) + 1 - x0)


# --- the dataset around the pixels -----------------------------------------------------------------------------------


def _dataset(reader: ContainerReader, level: int, options: dict[str, Any], mask_and_scale: bool) -> xr.Dataset:
    """As the scene is, before xarray decodes CF attributes; but for those that are not for alpha."""
    meta = reader.meta
    georef, grid = meta.pyramid_georef(level), meta.grid.for_reading
    side = grid.tile * grid.shard
    chunks = {"band": _band_chunks(meta), "y": side, "x": side}
    array, attributes = SceneArray(reader, level, options), _attributes(meta)
    encoding: dict[str, Any] = {"preferred_chunks": chunks}
    if mask_and_scale and meta.alpha is not None and not attributes.keys().isdisjoint(("_FillValue", "scale_factor")):
        array = _BesideAlpha(reader, level, options, attributes)
        attributes, encoding = array.sample.attrs, array.sample.encoding | encoding
    pixels = indexing.LazilyIndexedArray(array)
    variables = {VARIABLE: xr.Variable(_DIMENSIONS, pixels, attributes, encoding)}
    if meta.mask:
        plane = indexing.LazilyIndexedArray(SceneArray(reader, level, options, "mask"))
        attributes = {"grid_mapping": REFERENCE, "long_name": "where there is data"}
        mask = xr.Variable(_DIMENSIONS, plane, attributes, {"preferred_chunks": {"y": side, "x": side}})
        variables[MASK] = mask.isel(band=0)
    axes = axis_attributes(georef)
    found: dict[str, Any] = {"band": np.arange(1, len(meta.bands) + 1), **_band_coordinates(meta)}
    if max(meta.pyramid_shape(level)) <= _MOST_COORDINATES:
        found |= {name: (name, values, axes[name]) for name, values in coordinates(meta, level).items()}
    found[REFERENCE] = ((), 0, grid_mapping(georef))
    return xr.Dataset(variables, found, dict(georef.tags.get("", {})))


def _band_chunks(meta: SceneMeta) -> tuple[int, ...]:
    """One chunk per band group where groups follow file order, so that no group is decoded twice for a block."""
    order = [band for group in meta.groups for band in sorted(group.bands)]
    if meta.alpha is not None:
        order.append(meta.alpha)
    if order != list(range(len(meta.bands))):
        return (len(meta.bands),)
    return tuple(len(group.bands) for group in meta.groups) + ((1,) if meta.alpha is not None else ())


def _attributes(meta: SceneMeta) -> dict[str, Any]:
    found: dict[str, Any] = {"grid_mapping": REFERENCE}
    dtype, nodata = np.dtype(meta.dtype), meta.bands[meta.groups[0].bands[0]].nodata
    if nodata is not None and representable(nodata, dtype):  # another marks no pixel, and CF has no way to say it
        found["_FillValue"] = dtype.type(nodata)
    amounts = [band for number, band in enumerate(meta.bands) if number != meta.alpha]
    scalings = {(band.scale, band.offset) for band in amounts}
    if len(scalings) > 1:
        found["scales"], found["offsets"] = ([getattr(b, key) for b in meta.bands] for key in ("scale", "offset"))
    elif scalings != {(1.0, 0.0)}:  # or integers would become floats for nothing
        found["scale_factor"], found["add_offset"] = scalings.pop()
    units = {band.unit for band in amounts}
    if len(units) == 1 and None not in units:
        found["units"] = units.pop()
    names = tuple(band.description or "" for band in meta.bands)
    if any(names):
        found["long_name"] = names if len(names) > 1 else names[0]
    return found


def _band_coordinates(meta: SceneMeta) -> dict[str, Any]:
    """What goes along when bands are chosen or reordered; attributes do not."""
    names = [band.description or "" for band in meta.bands]
    colors = [band.colorinterp for band in meta.bands]
    found = {"band_name": ("band", names)} if any(names) else {}
    return found | ({"colorinterp": ("band", colors)} if set(colors) != {"undefined"} else {})
