"""What two rasters say about their pixels, side by side: exactly what compressing and decompressing must keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError

from .georef import BandInfo, Georef, Tags
from .types import Shape2d

__all__ = ["MetadataDifference", "metadata_differences"]


@dataclass(frozen=True)
class MetadataDifference:
    """One thing that is not the same. None: not there."""

    field: str
    reference: str | None
    test: str | None


class _Raster(Protocol):
    @property
    def shape(self) -> Shape2d: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def bands(self) -> tuple[BandInfo, ...]: ...

    @property
    def georef(self) -> Georef: ...

    @property
    def mask_kind(self) -> Any: ...


def metadata_differences(reference: _Raster, test: _Raster) -> tuple[MetadataDifference, ...]:
    """Everything but the pixels that differs.

    Two things are no differences, for no GeoTIFF can keep them: names of control points, and a first band whose colour
    is undefined, not gray. A raster that does not say AREA_OR_POINT is one of areas.
    """
    common = min(len(reference.bands), len(test.bands))  # that one has more is said once, not for each property
    ours, theirs = _describe(reference, common), _describe(test, common)
    return tuple(
        MetadataDifference(field, ours.get(field), theirs.get(field))
        for field in sorted(ours.keys() | theirs.keys(), key=[*ours, *theirs].index)
        if ours.get(field) != theirs.get(field) and not (field.endswith("CRS") and _same_crs(ours, theirs, field))
    )


def _describe(raster: _Raster, bands: int) -> dict[str, str]:
    """Whatever is there, as text by field name. Numbers are written out in full, so that equal text is equal value."""
    georef = raster.georef
    found = {
        "size": f"{raster.shape.x} x {raster.shape.y} pixels",
        "bands": str(len(raster.bands)),
        "data type": raster.dtype.name,
        "holes marked by": raster.mask_kind,
        "CRS": georef.crs,
        "transform": None if georef.transform is None else ", ".join(f"{number!r}" for number in georef.transform),
        "control points": _gcps(georef),
        "control points' CRS": georef.gcps_crs,
        "RPC": None if georef.rpcs is None else str(dict(sorted(georef.rpcs.items()))),
        **dict(_tags("tag", {**georef.tags, "": {"AREA_OR_POINT": "Area", **georef.tags.get("", {})}})),
    }
    for number, band in enumerate(raster.bands[:bands], start=1):
        found |= _describe_band(band, number)
    return {field: text for field, text in found.items() if text is not None}


def _describe_band(band: BandInfo, number: int) -> Mapping[str, str | None]:
    colour = "gray" if number == 1 and band.colorinterp == "undefined" else band.colorinterp
    name = f"band {number}"
    return {
        f"{name} description": band.description,
        f"{name} colour": colour,
        f"{name} nodata": f"{band.nodata:.17g}" if isinstance(band.nodata, float) else _text(band.nodata),
        f"{name} scale": repr(band.scale),
        f"{name} offset": repr(band.offset),
        f"{name} unit": band.unit,
        f"{name} palette": _text(band.colors),
        f"{name} categories": _text(band.categories),
        **dict(_tags(f"{name} tag", band.tags)),
    }


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _tags(what: str, tags: Tags) -> Iterator[tuple[str, str]]:
    for namespace, items in sorted(tags.items()):
        for key, value in sorted(items.items()):
            yield f"{what} {namespace}{':' if namespace else ''}{key}", value


def _gcps(georef: Georef) -> str | None:
    points = ("({})".format(", ".join(repr(gcp[key]) for key in ("row", "col", "x", "y", "z"))) for gcp in georef.gcps)
    return " ".join(points) or None


def _same_crs(ours: Mapping[str, str], theirs: Mapping[str, str], field: str) -> bool:
    """Whether two texts mean one CRS: a GeoTIFF keeps codes and parameters, not always each word."""
    if field not in ours or field not in theirs:
        return False
    try:
        return bool(CRS.from_wkt(ours[field]) == CRS.from_wkt(theirs[field]))
    except CRSError:
        return False  # not understood, and not the same text
