from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasters import smooth, write_tif

from ltchm_geo import plan
from ltchm_geo.errors import CorruptContainerError, CorruptTileError
from ltchm_geo.radiometry import (
    UINT8_MAPPING,
    BandMapping,
    band_groups,
    decode_outliers,
    encode_outliers,
    find_outliers,
    from_model,
    to_model,
)
from ltchm_geo.raster import open_source
from ltchm_geo.survey import Survey
from ltchm_geo.tiles import TileGrid

DTYPES = ["uint8", "uint16", "int16", "float32", "float64"]
shapes = st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12))
scenes = st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, shapes))


def surveyed(pixels: np.ndarray, valid: np.ndarray) -> tuple[BandMapping, ...]:
    survey = Survey(pixels.dtype, len(pixels))
    survey.add(pixels, valid)
    return tuple(survey.mapping(band) for band in range(len(pixels)))


# --- mapping ---------------------------------------------------------------------------------------------------------


@given(scenes)
def test_integers_survive_an_exact_network(pixels: np.ndarray) -> None:
    valid = np.ones(pixels.shape, bool)
    mappings = surveyed(pixels, valid)
    values = to_model(pixels, mappings)
    assert values.dtype == np.float32
    assert ((values >= 0) & (values <= 1)).all()
    again = from_model(values, mappings, pixels.dtype, [None] * len(pixels))
    assert again.dtype == pixels.dtype
    decode_outliers(encode_outliers(pixels, find_outliers(pixels, valid, mappings)), again)
    if pixels.dtype.kind != "f":
        assert (again == pixels).all()
    else:
        width = np.array([m.high - m.low for m in mappings])[:, None, None]
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.abs(again.astype(float) - pixels)
            tiny = np.abs(pixels.astype(float)) * 1e-6 + width * 1e-6 + 1e-300
        same = (again == pixels) | (np.isnan(again) & np.isnan(pixels))
        assert (same | (error <= tiny)).all()


@given(scenes, st.data())
def test_valid_pixels_never_become_nodata(pixels: np.ndarray, data: st.DataObject) -> None:
    nodata = data.draw(st.sampled_from(pixels.ravel().tolist()))
    valid = pixels != nodata
    mappings = surveyed(pixels, valid)
    noise = data.draw(hnp.arrays(np.float32, pixels.shape, elements=st.floats(-2, 2, width=32)))
    decoded = from_model(noise, mappings, pixels.dtype, [nodata] * len(pixels))
    assert (decoded != nodata).all()


@pytest.mark.parametrize(
    ("nodata", "value", "expected"), [(0, 0.0, 1), (255, 1.0, 254), (100, 99.7, 99), (100, 100.2, 101)]
)
def test_nodata_is_left_by_the_shorter_way_inside(nodata: int, value: float, expected: int) -> None:
    values = np.full((1, 1, 1), value / 255 if value > 1 else value, np.float32)
    assert from_model(values, [UINT8_MAPPING], np.uint8, [nodata]).item() == expected


@pytest.mark.parametrize("nodata", [-9999, 300, 0.5, math.nan, math.inf])
def test_nodata_the_type_cannot_hold_changes_nothing(nodata: float) -> None:
    values = (np.arange(256, dtype=np.float32) / 255).reshape(1, 16, 16)
    decoded = from_model(values, [UINT8_MAPPING], np.uint8, [nodata])
    assert decoded.ravel().tolist() == list(range(256))


def test_wild_network_outputs_stay_in_range() -> None:
    values = np.array([[[np.nan, np.inf, -np.inf, 1e30, -7]]], np.float32)
    mapping = BandMapping.between(-100, 200)
    assert from_model(values, [mapping], np.int16, [None]).tolist() == [[[-100, 200, -100, 200, -100]]]


@given(st.sampled_from(DTYPES), st.floats(allow_nan=False, allow_infinity=False), st.floats(0, 1e308), st.data())
def test_any_mapping_a_file_may_hold_decodes(dtype: str, low: float, width: float, data: st.DataObject) -> None:
    scale = data.draw(st.floats(5e-324, 1e308))
    offset = data.draw(st.floats(allow_nan=False, allow_infinity=False))
    mapping = BandMapping(offset, scale, min(low, 1e307), min(low, 1e307) + width)
    decoded = from_model(np.array([[[0, 0.5, 1, -3e38, 3e38]]], np.float32), [mapping], dtype, [7])
    assert np.isfinite(decoded).all()
    assert (decoded != 7).all()


@pytest.mark.parametrize(("low", "high"), [(5, 5), (-1e308, 1e308), (0, 5e-324)])
def test_mappings_too_narrow_or_wide_degenerate(low: float, high: float) -> None:
    assert BandMapping.between(low, high).scale == 1


def test_mapping_survives_json() -> None:
    mapping = BandMapping.between(-0.1, 1 / 3)
    assert BandMapping.from_dict(mapping.to_dict()) == mapping


@pytest.mark.parametrize(
    "damage",
    [{"scale": 0.0}, {"scale": -1.0}, {"low": math.nan}, {"low": 9.0}, {"high": "1"}, {"offset": True}, {"x": 1}],
)
def test_damaged_mapping_is_refused(damage: dict[str, Any]) -> None:
    with pytest.raises(CorruptContainerError):
        BandMapping.from_dict(BandMapping.between(0, 1).to_dict() | damage)


# --- survey ----------------------------------------------------------------------------------------------------------


