"""Georeferencing and band information between rasterio datasets and `georef`'s plain data."""

from __future__ import annotations

import functools
import os
import threading
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, WktVersion
from rasterio.errors import CRSError, NotGeoreferencedWarning
from rasterio.io import MemoryFile
from rasterio.rpc import RPC

from .errors import CorruptContainerError
from .georef import GCP_NUMBERS, GCP_STRINGS, RPC_SCALARS, RPC_VECTORS, BandInfo, Georef, Number, Tags, native_nodata

__all__ = [
    "apply",
    "beyond_double",
    "quiet_open",
    "read_bands",
    "read_georef",
    "sidecar_xml",
    "tiff_colors",
    "to_wkt",
]

_EXACT_DOUBLES = 2**53

# Structural or path-dependent namespaces, which GDAL makes up anew for every file; RPC has its own field.
_DERIVED_NAMESPACES = frozenset({"IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "SUBDATASETS", "TIFF", "xml:VRT", "RPC"})
#: Names that `DatasetWriter.update_tags` takes for its own.
_NOT_TAGS = frozenset({"bidx", "ns"})

_warnings_lock = threading.Lock()  # `catch_warnings` changes the whole process: never two at once


def quiet_open(path: str | os.PathLike[str], mode: str = "r", **profile: Any) -> Any:
    """`rasterio.open` without the warning that a raster lies nowhere: `Georef` says so, and that is fine."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path, mode, **profile)


def read_georef(dataset: Any) -> Georef:
    """Georeferencing and tags of an open rasterio dataset."""
    gcps, gcps_crs = dataset.gcps
    return Georef(
        crs=_wkt(dataset.crs),
        # GDAL reports identity when a raster has no transform; the two cannot be told apart.
        transform=None if dataset.transform.is_identity else tuple(dataset.transform)[:6],
        gcps=tuple({key: getattr(gcp, key) for key in (*GCP_NUMBERS, *GCP_STRINGS)} for gcp in gcps),
        gcps_crs=_wkt(gcps_crs),
        rpcs=None if dataset.rpcs is None else _rpcs_as_dict(dataset.rpcs),
        tags=_read_tags(dataset),
    )


def read_bands(dataset: Any) -> tuple[BandInfo, ...]:
    """What an open rasterio dataset says about each of its bands, in file order."""
    # Of integers only: rasterio knows all there is to say of floats.
    elements = _vrt_bands(dataset) if any(np.dtype(name).kind in "iu" for name in dataset.dtypes) else {}
    descriptions, units = _band_texts(dataset, "descriptions"), _band_texts(dataset, "units")
    return tuple(
        BandInfo(
            dtype=dataset.dtypes[i],
            description=descriptions[i],
            colorinterp=dataset.colorinterp[i].name,
            nodata=_read_nodata(dataset, i, elements.get(i + 1)),
            scale=float(dataset.scales[i]),
            offset=float(dataset.offsets[i]),
            unit=units[i] or None,
            tags=_read_tags(dataset, i + 1),
            colors=_read_colors(dataset, i + 1),
            categories=_read_categories(elements.get(i + 1)),
        )
        for i in range(dataset.count)
    )


def apply(dataset: Any, georef: Georef, bands: Sequence[BandInfo]) -> None:
    """Put georeferencing and band information on a rasterio dataset opened for writing.

    Nodata and photometric interpretation are settled when a file is created: see `raster.create_geotiff`. A GeoTIFF
    holds either a transform or control points; where there are both, the transform is written.
    """
    _write_tags(dataset, georef.tags)  # first: AREA_OR_POINT decides how GDAL stores the transform
    if georef.crs is not None:
        dataset.crs = _crs(georef.crs)
    if georef.transform is not None:
        dataset.transform = rasterio.Affine(*georef.transform)
    elif georef.gcps:
        point = georef.tags.get("", {}).get("AREA_OR_POINT") == "Point"
        shift = _gcp_point_shift() if point and dataset.driver == "GTiff" else 0.0
        points = [GroundControlPoint(**{**g, "row": g["row"] - shift, "col": g["col"] - shift}) for g in georef.gcps]
        dataset.gcps = (points, _crs(georef.gcps_crs) or CRS())
    if georef.rpcs is not None:
        dataset.rpcs = RPC(**georef.rpcs)
    _apply_bands(dataset, bands)


def _apply_bands(dataset: Any, bands: Sequence[BandInfo]) -> None:
    dataset.colorinterp = [ColorInterp.__members__.get(band.colorinterp, ColorInterp.undefined) for band in bands]
    if any(band.scale != 1 for band in bands):
        dataset.scales = [band.scale for band in bands]
    if any(band.offset != 0 for band in bands):
        dataset.offsets = [band.offset for band in bands]
    for number, band in enumerate(bands, start=1):
        if band.description is not None:
            dataset.set_band_description(number, band.description)
        if band.unit is not None:
            dataset.set_band_unit(number, band.unit)
        if (colors := tiff_colors(number, band)) is not None:
            dataset.write_colormap(number, dict(enumerate(colors)))
        _write_tags(dataset, band.tags, number)


def sidecar_xml(bands: Sequence[BandInfo], beside: bytes = b"<PAMDataset/>") -> bytes | None:
    """GDAL's side-car document ``.aux.xml`` with what a GeoTIFF, or rasterio, cannot hold of bands.

    That is categories, nodata of many digits, and colour tables (see `tiff_colors`). None without any of it.
    `beside` is such a document that is there already.
    """
    wanted = {number: elements for number, band in enumerate(bands, 1) if (elements := _sidecar_elements(number, band))}
    if not wanted:
        return None
    root = ElementTree.fromstring(beside)
    found = {element.get("band"): element for element in root.iter("PAMRasterBand")}
    for number, elements in wanted.items():
        parent = found.get(str(number))
        parent = ElementTree.SubElement(root, "PAMRasterBand", band=str(number)) if parent is None else parent
        for name in {element.tag for element in elements}:
            for other in parent.findall(name):
                parent.remove(other)
        parent.extend(elements)
    document: bytes = ElementTree.tostring(root, encoding="utf-8")
    return document


def _sidecar_elements(number: int, band: BandInfo) -> list[ElementTree.Element]:
    found = []
    if beyond_double(band.nodata):
        found.append(_element("NoDataValue", str(band.nodata)))
    if number == 1 and band.colors is not None and tiff_colors(number, band) is None:  # of others GDAL reads none
        found.append(_element("ColorInterp", "Palette"))
        found.append(_element("ColorTable"))
        for color in band.colors:
            channels = {f"c{i}": str(value) for i, value in enumerate(color, start=1)}
            ElementTree.SubElement(found[-1], "Entry", channels)
    if band.categories is not None:
        found.append(_element("CategoryNames"))
        for name in band.categories:
            found[-1].append(_element("Category", name))
    return found


def _element(name: str, text: str | None = None) -> ElementTree.Element:
    element = ElementTree.Element(name)
    element.text = text
    return element


def tiff_colors(number: int, band: BandInfo) -> tuple[tuple[int, ...], ...] | None:
    """The colour table of band `number` if a TIFF has a place for it: of the first one, in 8 or 16 bits."""
    return band.colors if number == 1 and band.dtype in ("uint8", "uint16") else None


def beyond_double(nodata: Number | None) -> bool:
    """Whether a nodata value is an integer that rasterio, which has nodata as a double, would change."""
    return isinstance(nodata, int) and abs(nodata) > _EXACT_DOUBLES


@functools.cache
def _gcp_point_shift() -> float:
    """How far the GTiff driver moves control points of an AREA_OR_POINT=Point file between writing and reading.

    GDAL (at least up to 3.10) adds half a pixel both ways. Measured rather than assumed, so that a GDAL which has
    mended this is right as well.
    """
    probe = GroundControlPoint(row=1.0, col=1.0, x=0.0, y=0.0)
    with MemoryFile() as memory:
        placed = {"gcps": [probe], "crs": CRS.from_epsg(4326)}
        with memory.open(driver="GTiff", width=1, height=1, count=1, dtype="uint8", **placed) as dataset:
            dataset.update_tags(AREA_OR_POINT="Point")
        with memory.open() as dataset:
            return float(dataset.gcps[0][0].row) - 1.0


def _read_colors(dataset: Any, band: int) -> tuple[tuple[int, ...], ...] | None:
    if dataset.colorinterp[band - 1] != ColorInterp.palette:
        return None
    try:
        table = dataset.colormap(band)
    except ValueError:  # rasterio's word for: there is none
        return None
    return tuple(tuple(table.get(value, (0, 0, 0, 255))) for value in range(max(table) + 1))


def _band_texts(dataset: Any, name: Literal["descriptions", "units"]) -> Sequence[str | None]:
    """Texts that GDAL knows of bands; with question marks where they are in another encoding than UTF-8."""
    try:
        texts: Sequence[str | None] = getattr(dataset, name)
        return texts
    except UnicodeDecodeError:
        key, bands = {"descriptions": "Description", "units": "UnitType"}[name], _vrt_bands(dataset)
        return [bands[number].findtext(key) if number in bands else None for number in dataset.indexes]


def _vrt_bands(dataset: Any) -> dict[int, ElementTree.Element]:
    """What a VRT of the dataset says of its bands: GDAL writes into it what rasterio does not know."""
    with MemoryFile(ext=".vrt") as memory:
        rasterio.shutil.copy(dataset, memory.name, driver="VRT")
        memory.seek(0)
        # Old files have tags in other encodings than the one a VRT claims to be in.
        root = ElementTree.fromstring(memory.read().decode("utf-8", "replace"))
    return {int(band.get("band", 0)): band for band in root.iter("VRTRasterBand")}


def _read_categories(element: ElementTree.Element | None) -> tuple[str, ...] | None:
    names = None if element is None else element.find("CategoryNames")
    return None if names is None else tuple(name.text or "" for name in names)


def _read_nodata(dataset: Any, i: int, element: ElementTree.Element | None) -> Number | None:
    text = element.findtext("NoDataValue") if element is not None and dataset.dtypes[i] in ("int64", "uint64") else None
    if text is not None and text.removeprefix("-").isdigit():
        return int(text)  # rasterio's is a double, into which 64 bits may not fit
    nodata = dataset.nodatavals[i]
    return None if nodata is None else native_nodata(nodata, dataset.dtypes[i])


def _read_tags(dataset: Any, band: int = 0) -> dict[str, dict[str, str]]:
    namespaces = ["", *(n for n in dataset.tag_namespaces(band) if n and n not in _DERIVED_NAMESPACES)]
    by_namespace = {name: dict(dataset.tags(band, ns=name or None)) for name in namespaces}
    return {name: items for name, items in by_namespace.items() if items}


def _write_tags(dataset: Any, tags: Tags, band: int = 0) -> None:
    for namespace, items in tags.items():
        if namespace.startswith("json:"):
            continue  # rasterio can only write key=value pairs, which would no longer be JSON
        if namespace.startswith("xml:"):
            # rasterio reads XML as one item named for its namespace, but writes items as key=value: cut at the first =.
            text = items.get(namespace, "")
            key, separator, value = text.partition("=")
            if separator:
                dataset.update_tags(band, ns=namespace, **{key: value})
        else:
            writable = {key: value for key, value in items.items() if key not in _NOT_TAGS}
            dataset.update_tags(band, ns=namespace or None, **writable)


def to_wkt(text: str) -> str | None:
    """WKT2:2019 of a CRS in any form GDAL understands; None for others."""
    try:
        return _wkt(CRS.from_user_input(text))
    except CRSError:
        return None


def _wkt(crs: CRS | None) -> str | None:
    return str(crs.to_wkt(version=WktVersion.WKT2_2019)) if crs else None


def _crs(wkt: str | None) -> CRS | None:
    try:
        return None if wkt is None else _with_components(CRS.from_wkt(wkt))
    except CRSError as error:
        raise CorruptContainerError(f"the scene's CRS is not valid WKT: {wkt!r:.80}") from error


def _with_components(crs: CRS) -> CRS:
    """The same CRS with the codes of what it is made of, which WKT2 leaves out where the whole has one.

    Without them GDAL guesses a GeoTIFF's vertical datum by its name, and mostly wrong.
    """
    named = crs.to_authority()
    try:
        same = CRS.from_authority(*named) if named else crs
    except CRSError:  # an authority that is not known here
        return crs
    return same if same == crs else crs


def _rpcs_as_dict(rpcs: RPC) -> dict[str, Any]:
    return {name: getattr(rpcs, name) for name in (*RPC_SCALARS, *RPC_VECTORS)}
