"""Everything about a raster that is not pixels: georeferencing, band descriptions, tags; to and from JSON.

`Georef` belongs to the whole raster, `BandInfo` to one band. Both are plain frozen data; `to_dict`/`from_dict` carry
them through JSON without loss and take nothing on trust. `georef_rasterio` reads them from datasets and puts them on
new ones; this file stays free of rasterio, so that looking into a compressed scene is quick.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ._json import decode_number, encode_number, require_keys
from .errors import CorruptContainerError
from .types import Bounds, Lines, Shape2d

__all__ = ["BandInfo", "Georef", "Number", "Tags", "alpha_band", "native_nodata"]

Number = int | float

Tags = Mapping[str, Mapping[str, str]]
"""Tags by namespace; "" is the default namespace."""

GCP_NUMBERS = ("row", "col", "x", "y", "z")
GCP_STRINGS = ("id", "info")
RPC_VECTORS = ("line_num_coeff", "line_den_coeff", "samp_num_coeff", "samp_den_coeff")
RPC_SCALARS = (
    *("height_off", "height_scale", "lat_off", "lat_scale", "line_off", "line_scale"),
    *("long_off", "long_scale", "samp_off", "samp_scale", "err_bias", "err_rand"),
)


@dataclass(frozen=True)
class Georef:
    """Where the raster lies, and its dataset-level tags.

    Parameters
    ----------
    crs : WKT2:2019 text, or None
    transform : (a, b, c, d, e, f) of x = a col + b row + c, y = d col + e row + f, or None if there is none
    gcps : ground control points: dicts of row, col, x, y (float), z (float or None), id, info (str or None)
    gcps_crs : WKT2:2019 text of the control points' CRS, or None
    rpcs : rational polynomial coefficients in rasterio's names, or None
    tags : {namespace: {key: value}}; `AREA_OR_POINT` is among the default namespace's
    """

    crs: str | None = None
    transform: tuple[float, ...] | None = None
    gcps: tuple[Mapping[str, Any], ...] = ()
    gcps_crs: str | None = None
    rpcs: Mapping[str, Any] | None = None
    tags: Tags = field(default_factory=dict)

    def shifted(self, y0: int, x0: int) -> Georef:
        """The same place seen from a window whose upper left corner is pixel (y0, x0)."""
        transform, rpcs = self.transform, self.rpcs
        if transform is not None:
            a, b, c, d, e, f = transform
            transform = (a, b, c + a * x0 + b * y0, d, e, f + d * x0 + e * y0)
        if rpcs is not None:
            rpcs = {**rpcs, "line_off": rpcs["line_off"] - y0, "samp_off": rpcs["samp_off"] - x0}
        gcps = tuple({**gcp, "row": gcp["row"] - y0, "col": gcp["col"] - x0} for gcp in self.gcps)
        return replace(self, transform=transform, gcps=gcps, rpcs=rpcs)

    def scaled(self, factor: int) -> Georef:
        """The same place seen through pixels `factor` times as large, from the same upper left corner."""
        if factor == 1:
            return self
        transform, rpcs = self.transform, self.rpcs
        if transform is not None:
            a, b, c, d, e, f = transform
            transform = (a * factor, b * factor, c, d * factor, e * factor, f)
        if rpcs is not None:
            # RPCs count from the centre of the first pixel, control points and transforms from its corner.
            offsets = {key: (rpcs[key] + 0.5) / factor - 0.5 for key in ("line_off", "samp_off")}
            rpcs = {**rpcs, **offsets, **{key: rpcs[key] / factor for key in ("line_scale", "samp_scale")}}
        gcps = tuple({**gcp, "row": gcp["row"] / factor, "col": gcp["col"] / factor} for gcp in self.gcps)
        return replace(self, transform=transform, gcps=gcps, rpcs=rpcs)

    def bounds(self, shape: Shape2d) -> Bounds | None:
        """The smallest rectangle in the CRS that holds `shape` pixels; None without a transform."""
        if self.transform is None:
            return None
        a, b, c, d, e, f = self.transform
        corners = [(column, row) for column in (0, shape.x) for row in (0, shape.y)]
        xs, ys = [a * x + b * y + c for x, y in corners], [d * x + e * y + f for x, y in corners]
        return min(xs), min(ys), max(xs), max(ys)

    def pixels_of(self, bounds: Bounds) -> Lines | None:
        """First and last line of pixels, (rows, columns), of what `bounds` covers; None if no transform tells.

        Bounds are in the CRS. Lines are counted in fractions of pixels from the upper left corner of the first, to a
        millionth: bounds on the border between two pixels do not reach into the next one because of rounding. They may
        lie outside the raster.
        """
        a, b, c, d, e, f = self.transform or (0.0,) * 6
        determinant = a * e - b * d
        if determinant == 0:
            return None
        corners = [(x - c, y - f) for x in bounds[::2] for y in bounds[1::2]]
        rows, columns = ([round((u * x + v * y) / determinant, 6) for x, y in corners] for u, v in ((-d, a), (e, -b)))
        if not all(map(math.isfinite, (*rows, *columns))):
            return None  # a transform from a damaged file, all but degenerate
        return (min(rows), max(rows)), (min(columns), max(columns))

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {
            "crs": self.crs,
            "transform": None if self.transform is None else list(self.transform),
            "gcps": [{key: _encode(value) for key, value in gcp.items()} for gcp in self.gcps],
            "gcps_crs": self.gcps_crs,
            "rpcs": None if self.rpcs is None else {key: _encode(value) for key, value in self.rpcs.items()},
            "tags": {namespace: dict(items) for namespace, items in self.tags.items()},
        }

    @classmethod
    def from_dict(cls, data: object) -> Georef:
        """Check and take over what `to_dict` made. Raises `CorruptContainerError` for anything else."""
        try:
            return cls._from_dict(require_keys(data, {f.name for f in fields(cls)}, what="it"))
        except ValueError as error:
            raise CorruptContainerError(f"georeferencing is damaged: {error}") from error

    @classmethod
    def _from_dict(cls, data: dict[str, Any]) -> Georef:
        return cls(
            crs=_optional_string(data["crs"], "CRS"),
            transform=None if data["transform"] is None else _finite_floats(data["transform"], "transform", 6),
            gcps=tuple(_gcp(gcp) for gcp in _list(data["gcps"], "gcps")),
            gcps_crs=_optional_string(data["gcps_crs"], "CRS of the control points"),
            rpcs=None if data["rpcs"] is None else _rpcs(data["rpcs"]),
            tags=_tags(data["tags"]),
        )


#: Keys that a band has in JSON only if it has such a thing.
_OPTIONAL = {"colors", "categories"}


@dataclass(frozen=True)
class BandInfo:
    """One band's meaning.

    Parameters
    ----------
    dtype : NumPy name of the data type
    description : band name, or None
    colorinterp : GDAL colour interpretation as rasterio spells it, such as "red" or "undefined"
    nodata : value of pixels that hold no data (an int for integer bands where it is one; may be NaN), or None
    scale, offset : physical value = pixel * scale + offset
    unit : unit of the physical value, or None
    tags : {namespace: {key: value}}
    colors : RGBA of the values 0, 1, ... of a paletted band, or None
    categories : names of the values 0, 1, ... of a band of classes, or None
    """

    dtype: str
    description: str | None = None
    colorinterp: str = "undefined"
    nodata: Number | None = None
    scale: float = 1.0
    offset: float = 0.0
    unit: str | None = None
    tags: Tags = field(default_factory=dict)
    colors: tuple[tuple[int, ...], ...] | None = None
    categories: tuple[str, ...] | None = None

    def __eq__(self, other: object) -> bool:
        # NaN nodata equals itself here: two bands are equal when they would be stored alike.
        return self.to_dict() == other.to_dict() if isinstance(other, BandInfo) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.dtype, self.description, self.colorinterp))

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data; numbers JSON cannot hold become "NaN", "Infinity" or "-Infinity"."""
        return {
            "dtype": self.dtype,
            "description": self.description,
            "colorinterp": self.colorinterp,
            "nodata": _encode(self.nodata),
            "scale": _encode(self.scale),
            "offset": _encode(self.offset),
            "unit": self.unit,
            "tags": {namespace: dict(items) for namespace, items in self.tags.items()},
            **({} if self.colors is None else {"colors": [list(color) for color in self.colors]}),
            **({} if self.categories is None else {"categories": list(self.categories)}),
        }

    @classmethod
    def from_dict(cls, data: object) -> BandInfo:
        """Check and take over what `to_dict` made. Raises `CorruptContainerError` for anything else."""
        try:
            absent = _OPTIONAL - set(data) if isinstance(data, dict) else set()
            return cls._from_dict(require_keys(data, {f.name for f in fields(cls)} - absent, what="it"))
        except ValueError as error:
            raise CorruptContainerError(f"band information is damaged: {error}") from error

    @classmethod
    def _from_dict(cls, data: dict[str, Any]) -> BandInfo:
        return cls(
            dtype=_dtype(data["dtype"]),
            description=_optional_string(data["description"], "description"),
            colorinterp=_string(data["colorinterp"], "colorinterp"),
            nodata=None if data["nodata"] is None else _number(data["nodata"], "nodata"),
            scale=float(_number(data["scale"], "scale")),
            offset=float(_number(data["offset"], "offset")),
            unit=_optional_string(data["unit"], "unit"),
            tags=_tags(data["tags"]),
            colors=_colors(data["colors"]) if "colors" in data else None,
            categories=_names(data["categories"]) if "categories" in data else None,
        )


