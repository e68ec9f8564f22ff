"""The Zarr metadata of a scene: its ``zarr.json`` documents and, in a folder, the CF coordinates beside its pixels.

Those of a folder are made by zarr itself, in memory, so that they are what zarr expects; the writer then stores their
bytes. A single file has the root's alone, from which the others follow: nobody but zarr needs them, and in a small
scene they would take a tenth of all bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._json import dumps, encode_number, loads
from ._recognise import ROOT_KEY
from .georef import Georef
from .masks import representable
from .scene_meta import BandGroup, SceneMeta
from .types import Shape2d

__all__ = ["axis_attributes", "coordinates", "grid_mapping", "make_documents"]

_COORDINATE_CHUNK = 1 << 20
_REFERENCE = "spatial_ref"
_MULTISCALES = {
    "uuid": "d35379db-88df-4056-af3a-620245f8e347",
    "name": "multiscales",
    "schema_url": "https://raw.githubusercontent.com/zarr-conventions/multiscales/refs/tags/v1/schema.json",
    "spec_url": "https://github.com/zarr-conventions/multiscales/blob/v1/README.md",
    "description": "Multiscale layout of zarr datasets",
}


def coordinates(meta: SceneMeta, pyramid: int = 0) -> dict[str, NDArray[np.floating[Any]]]:
    """Pixel centres along ``y`` and ``x``; empty when the transform is missing, rotated or sheared."""
    transform, shape = meta.pyramid_georef(pyramid).transform, meta.pyramid_shape(pyramid)
    if transform is None:
        return {}
    a, b, c, d, e, f = transform
    if b or d:
        return {}
    return {"y": f + e * (np.arange(shape.y) + 0.5), "x": c + a * (np.arange(shape.x) + 0.5)}


def grid_mapping(georef: Georef) -> dict[str, str]:
    """Attributes of a CF grid mapping variable: ``crs_wkt`` and, as GDAL has it, ``GeoTransform``; what is known."""
    attributes = {} if georef.crs is None else {"crs_wkt": georef.crs}
    if georef.transform is not None:
        a, b, c, d, e, f = georef.transform
        attributes["GeoTransform"] = " ".join(repr(float(number)) for number in (c, a, b, f, d, e))  # GDAL's order
    return attributes


def axis_attributes(georef: Georef) -> dict[str, dict[str, str]]:
    """CF attributes of the coordinates ``y`` and ``x``."""
    geographic = (georef.crs or "").startswith(("GEOGCRS", "GEOGCS", "GEODCRS"))
    names = {"y": "latitude", "x": "longitude"} if geographic else {a: f"projection_{a}_coordinate" for a in "yx"}
    return {axis: {"standard_name": name, "axis": axis.upper()} for axis, name in names.items()}


def make_documents(meta: SceneMeta, folder: bool) -> dict[str, bytes]:
    """Every key of the scene that is not a shard or the manifest, root first.

    Parameters
    ----------
    meta : SceneMeta
    folder : bool
        Whether other programs are to read it as a Zarr store: with metadata of every array, and for those that know CF
        or Zarr conventions ``spatial_ref``, ``x``, ``y`` and attributes. All of it follows from `meta`.
    """
    if not folder:
        attributes = {"ltchm": meta.to_document()}
        return {ROOT_KEY: dumps({"attributes": attributes, "zarr_format": 3, "node_type": "group"})}
    import zarr
    from zarr.core.buffer import Buffer

    stored: dict[str, Buffer] = {}
    store = zarr.storage.MemoryStore(stored)
    conventions = _multiscales(meta) if meta.overviews else {}
    root = zarr.create_group(store, zarr_format=3, attributes={"ltchm": meta.to_document(), **conventions})
    for pyramid in meta.pyramid:
        level = root.create_group(str(pyramid), attributes={"Conventions": "CF-1.11"})
        shape = meta.pyramid_shape(pyramid)
        _add_georeferencing(level, meta, pyramid)
        for group in meta.groups:
            _add_group(level, meta, shape, group, _group_attributes(meta, group))
        for plane in meta.planes:
            _add_plane(level, meta, shape, plane, {"grid_mapping": _REFERENCE})
    # zarr indents its JSON: in a small scene that alone would outweigh the pixels.
    documents = {
        key: dumps(loads(value.to_bytes())) if key.endswith("zarr.json") else value.to_bytes()
        for key, value in stored.items()
    }
    return dict(sorted(documents.items(), key=lambda item: (item[0].count("/"), item[0])))


def _multiscales(meta: SceneMeta) -> dict[str, Any]:
    """Attributes of the Zarr convention "multiscales" 1, https://github.com/zarr-conventions/multiscales."""
    layout: list[dict[str, Any]] = [{"asset": "0", "transform": {"scale": [1.0, 1.0], "translation": [0.0, 0.0]}}]
    for level in meta.pyramid[1:]:
        step = meta.pyramid_factor(level) / meta.pyramid_factor(level - 1)
        # Translations are between pixel centres, in pixels of the level derived from.
        transform = {"scale": [step, step], "translation": [(step - 1) / 2] * 2}
        layout.append({"asset": str(level), "derived_from": str(level - 1), "transform": transform})
    classes = meta.guarantee is not None and meta.guarantee.classes
    multiscales = {"layout": layout, "resampling_method": "mode" if classes else "average"}
    return {"zarr_conventions": [_MULTISCALES], "multiscales": multiscales}


