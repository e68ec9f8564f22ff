"""TIFF directories as data: the tags GDAL writes for a scene, and packing them into BigTIFF bytes.

GDAL knows best how GeoTIFF says "this CRS, these control points, this band is infrared". So it is asked: a GeoTIFF of
one pixel is written the way decompressing writes one, and its tags are taken over as they are. Only the tags that tell
where pixels lie are ours.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from .geotiff import create_geotiff
from .scene_meta import SceneMeta
from .types import Shape2d

__all__ = [
    "HEADER",
    "Tag",
    "Template",
    "directory_size",
    "long8_array",
    "long_array",
    "mask_tags",
    "pack_directory",
    "scene_template",
]

#: Little-endian BigTIFF with 8-byte offsets, the first directory right behind.
HEADER = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16)

SUBFILE_TYPE, WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
SAMPLES, PLANAR, PREDICTOR, TILE_WIDTH, TILE_LENGTH = 277, 284, 317, 322, 323
TILE_OFFSETS, TILE_BYTE_COUNTS, EXTRA_SAMPLES, SAMPLE_FORMAT, GDAL_NODATA = 324, 325, 338, 339, 42113

_LONG, _LONG8 = 4, 16
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_ENTRY, _COUNT = struct.Struct("<HHQ8s"), struct.Struct("<Q")
_INLINE = 8
#: Where pixels lie and how they are packed; `VirtualTiff` says so for itself.
_OWN = {SUBFILE_TYPE, WIDTH, LENGTH, COMPRESSION, PREDICTOR, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_BYTE_COUNTS}
_OF_OVERVIEWS = {BITS, PHOTOMETRIC, SAMPLES, PLANAR, EXTRA_SAMPLES, SAMPLE_FORMAT, GDAL_NODATA}


class Tag(NamedTuple):
    """One entry of a TIFF directory: `number` values, as little-endian `data` or by where in the file they lie."""

    code: int
    type: int
    number: int
    data: bytes | int

    @classmethod
    def numbers(cls, code: int, *values: int) -> Tag:
        """Whole numbers below 2**32."""
        return cls(code, _LONG, len(values), struct.pack(f"<{len(values)}I", *values))


class Template(NamedTuple):
    """What GDAL writes for a scene: tags of the full image, tags every overview repeats, a side-car file or None."""

    image: tuple[Tag, ...]
    overview: tuple[Tag, ...]
    aux_xml: bytes | None


def scene_template(meta: SceneMeta, interleave: str) -> Template:
    """Ask GDAL for the tags of the GeoTIFF that decompressing the scene would give.

    Parameters
    ----------
    meta : SceneMeta
    interleave : "pixel" or "band"

    Raises
    ------
    UsageError
        When the scene is nothing a GeoTIFF can hold, as decompressing says too.
    """
    options = {
        "interleave": interleave,
        "bigtiff": "yes",
        "endianness": "little",
        "blockxsize": "16",
        "blockysize": "16",
    }
    with tempfile.TemporaryDirectory(prefix="ltchm-") as folder:
        path = Path(folder) / "template.tif"
        with create_geotiff(path, Shape2d(1, 1), meta.bands, meta.georef, options):
            pass  # GDAL fills in the one pixel
        tags = _read_first_directory(path.read_bytes())
        sidecar = path.with_name(path.name + ".aux.xml")
        aux_xml = sidecar.read_bytes() if sidecar.exists() else None
    image = tuple(tag for tag in tags if tag.code not in _OWN)
    return Template(image, tuple(tag for tag in image if tag.code in _OF_OVERVIEWS), aux_xml)


def mask_tags() -> tuple[Tag, ...]:
    """Tags of a mask of one bit per pixel, as GDAL's internal masks have them."""
    return (
        Tag.numbers(BITS, 1),
        Tag.numbers(PHOTOMETRIC, 4),
        Tag.numbers(SAMPLES, 1),
        Tag.numbers(PLANAR, 1),
        Tag.numbers(SAMPLE_FORMAT, 1),
    )


def long_array(code: int, count: int, at: int, entries: Callable[[int, int], bytes]) -> Tag:
    """Numbers below 2**32 that lie at offset `at`, unless there are so few that they fit into the directory's entry."""
    return Tag(code, _LONG, count, entries(0, count) if 4 * count <= _INLINE else at)


def long8_array(code: int, count: int, at: int, entries: Callable[[int, int], bytes]) -> Tag:
    """As `long_array`, for numbers below 2**64."""
    return Tag(code, _LONG8, count, entries(0, count) if 8 * count <= _INLINE else at)


def directory_size(tags: Sequence[Tag]) -> int:
    """Bytes that `pack_directory` takes."""
    outside = sum(_padded(tag.data) for tag in tags if isinstance(tag.data, bytes) and len(tag.data) > _INLINE)
    return 2 * _COUNT.size + len(tags) * _ENTRY.size + outside


def pack_directory(tags: Sequence[Tag], at: int, following: int) -> bytes:
    """A directory that lies at offset `at`, with its longer values behind it; `following`: the next one's, or 0."""
    entries, values = [], []
    place = at + 2 * _COUNT.size + len(tags) * _ENTRY.size
    for tag in sorted(tags):
        data = tag.data
        if isinstance(data, int):
            field = _COUNT.pack(data)
        elif len(data) <= _INLINE:
            field = data.ljust(_INLINE, b"\0")
        else:
            field = _COUNT.pack(place)
            values.append(data.ljust(_padded(data), b"\0"))
            place += _padded(data)
        entries.append(_ENTRY.pack(tag.code, tag.type, tag.number, field))
    return b"".join([_COUNT.pack(len(tags)), *entries, _COUNT.pack(following), *values])


def _read_first_directory(file: bytes) -> list[Tag]:
    """Tags of a BigTIFF that GDAL has just written for us; not for files from elsewhere."""
    if file[:8] != HEADER[:8]:
        raise ValueError("GDAL did not write the little-endian BigTIFF it was asked for")
    (at,) = _COUNT.unpack_from(file, 8)
    (count,) = _COUNT.unpack_from(file, at)
    tags = []
    for number in range(count):
        code, kind, values, field = _ENTRY.unpack_from(file, at + _COUNT.size + number * _ENTRY.size)
        size = values * _TYPE_SIZES[kind]
        start = _COUNT.unpack(field)[0]
        tags.append(Tag(code, kind, values, field[:size] if size <= _INLINE else file[start : start + size]))
    return tags


def _padded(data: bytes) -> int:
    return -(-len(data) // 8) * 8