def alpha_band(colorinterp: Sequence[str]) -> int | None:
    """0-based number of the (first) alpha band among the bands' colour interpretations, or None."""
    return next((number for number, name in enumerate(colorinterp) if name == "alpha"), None)


def native_nodata(value: Number, dtype: DTypeLike) -> Number:
    """A nodata value as bands of a type have it: integers where nothing is lost. One that no pixel can hold stays."""
    if np.dtype(dtype).kind == "f":
        return float(value)
    return int(value) if math.isfinite(value) and value == int(value) else value


# --- strict JSON -----------------------------------------------------------------------------------------------------


def _encode(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    return value if isinstance(value, str) else encode_number(value)


def _number(value: object, what: str) -> Number:
    number = decode_number(value)
    if number is None:
        raise ValueError(f"{what} is missing")
    return number


def _finite_floats(value: object, what: str, count: int) -> tuple[float, ...]:
    numbers = tuple(float(_number(item, what)) for item in _list(value, what))
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{what} is not {count} finite numbers")
    return numbers


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{what} is not a list")
    return value


def _string(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} is not a string")
    return value


def _optional_string(value: object, what: str) -> str | None:
    return None if value is None else _string(value, what)


def _dtype(value: object) -> str:
    name = _string(value, "dtype")
    if name not in np.sctypeDict or np.dtype(name).name != name or np.dtype(name).kind not in "iuf":
        raise ValueError(f"unknown data type {name!r}")
    return name


def _gcp(value: object) -> dict[str, Any]:
    gcp = require_keys(value, {*GCP_NUMBERS, *GCP_STRINGS}, what="control point")
    checked: dict[str, Any] = {}
    for key in GCP_NUMBERS:
        absent = key == "z" and gcp[key] is None
        checked[key] = None if absent else _finite_floats([gcp[key]], f"control point {key}", 1)[0]
    return checked | {key: _optional_string(gcp[key], f"control point {key}") for key in GCP_STRINGS}


def _rpcs(value: object) -> dict[str, Any]:
    rpcs = require_keys(value, {*RPC_SCALARS, *RPC_VECTORS}, what="RPC")
    checked: dict[str, Any] = {}
    for key in RPC_SCALARS:
        absent = key in ("err_bias", "err_rand") and rpcs[key] is None
        checked[key] = None if absent else float(_number(rpcs[key], key))
    return checked | {key: list(_finite_floats(rpcs[key], key, 20)) for key in RPC_VECTORS}


def _colors(value: object) -> tuple[tuple[int, ...], ...]:
    colors = tuple(tuple(_list(color, "colour")) for color in _list(value, "colors"))
    whole = all(type(part) is int and 0 <= part < 256 for color in colors for part in color)
    if len(colors) > 65536 or any(len(color) != 4 for color in colors) or not whole:
        raise ValueError("colors are not up to 65536 lists of four whole numbers from 0 to 255")
    return colors


def _names(value: object) -> tuple[str, ...]:
    return tuple(_string(name, "category") for name in _list(value, "categories"))


def _tags(value: object) -> dict[str, dict[str, str]]:
    if not isinstance(value, dict):
        raise ValueError("tags are not a JSON object")
    for namespace, items in value.items():
        if not isinstance(items, dict) or not all(isinstance(v, str) for v in (namespace, *items, *items.values())):
            raise ValueError(f"tags of namespace {namespace!r} are not strings by name")
    return {namespace: dict(items) for namespace, items in value.items()}