def _add_georeferencing(level: Any, meta: SceneMeta, pyramid: int) -> None:
    from zarr.codecs import BloscCodec, BytesCodec

    georef = meta.pyramid_georef(pyramid)
    level.create_array(_REFERENCE, shape=(), dtype="int64", fill_value=0, attributes=grid_mapping(georef))
    attributes = axis_attributes(georef)
    for axis, values in coordinates(meta, pyramid).items():
        level.create_array(
            axis,
            shape=values.shape,
            dtype="float64",
            chunks=(min(values.size, _COORDINATE_CHUNK),),
            serializer=BytesCodec(endian="little"),
            compressors=BloscCodec(typesize=8, cname="zstd", clevel=9, shuffle="shuffle"),
            dimension_names=(axis,),
            attributes=attributes[axis],
        )[:] = values


def _group_attributes(meta: SceneMeta, group: BandGroup) -> dict[str, Any]:
    infos = [meta.bands[band] for band in group.bands]
    attributes: dict[str, Any] = {
        "grid_mapping": _REFERENCE,
        "long_name": [info.description or f"band {band + 1}" for band, info in zip(group.bands, infos, strict=True)],
    }
    nodata = {encode_number(info.nodata) for info in infos}
    if len(nodata) == 1 and None not in nodata:
        attributes["nodata"] = nodata.pop()
    return attributes


def _add_group(level: Any, meta: SceneMeta, shape: Shape2d, group: BandGroup, attributes: dict[str, Any]) -> None:
    from .zarr_codec import LtchmCodec

    serializer = LtchmCodec.of(meta, group)
    first = group.fill[0]  # zarr has one fill value for all bands, and it must be one that a pixel can hold
    fill = first if first is not None and representable(first, meta.array_dtype(group.name)) else 0
    _create(level, meta, shape, group.name, serializer, [], fill, attributes)


def _add_plane(level: Any, meta: SceneMeta, shape: Shape2d, plane: str, attributes: dict[str, Any]) -> None:
    from zarr.codecs import BytesCodec, GzipCodec

    serializer = BytesCodec(endian="little" if meta.array_dtype(plane).itemsize > 1 else None)
    _create(level, meta, shape, plane, serializer, [GzipCodec(level=6)], 0, attributes)


def _create(
    level: Any,
    meta: SceneMeta,
    shape: Shape2d,
    name: str,
    serializer: Any,
    compressors: list[Any],
    fill: Any,
    attributes: dict[str, Any],
) -> None:
    from zarr.codecs import Crc32cCodec

    inner = meta.tile_shape(name)
    bands, names = inner[:-2], (f"band_{name}",) if len(inner) == 3 else ()
    level.create_array(
        name,
        shape=(*bands, *shape),
        dtype=meta.array_dtype(name),
        chunks=inner,
        shards=(*bands, meta.tile * meta.shard, meta.tile * meta.shard),
        filters=None,
        serializer=serializer,
        compressors=[*compressors, Crc32cCodec()],
        fill_value=fill,
        dimension_names=(*names, "y", "x"),
        attributes=attributes,
    )