def test_8_bit_bands_always_map_alike() -> None:
    assert surveyed(np.full((1, 2, 2), 9, np.uint8), np.ones((1, 2, 2), bool)) == (UINT8_MAPPING,)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_short_tails_are_mapped_whole(dtype: str) -> None:
    pixels = np.arange(100, 10_100).astype(dtype).reshape(1, 100, 100)
    assert surveyed(pixels, np.ones(pixels.shape, bool))[0] == BandMapping.between(100, 10_099)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_long_tails_become_outliers(dtype: str) -> None:
    pixels = np.arange(1000, 11_000).astype(dtype).reshape(1, 100, 100)
    pixels[0, 0, 0] = 32_000
    valid = np.ones(pixels.shape, bool)
    mapping = surveyed(pixels, valid)[0]
    assert mapping.low == 1001
    assert 13_000 < mapping.high < 14_000
    assert np.argwhere(find_outliers(pixels, valid, [mapping])).tolist() == [[0, 0, 0]]


def test_statistics_ignore_holes_and_remember_what_they_hold() -> None:
    survey = Survey("int16", 2)
    pixels = np.array([[[-9999, 5, 7]], [[1, 2, 3]]], np.int16)
    survey.add(pixels, pixels != -9999)
    survey.add(pixels[1:] + np.int16(1), np.zeros((1, 1, 3), bool), bands=[1])
    first, second = survey.statistics(0), survey.statistics(1)
    assert (first.minimum, first.maximum, first.fill) == (5, 7, -9999)
    assert (second.minimum, second.maximum, second.fill) == (1, 3, 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_band_of_holes_only_still_maps(dtype: str) -> None:
    survey = Survey(dtype, 1)
    survey.add(np.ones((1, 4, 4), dtype), np.zeros((1, 4, 4), bool))
    assert survey.statistics(0).minimum is None
    assert survey.statistics(0).fill == 1
    assert from_model(np.zeros((1, 4, 4), np.float32), [survey.mapping(0)], dtype, [None]).shape == (1, 4, 4)


def test_extremes_beyond_arithmetic_are_outliers() -> None:
    pixels = np.array([[[-1.7e308, 1.7e308, np.inf, np.nan, 0.0]]])
    valid = np.ones(pixels.shape, bool)
    mappings = surveyed(pixels, valid)
    assert find_outliers(pixels, valid, mappings)[0, 0].tolist() == [True, True, True, True, False]
    assert np.isfinite(to_model(pixels, mappings)).all()


def test_float_samples_stay_small_and_even(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltchm_geo.survey._SAMPLE", 1000)
    values = np.random.default_rng(0).permutation(50_001).astype(np.float32)
    survey = Survey("float32", 1)
    for block in np.split(values, [1, 4, 1500, 1501, 9000, 30_003]):
        survey.add(block.reshape(1, 1, -1), np.ones((1, 1, block.size), bool))
    kept = np.concatenate(survey._bands[0]._sample)  # type: ignore[attr-defined]
    assert 500 <= kept.size <= 1000
    step = -(-values.size // kept.size)
    assert step & (step - 1) == 0
    assert (kept == values[::step]).all()
    assert survey.statistics(0).maximum == 50_000


def test_samples_of_many_bands_are_smaller() -> None:
    sizes = {bands: Survey("float32", bands)._bands[0]._size for bands in (1, 16, 100, 1000)}  # type: ignore[attr-defined]
    assert sizes == {1: 1_000_000, 16: 1_000_000, 100: 160_000, 1000: 50_000}


def test_all_bands_are_surveyed_in_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = smooth(8, 300, 300, "uint16")
    path = write_tif(tmp_path / "a.tif", pixels, interleave="pixel")
    with open_source(path) as source:
        reads: list[list[int]] = []
        read = source.read
        monkeypatch.setattr(source, "read", lambda box, bands: reads.append(list(bands)) or read(box, bands))
        survey = plan._survey(source, plan._all_tiles(TileGrid(source.shape)))
    assert reads == [list(range(8))] * 4
    assert survey.statistics(7).maximum == pixels[7].max()


# --- outliers --------------------------------------------------------------------------------------------------------


@given(scenes, st.data())
def test_outliers_come_back_bit_by_bit(pixels: np.ndarray, data: st.DataObject) -> None:
    where = data.draw(hnp.arrays(bool, pixels.shape))
    target = np.zeros_like(pixels)
    decode_outliers(encode_outliers(pixels, where), target)
    assert target[where].tobytes() == pixels[where].tobytes()
    assert not target[~where].any()


def packed(*numbers: int, values: bytes = b"") -> bytes:
    return zlib.compress(np.array(numbers, "<u4").tobytes() + values)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        packed(),
        packed(1),
        packed(1, 16, values=b"v"),
        packed(2, 3, 0, values=b"vv"),
        packed(2, 15, 2**32 - 1, values=b"vv"),
        packed(1, 3, values=b"vv"),
        packed(2**32 - 1, 3, values=b"v"),
        packed(0)[:-1],
        packed(0) + b"x",
        zlib.compress(bytes(10**8)),
    ],
)
def test_damaged_outliers_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptTileError):
        decode_outliers(data, np.zeros((1, 4, 4), np.uint8))


# --- groups ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["gray"], [(0,)]),
        (["red", "green", "blue"], [(0, 1, 2)]),
        (["blue", "green", "red", "nir"], [(2, 1, 0), (3,)]),
        (["red", "green", "blue", "alpha"], [(0, 1, 2)]),
        (["alpha", "gray"], [(1,)]),
        (["gray", *["undefined"] * 7], [(0, 1, 2), (3, 4, 5), (6, 7)]),
        (["coastal", "blue", "green", "red", "nir", "alpha", "swir"], [(3, 2, 1), (0, 4, 6)]),
        (["red", "green"], [(0, 1)]),
    ],
)
def test_band_groups(names: list[str], groups: list[tuple[int, ...]]) -> None:
    assert band_groups(names) == groups
