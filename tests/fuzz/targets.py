"""Parsers of bytes, each as a function of bytes that returns, whatever they are, or shows a bug by raising.

Where a checksum or DEFLATE guards a parser, the target supplies it: a fuzzer would never get past.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from decodable import DECODABLE, write_decodable
from drawing import Draw, edited
from scenes import META

from ltchm_geo import _json
from ltchm_geo._documents import coordinates
from ltchm_geo.bitstream import TilePayload, decode_lossless
from ltchm_geo.components import ComponentTransform
from ltchm_geo.container import BandGroup, ContainerReader
from ltchm_geo.corrections import add_correction
from ltchm_geo.entropy import rans
from ltchm_geo.errors import CorruptContainerError, CorruptTileError, LtchmError
from ltchm_geo.exact_pixels import decode_pixels, encode_bounded, encode_exact
from ltchm_geo.georef import BandInfo, Georef
from ltchm_geo.manifest import Manifest
from ltchm_geo.masks import decode_mask
from ltchm_geo.radiometry import UINT8_MAPPING, BandMapping, decode_outliers
from ltchm_geo.scene_meta import SceneMeta
from ltchm_geo.server_http import BadRequestError, parse_range, parse_request
from ltchm_geo.shards import ShardIndex, check_chunk, index_size
from ltchm_geo.tile_coding import GroupCoding
from ltchm_geo.tile_decoder import decode_for_zarr, decode_tiles, tile_validity
from ltchm_geo.types import PIXEL_DTYPES, Shape2d
from ltchm_geo.zarr_codec import LtchmCodec

Target = Callable[[bytes], None]
TARGETS: dict[str, Target] = {}
SIDE = 64


def target(function: Target) -> Target:
    """Register; only the library's own errors may come out."""

    @functools.wraps(function)
    def guarded(data: bytes) -> None:
        with contextlib.suppress(LtchmError):
            function(data)

    TARGETS[function.__name__] = guarded
    return guarded


