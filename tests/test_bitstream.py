from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ltchm_geo.bitstream import MAX_LEVEL, TileMode, TilePayload, decode_lossless, encode_lossless
from ltchm_geo.errors import CorruptTileError, UnsupportedVersionError
from ltchm_geo.types import Shape2d

sections = st.none() | st.binary(max_size=300)
extents = st.none() | st.builds(Shape2d, st.integers(1, 256), st.integers(1, 256))
payloads = st.one_of(
    st.builds(TilePayload, st.just(TileMode.EMPTY), mask=sections, outliers=sections),
    st.builds(TilePayload, st.just(TileMode.CONSTANT), mask=sections, outliers=sections, body=st.binary()),
    st.builds(
        TilePayload, st.just(TileMode.LATENT), st.integers(0, MAX_LEVEL), sections, sections, st.binary(), extents
    ),
    st.builds(TilePayload, st.just(TileMode.LOSSLESS), mask=sections, outliers=sections, body=st.binary()),
    st.builds(TilePayload, st.just(TileMode.PREDICTED), mask=sections, outliers=sections, body=st.binary()),
    st.builds(
        TilePayload,
        st.just(TileMode.CORRECTED),
        st.integers(0, MAX_LEVEL),
        sections,
        sections,
        st.builds(TilePayload.corrected_body, st.binary(), st.binary()),
    ),
    st.builds(
        TilePayload,
        st.just(TileMode.COMPONENTS),
        st.integers(0, MAX_LEVEL),
        sections,
        sections,
        st.builds(TilePayload.components_body, st.lists(st.binary(), max_size=6)),
        extents,
    ),
)
DTYPES = ["uint8", "uint16", "int16", "float32", "float64"]


@given(payloads)
def test_round_trip(payload):
    assert TilePayload.unpack(payload.pack()) == payload


@given(st.binary(max_size=400))
def test_garbage_is_refused_or_canonical(data):
    try:
        payload = TilePayload.unpack(data)
    except (CorruptTileError, UnsupportedVersionError):
        return
    assert payload.pack() == data


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (TilePayload(TileMode.EMPTY), "00000000"),
        (TilePayload(TileMode.CONSTANT, body=b"\x07"), "0001000007"),
        (TilePayload(TileMode.LATENT, 112, b"m", b"oo", b"body"), "0002037001026d6f6f626f6479"),
        (TilePayload(TileMode.LATENT, 5, None, b"", b"b"), "000202050062"),
        (TilePayload(TileMode.LOSSLESS, mask=b"x" * 200, body=b"z"), "00030100c801" + "78" * 200 + "7a"),
        (TilePayload(TileMode.LATENT, 5, b"m", body=b"b", extent=Shape2d(2, 16)), "02020505010f016d62"),
        (TilePayload(TileMode.PREDICTED, body=b"z"), "010400007a"),
        (
            TilePayload(TileMode.COMPONENTS, 9, body=TilePayload.components_body([b"yy", b"", b"z"])),
            "0206000902797900017a",
        ),
        (TilePayload(TileMode.CORRECTED, 3, body=TilePayload.corrected_body(b"yy", b"z")), "010500030279797a"),
    ],
)
def test_exact_bytes(payload, expected):
    assert payload.pack().hex() == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "header"),
        ("000200", "header"),
        ("00060000", "mode"),
        ("00040000", "format 1"),
        ("01020000", "format 0"),
        ("01040001", "level"),
        ("01050000", "ends inside"),
        ("0105000002aa", "does not fit"),
        ("00020800", "reserved"),
        ("0202040000", "extent"),
        ("0002040000", "format 2"),
        ("02000400ffff", "no extent"),
        ("00028000", "reserved"),
        ("00020071", "level"),
        ("00030001", "level"),
        ("0000000000", "EMPTY"),
        ("00020100", "ends inside"),
        ("0002010080", "ends inside"),
        ("00020100808080808001", "five bytes"),
        ("000201008000", "shortest"),
        ("0002010005aa", "do not fit"),
        ("00020100ffffffff7faa", "do not fit"),
        ("000203000101aa", "do not fit"),
    ],
)
def test_malformed(data, message):
    with pytest.raises(CorruptTileError, match=message):
        TilePayload.unpack(bytes.fromhex(data))


def test_newer_version():
    with pytest.raises(UnsupportedVersionError, match="update"):
        TilePayload.unpack(bytes([3, 0, 0, 0]))


@settings(max_examples=60)
@given(st.data(), st.sampled_from(DTYPES), st.tuples(*[st.integers(1, 9)] * 3))
def test_lossless_is_exact(data, dtype, shape):
    bits = data.draw(hnp.arrays(f"u{np.dtype(dtype).itemsize}", shape))  # every bit pattern, so every NaN payload too
    decoded = decode_lossless(encode_lossless(bits.view(dtype)), shape, dtype)
    assert decoded.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(decoded.view(bits.dtype), bits)


@pytest.mark.parametrize("dtype", DTYPES)
def test_lossless_layouts(dtype):
    ramp = np.arange(3 * 20 * 30).reshape(20, 30, 3).astype(dtype).transpose(2, 0, 1)  # not contiguous
    encoded = encode_lossless(ramp)
    np.testing.assert_array_equal(decode_lossless(encoded, ramp.shape, dtype), ramp)
    assert encode_lossless(ramp.astype(np.dtype(dtype).newbyteorder(">"))) == encoded
    assert len(encoded) < ramp.nbytes / 4


def test_lossless_exact_bytes():
    pixels = np.array([[[1, 3, 258]]], np.uint16)
    assert zlib.decompress(encode_lossless(pixels)) == bytes([1, 2, 255, 0, 0, 0])


def test_lossless_refuses_other_types():
    with pytest.raises(ValueError, match="complex"):
        encode_lossless(np.zeros((1, 2, 2), complex))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not zlib",
        zlib.compress(bytes(11)),
        zlib.compress(bytes(13)),
        zlib.compress(bytes(12))[:-1],
        zlib.compress(bytes(12)) + b"x",
        zlib.compress(bytes(1 << 28), 9),  # a bomb: refused without inflating it
    ],
)
def test_lossless_malformed(data):
    with pytest.raises(CorruptTileError):
        decode_lossless(data, (1, 3, 4), "uint8")
