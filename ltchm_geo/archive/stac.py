"""The results of an archive as STAC 1.1: an Item for each scene beside it, and a Collection of them all.

The documents are plain JSON with relative links, so that the folder can be moved, published or imported anywhere.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from .._recognise import MANIFEST_KEY
from .._sink import explained, write_file
from ..container import ContainerReader, SceneMeta
from ..errors import UsageError
from ..fingerprint import is_remote
from ..location import Location
from ..outline import footprint
from .journal import SceneRecord
from .target import Target

__all__ = ["has_item", "stac_marks", "write_collection", "write_item"]

_VERSION = "1.1.0"
_EXTENSIONS = [
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in ("projection/v2.0.0", "raster/v2.0.0", "file/v2.1.0")
]
_MEDIA_TYPE = {".ltchm": "application/x-ltchm", ".zarr": "application/vnd.zarr; version=3"}
_COLLECTION_NAME = "collection.json"
_DESCRIPTION = "compressed with ltchm_geo"
_HASH = "ltchm:sha256"
_SHA2_256 = "1220"  # multihash: the function's code and the digest's length in bytes, in hex
#: Tags that tell when an image was taken, the surest first, and how they write it.
_TIMES = (
    ("IMAGERY", "ACQUISITIONDATETIME", "%Y-%m-%d %H:%M:%S"),
    ("", "ACQUISITIONDATETIME", "%Y-%m-%d %H:%M:%S"),
    ("", "TIFFTAG_DATETIME", "%Y:%m:%d %H:%M:%S"),
)
_WORLD = [-180.0, -90.0, 180.0, 90.0]


def item_place(result: str) -> str:
    """Where the Item of a result lies below the archive."""
    return PurePosixPath(result).with_suffix(".stac.json").as_posix()


def stac_marks(target: Target, results: Iterable[str]) -> dict[Path, bytes]:
    """The documents of an archive with these results, and what tells them from other files of these names."""
    items = {target.documents / item_place(result): f'"{_HASH}": '.encode() for result in results}
    return {target.documents / _COLLECTION_NAME: _DESCRIPTION.encode(), **items}


def has_item(target: Target, scene: SceneRecord) -> bool:
    """Whether a finished scene is described as it is."""
    try:
        item = json.loads((target.documents / item_place(scene.result)).read_text("utf-8"))
        found = item["properties"]
        return bool(found["created"] == scene.finished and found[_HASH] == scene.sha256)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_item(target: Target, scene: SceneRecord) -> None:
    """Describe a finished scene.

    Raises
    ------
    DestinationError
    ContainerError
        The scene is damaged.
    """
    place = item_place(scene.result)
    path = target.documents / place
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, _dumps(_item(target, scene, place)), overwrite=True)


def write_collection(target: Target, scenes: Sequence[SceneRecord]) -> None:
    """Describe an archive by the Items of its scenes."""
    items = [json.loads((target.documents / item_place(scene.result)).read_text("utf-8")) for scene in scenes]
    boxes = [item["bbox"] for item in items if "bbox" in item]
    times = sorted(item["properties"]["datetime"] for item in items)
    name = PurePosixPath(target.root).name or "archive"
    document = {
        "type": "Collection",
        "stac_version": _VERSION,
        "id": name,
        "description": f"{len(items)} scenes {_DESCRIPTION}",
        "license": "other",
        "extent": {
            "spatial": {"bbox": [_union(boxes) if boxes else _WORLD]},
            "temporal": {"interval": [[times[0], times[-1]] if times else [None, None]]},
        },
        "links": [
            _link("root", f"./{_COLLECTION_NAME}"),
            *(_link("item", f"./{item_place(scene.result)}", "application/geo+json") for scene in scenes),
        ],
    }
    write_file(target.documents / _COLLECTION_NAME, _dumps(document), overwrite=True)


def _item(target: Target, scene: SceneRecord, place: str) -> dict[str, Any]:
    path = target.path(scene.result)
    with ContainerReader(path) as reader:
        meta = reader.meta
    up = "../" * (len(PurePosixPath(place).parts) - 1) or "./"
    taken, said_by = _datetime(meta, scene)
    return {
        "type": "Feature",
        "stac_version": _VERSION,
        "stac_extensions": _EXTENSIONS,
        "id": _id(scene.result),
        **_geometry(path),
        "properties": {
            "datetime": taken,
            "created": scene.finished,
            **_projection(meta),
            "ltchm:datetime_source": said_by,
            "ltchm:bits_per_pixel": scene.bpp,
            "ltchm:source_bytes": scene.source_bytes,
            _HASH: scene.sha256,
        },
        "links": [
            _link("root", up + _COLLECTION_NAME),
            _link("parent", up + _COLLECTION_NAME),
            _link("collection", up + _COLLECTION_NAME),
            _link("via", scene.source if is_remote(scene.source) else _file_url(scene.source), None, "source"),
        ],
        "collection": PurePosixPath(target.root).name or "archive",
        "assets": dict(_assets(target, scene, meta)),
    }


def _id(result: str) -> str:
    """Its path without suffix, in one word. Those below folders get a hash: a/b and a_b must not be called the same."""
    path = PurePosixPath(result).with_suffix("").as_posix()
    word = path.replace("/", "_")
    return word if word == path else f"{word}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"


def _assets(target: Target, scene: SceneRecord, meta: SceneMeta) -> Iterator[tuple[str, dict[str, Any]]]:
    result = PurePosixPath(scene.result)
    href = result.name if target.documents == target.folder else str(target.path(scene.result))
    checksum = {} if scene.sha256 is None else {"file:checksum": _SHA2_256 + scene.sha256}
    folder = result.suffix == ".zarr"
    yield (
        "data",
        {
            "href": href,
            "type": _MEDIA_TYPE[result.suffix],
            "roles": ["data"],
            "bands": [_band(meta, number) for number in range(len(meta.bands))],
            "file:size": scene.bytes,
            **({} if folder else checksum),
        },
    )
    if folder:  # a folder has no checksum of its own, but lists those of all its files
        yield (
            "manifest",
            {"href": f"{href}/{MANIFEST_KEY}", "type": "application/json", "roles": ["metadata"], **checksum},
        )


def _band(meta: SceneMeta, number: int) -> dict[str, Any]:
    band = meta.bands[number]
    nodata = band.nodata
    found: dict[str, Any] = {
        "name": f"b{number + 1}",
        "description": band.description or band.colorinterp,
        "data_type": band.dtype,
        "nodata": nodata if nodata is None or math.isfinite(nodata) else str(float(nodata)),  # "nan", "inf", "-inf"
        "unit": band.unit,
        "raster:scale": None if band.scale == 1 else band.scale,
        "raster:offset": None if band.offset == 0 else band.offset,
    }
    return {key: value for key, value in found.items() if value is not None}


def _projection(meta: SceneMeta) -> dict[str, Any]:
    from rasterio.crs import CRS

    found: dict[str, Any] = {"proj:shape": list(meta.shape)}
    if meta.georef.transform is not None:
        found["proj:transform"] = [*meta.georef.transform, 0, 0, 1]
    if meta.georef.crs is None:
        return found | {"proj:code": None}
    authority = CRS.from_wkt(meta.georef.crs).to_authority()
    if authority is None:
        return found | {"proj:code": None, "proj:wkt2": meta.georef.crs}
    return found | {"proj:code": ":".join(authority)}


def _geometry(path: Location) -> dict[str, Any]:
    """Where the scene has data, in longitude and latitude; null where nobody knows."""
    try:
        geometry = footprint(path)["geometry"]
    except UsageError:  # no coordinate system, or one that has no way to the Earth
        geometry = None
    if geometry is None:
        return {"geometry": None}
    polygons = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    corners = (tuple(zip(*polygon[0], strict=True)) for polygon in polygons)
    return {"bbox": _union([(min(x), min(y), max(x), max(y)) for x, y, *_ in corners]), "geometry": geometry}


def _union(boxes: Sequence[Sequence[float]]) -> list[float]:
    """The smallest box around all. One across the antimeridian has its west east of its east (RFC 7946, 5.2)."""
    arcs = sorted(arc for west, _, east, _ in boxes for arc in _within_world(west, east))
    first, reach, last = *arcs[0], max(east for _, east in arcs)
    gap, west, east = first + 360 - last, first, last
    for start, end in arcs:
        if start - reach > gap:
            gap, west, east = start - reach, start, reach
        reach = max(reach, end)
    return [west, min(box[1] for box in boxes), east, max(box[3] for box in boxes)]


def _within_world(west: float, east: float) -> list[tuple[float, float]]:
    return [(west, east)] if west <= east else [(-180.0, east), (west, 180.0)]


def _datetime(meta: SceneMeta, scene: SceneRecord) -> tuple[str, str]:
    """When the image was taken, in UTC as tags without a zone are meant to be, and what says so."""
    for namespace, name, form in _TIMES:
        text = meta.georef.tags.get(namespace, {}).get(name, "")
        try:
            return _utc(datetime.strptime(text.strip()[:19], form).replace(tzinfo=UTC)), name
        except ValueError:
            continue
    try:
        return _utc(datetime.fromtimestamp(os.stat(scene.source).st_mtime, UTC)), "file time"
    except OSError:
        return _utc(
            datetime.fromisoformat(scene.finished) if scene.finished else datetime.now(UTC)
        ), "time of compression"


def _utc(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _file_url(source: str) -> str:
    return Path(source).as_uri() if os.path.isabs(source) else source


def _link(rel: str, href: str, media_type: str | None = "application/json", title: str | None = None) -> dict[str, Any]:
    found = {"rel": rel, "href": href, "type": media_type, "title": title}
    return {key: value for key, value in found.items() if value is not None}


def _dumps(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1).encode()