@functools.cache
def folder() -> Path:
    """For files of this process; in memory where the system has such a place."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    kept = tempfile.TemporaryDirectory(prefix="ltchm-fuzz-", dir=base)
    _KEPT.append(kept)  # removed when the process ends
    return Path(kept.name)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def _deflated(draw: Draw) -> bytes:
    """The rest, mostly as a zlib stream of it: garbage is seldom one."""
    return zlib.compress(draw.rest(), 1) if draw.byte() % 8 else draw.rest()


def coding(draw: Draw) -> GroupCoding:
    """One to three bands of any type, with holes and nodata or without."""
    dtype, bands = np.dtype(draw.one_of(sorted(PIXEL_DTYPES))), 1 + draw.number(3)
    fill, nodata = draw.one_of([(None, None), (0, 0), (1, None), (0, 7)])
    mapping = BandMapping(0.0, draw.one_of([1 / 255, 1e-30, 1e30]), 0.0, 255.0)
    return GroupCoding(dtype, (mapping,) * bands, (fill,) * bands, (nodata,) * bands)


# --- tiles -----------------------------------------------------------------------------------------------------------


@target
def tile(data: bytes) -> None:
    """A tile that needs no network: header, sections and exact bodies."""
    draw = Draw(data)
    group = coding(draw)
    payload = draw.rest()
    (found,) = decode_tiles([payload], group, None, SIDE)
    if not isinstance(found, CorruptTileError):
        assert found.shape == (group.bands, SIDE, SIDE)
        assert found.dtype == group.dtype
        assert TilePayload.unpack(payload).pack() == payload  # no two spellings of one tile
    tile_validity(payload, group, SIDE, None)


@target
def tile_sections(data: bytes) -> None:
    """A tile whose sections and body inflate, so that what is in them is looked at."""
    draw = Draw(data)
    group, mode, flags = coding(draw), draw.number(8), draw.number(4)
    sections = [_section(draw) for bit in (1, 2) if flags & bit]
    body = _deflated(draw) if mode == 3 else draw.rest()
    version = int(mode in (4, 5))
    lengths = b"".join(bytes([n & 127 | 128, n >> 7]) if n >= 128 else bytes([n]) for n in map(len, sections))
    payload = bytes([version, mode, flags, 0]) + lengths + b"".join(sections) + body
    decode_tiles([payload], group, None, SIDE)
    tile_validity(payload, group, SIDE, None)


def _section(draw: Draw) -> bytes:
    flag = bytes([draw.number(3)]) if draw.byte() % 2 else b""
    raw = bytes(draw.byte() for _ in range(draw.number(64))) + bytes(draw.one_of([0, 1, 512, 8 * SIDE * SIDE]))
    return (flag + zlib.compress(raw, 1))[: (1 << 14) - 1]


@target
def mask(data: bytes) -> None:
    draw = Draw(data)
    shape = (1 + draw.number(3), 1 + draw.number(70), 1 + draw.number(70))
    found = decode_mask(bytes([draw.byte()]) + _deflated(draw), shape)
    assert found.shape == shape
    assert found.dtype == np.bool_


@target
def outliers(data: bytes) -> None:
    draw = Draw(data)
    decode_outliers(_deflated(draw), np.zeros((2, 8, 8), draw.one_of(sorted(PIXEL_DTYPES))))


@target
def lossless(data: bytes) -> None:
    draw = Draw(data)
    dtype = draw.one_of(sorted(PIXEL_DTYPES))
    assert decode_lossless(_deflated(draw), (2, 8, 8), dtype).shape == (2, 8, 8)


@functools.cache
def _exact_bodies(dtype: str) -> list[bytes]:
    """Bodies of all ways to store pixels exactly, or within a bound."""
    x = np.arange(256).reshape(1, 16, 16)
    steps = np.concatenate([x, (x // 7) * 9, (x % 3) * 60]).astype(dtype)
    known = np.ones(steps.shape, bool)
    bodies = [encode_exact(steps, known)[0], encode_exact(steps * 0, known)[0]]
    return [*bodies, encode_bounded(steps, known, (4.0, 1.0, 0.5), (None, 0, 7))[0]]


@target
def exact_pixels(data: bytes) -> None:
    """A PREDICTED body with changes, or any bytes."""
    draw = Draw(data)
    dtype = np.dtype(draw.one_of(sorted(PIXEL_DTYPES)))
    body = bytearray(draw.one_of(_exact_bodies(dtype.name)))
    for _ in range(draw.number(5)):
        body[draw.number(len(body) if draw.byte() % 2 else min(len(body), 40))] = draw.byte()
    known = np.ones((3, 16, 16), bool)
    known[:, draw.number(16), draw.number(16) :] = draw.byte() % 2 == 0
    changed = bytes(body) if draw.byte() % 4 else draw.rest()
    assert decode_pixels(changed, known, dtype).shape == known.shape


@target
def correction(data: bytes) -> None:
    """The rest of a CORRECTED body: steps, and any bytes as indices."""
    draw = Draw(data)
    dtype = np.dtype(draw.one_of(sorted(PIXEL_DTYPES)))
    step = draw.one_of([1.0, 0.5, 1e-300, 1e300, np.inf, np.nan, 0.0, -1.0])
    known = np.ones((2, 8, 8), bool)
    base = np.full(known.shape, draw.one_of([0.0, 255.0, 1e30, -1e308]))
    add_correction(np.array([1.0, step], "<f8").tobytes() + draw.rest(), base, known, dtype, (None, 0))


@target
def stream(data: bytes) -> None:
    """rANS with any bytes beside a stream that is sound: that one must not be disturbed."""
    draw = Draw(data)
    z_cdf = np.arange(130, dtype=np.int64)[None].repeat(2, 0)
    z_cdf[:, -1] = 1 << 24
    z = np.zeros((1, 2, 1, 1), np.int32)
    y = np.arange(-4, 4, dtype=np.int32).reshape(1, 4, 2) * draw.one_of([1, 100, 1 << 20])
    params = np.full((1, 4, 9, 2), draw.number(1 << 16) - (1 << 15), np.int16)
    (sound,) = rans.encode(z, y, params, z_cdf, threads=1)
    decoder = rans.Decoder([draw.rest(), sound], z_cdf, threads=1)
    decoder.z((2, 1, 1))
    found = decoder.y(params.repeat(2, 0))
    assert decoder.finish()[1]
    np.testing.assert_array_equal(found[1], y[0])


# --- shards and documents --------------------------------------------------------------------------------------------


@target
def shard(data: bytes) -> None:
    """An index with a right checksum, and the chunks it leads to."""
    draw = Draw(data)
    entries = (bytes(draw.byte() for _ in range(64)) + b"\xff" * 64)[:64]
    body = draw.rest()
    tail = entries + google_crc32c.value(entries).to_bytes(4, "little")
    index = ShardIndex(tail, 4, len(body), 1000)
    assert len(tail) == index_size(4)
    for slot in range(4):
        if (found := index[slot]) is not None:
            assert found[0] + found[1] <= len(body)
            check_chunk(body[found[0] : found[0] + found[1]])


@target
def json_document(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        _json.dumps(_json.loads(data))


@target
def manifest(data: bytes) -> None:
    """Any bytes, or a sound manifest with changes."""
    draw = Draw(data)
    if draw.byte() % 4 == 0:
        Manifest.unpack(draw.rest())
    record = {"bytes": 3, "sha256": "ab" * 32}
    found = {"format": 1, "complete": True, "shards": {"0/g0/c/0/0/0": record}, "files": {"zarr.json": record}}
    Manifest.unpack(_encoded(edited(found, draw))).pack()


def _encoded(document: object) -> bytes:
    return json.dumps(document).encode()  # unlike ours this writes lone surrogates, escaped: a hostile file may, too


def parsed(document: object) -> Any:
    """What a reader makes of a document."""
    try:
        return _json.loads(_encoded(document))
    except ValueError as error:
        raise CorruptContainerError("not JSON") from error


#: What four bands are mixtures of: their mean, and three differences.
MIXED = ComponentTransform(
    (1, 3), ((512, 724, 0, 0), (512, -724, 0, 0), (512, 0, 724, 0), (512, 0, 0, 724)), (512, 512, 512, 512)
)

_FOUR = BandGroup("g0", (0, 1, 2, 3), (UINT8_MAPPING,) * 4, (None,) * 4, MIXED)
_MIXED_META = SceneMeta(Shape2d(300, 200), "uint8", (BandInfo("uint8"),) * 4, Georef(), (_FOUR,), "ab" * 32)


@target
def transform(data: bytes) -> None:
    """A sound transform with changes; where it is taken, it must mix planes, and come back from what it says."""
    draw = Draw(data)
    try:
        found = ComponentTransform.from_dict(parsed(edited(MIXED.to_dict(), draw)))
    except ValueError:
        return
    assert ComponentTransform.from_dict(found.to_dict()) == found
    planes = [np.full((count, 2, 2), 1e3, np.float32) for count in found.passes]
    assert np.isfinite(found.bands(planes)).all()
    assert all(0 <= found.level(number, 112) <= 112 for number in range(len(planes)))


@target
def description(data: bytes) -> None:
    """A sound scene description with changes; where it is taken, all that follows from it must work."""
    draw = Draw(data)
    base = draw.one_of([META, DECODABLE, _MIXED_META]).to_document()
    meta = SceneMeta.from_dict(parsed(edited(base, draw)))
    for form in (meta.to_dict(), meta.to_document()):
        assert SceneMeta.from_dict(_json.loads(_json.dumps(form))).to_dict() == meta.to_dict()
    for level in meta.pyramid:
        meta.pyramid_georef(level), meta.pyramid_quality(level)
        assert len(meta.shard_keys(level)) <= 400_000
    for array in meta.arrays:
        assert meta.payload_limit(array) < 1 << 28
    if max(meta.shape) < 10_000:
        coordinates(meta)


@target
def codec_configuration(data: bytes) -> None:
    """What plain zarr readers get from a ``zarr.json``, and tiles decoded with it."""
    draw = Draw(data)
    mapping = [[0.0, 1 / 255, 0.0, 255.0]] * 2
    base = {"format": 0, "weights": None, "mapping": mapping, "fill": [0, "NaN"], "nodata": [None, 7]}
    codec = LtchmCodec.from_configuration(parsed(edited(base, draw)))
    assert LtchmCodec.from_configuration(codec.configuration) == codec
    if codec.weights is None and codec.mapping:
        dtype, payload = draw.one_of(sorted(PIXEL_DTYPES)), draw.rest()
        decode_for_zarr([payload], codec.configuration, (len(codec.mapping), SIDE, SIDE), dtype)


# --- files and requests ----------------------------------------------------------------------------------------------


@functools.cache
def small_scene() -> bytes:
    """A whole scene, about 5 kB."""
    return write_decodable(folder() / "base.ltchm").read_bytes()


@target
def archive(data: bytes) -> None:
    """Any bytes as a file, or a sound scene with up to eight pieces of it overwritten, cut out or doubled."""
    draw = Draw(data)
    content = draw.rest() if draw.byte() % 4 == 0 else _spoiled(small_scene(), draw)
    path = folder() / "archive.ltchm"
    path.write_bytes(content)
    with ContainerReader(path) as reader:
        reader.verify()
        reader.sizes()


def _spoiled(content: bytes, draw: Draw) -> bytes:
    spoiled = bytearray(content)
    for _ in range(1 + draw.number(8)):
        # ZIP's directory lies at the end: half of the changes go there.
        reach = len(spoiled) if draw.byte() % 2 else min(len(spoiled), 1500)
        at, size = len(spoiled) - 1 - draw.number(max(1, reach)), draw.one_of([1, 1, 2, 4, 8, 30])
        at = max(0, at)
        how = draw.number(5)
        if how == 0:
            del spoiled[at : at + size]
        elif how == 1:
            spoiled[at:at] = spoiled[at : at + size]
        elif how == 2:
            spoiled[at : at + size] = draw.one_of([b"\0", b"\xff", b"\x7f"]) * size
        else:
            spoiled[at : at + size] = bytes(draw.byte() for _ in range(size))
    return bytes(spoiled)


@target
def request(data: bytes) -> None:
    """An HTTP request and its Range header."""
    with contextlib.suppress(BadRequestError):
        found = parse_request(data)
        parse_range(found.headers.get("range"), 1000)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No output: a command line's complaints."""
    with (
        open(os.devnull, "w") as out,
        open(os.devnull, "w", errors="backslashreplace") as err,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        yield
