from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltchm_geo.errors import CorruptContainerError
from ltchm_geo.georef import RPC_SCALARS, RPC_VECTORS, BandInfo, Georef, alpha_band
from ltchm_geo.types import Shape2d

text = st.text(max_size=8)
tags = st.dictionaries(text, st.dictionaries(text, text, max_size=3), max_size=2)
finite = st.floats(allow_nan=False, allow_infinity=False)
gcps = st.fixed_dictionaries(
    dict.fromkeys(("row", "col", "x", "y"), finite)
    | {"z": st.none() | finite, "id": st.none() | text, "info": st.none() | text}
)
rpcs = st.fixed_dictionaries(
    dict.fromkeys(RPC_SCALARS, finite)
    | {name: st.lists(finite, min_size=20, max_size=20) for name in RPC_VECTORS}
    | {"err_bias": st.none() | finite}
)
georefs = st.builds(
    Georef,
    crs=st.none() | text,
    transform=st.none() | st.tuples(*[finite] * 6),
    gcps=st.lists(gcps, max_size=3).map(tuple),
    gcps_crs=st.none() | text,
    rpcs=st.none() | rpcs,
    tags=tags,
)
bands = st.builds(
    BandInfo,
    dtype=st.sampled_from(["uint8", "int16", "uint64", "float32"]),
    description=st.none() | text,
    colorinterp=st.sampled_from(["red", "undefined", "sar_c"]),
    nodata=st.none() | st.integers(-(2**63), 2**64 - 1) | st.floats(),
    scale=st.floats(),
    offset=st.floats(),
    unit=st.none() | text,
    tags=tags,
)


@given(georefs)
def test_georef_survives_json(georef: Georef) -> None:
    assert Georef.from_dict(json.loads(json.dumps(georef.to_dict(), allow_nan=False))) == georef


@given(bands)
def test_bands_survive_json(band: BandInfo) -> None:
    again = BandInfo.from_dict(json.loads(json.dumps(band.to_dict(), allow_nan=False)))
    assert again == band
    assert hash(again) == hash(band)
    assert type(again.nodata) is type(band.nodata)


@pytest.mark.parametrize("nodata", [2**64 - 1, -(2**63), 2**53 + 1, -9999, 0, 0.1, 1e300, -math.inf])
def test_nodata_is_exact(nodata: float) -> None:
    again = BandInfo.from_dict(json.loads(json.dumps(BandInfo("float64", nodata=nodata).to_dict())))
    assert again.nodata == nodata
    assert type(again.nodata) is type(nodata)


def test_nan_nodata_is_still_nan() -> None:
    band = BandInfo("float32", nodata=math.nan)
    again = BandInfo.from_dict(band.to_dict())
    assert again.nodata is not None
    assert math.isnan(again.nodata)
    assert again == band


GCP = {"row": 0.0, "col": 0.0, "x": 0.0, "y": 0.0, "z": None, "id": "1", "info": ""}


@pytest.mark.parametrize(
    "damage",
    [
        {"crs": 4326},
        {"transform": [1, 2, 3]},
        {"transform": ["NaN", 0, 0, 0, 1, 0]},
        {"transform": [True, 0, 0, 0, 1, 0]},
        {"transform": "identity"},
        {"gcps": {}},
        {"gcps": [GCP | {"row": None}]},
        {"gcps": [GCP | {"extra": 1}]},
        {"gcps": [GCP | {"id": 1}]},
        {"rpcs": {}},
        {"rpcs": dict.fromkeys(RPC_SCALARS, 0.0) | {name: [0.0] * 19 for name in RPC_VECTORS}},
        {"tags": []},
        {"tags": {"": {"key": 1}}},
        {"tags": {"": ["key"]}},
        {"unknown": 1},
    ],
)
def test_damaged_georef_is_refused(damage: dict[str, Any]) -> None:
    with pytest.raises(CorruptContainerError, match="georeferencing is damaged"):
        Georef.from_dict(Georef().to_dict() | damage)


@pytest.mark.parametrize(
    "damage",
    [
        {"dtype": "uint7"},
        {"dtype": "object"},
        {"dtype": "<u2"},
        {"dtype": 8},
        {"description": 1},
        {"colorinterp": None},
        {"nodata": True},
        {"nodata": "nan"},
        {"nodata": 2**64},
        {"nodata": [0]},
        {"scale": None},
        {"scale": 10**400},
        {"unknown": 1},
    ],
)
def test_damaged_band_is_refused(damage: dict[str, Any]) -> None:
    with pytest.raises(CorruptContainerError, match="band information is damaged"):
        BandInfo.from_dict(BandInfo("uint8").to_dict() | damage)


@pytest.mark.parametrize("data", [None, [], "georef", {}])
def test_what_is_no_record_is_refused(data: object) -> None:
    with pytest.raises(CorruptContainerError):
        Georef.from_dict(data)
    with pytest.raises(CorruptContainerError):
        BandInfo.from_dict(data)


def test_a_window_lies_where_its_pixels_lie() -> None:
    transform = (10.0, 0.5, 500_000.0, -0.25, -10.0, 4_000_000.0)
    scalars = dict.fromkeys(RPC_SCALARS, 1.0)
    whole = Georef(transform=transform, gcps=(GCP,), rpcs=scalars, tags={"": {"k": "v"}})
    part = whole.shifted(7, 3)
    assert part.transform == (10.0, 0.5, 500_033.5, -0.25, -10.0, 3_999_929.25)
    assert part.gcps == (GCP | {"row": -7.0, "col": -3.0},)
    assert part.rpcs == scalars | {"line_off": -6.0, "samp_off": -2.0}
    assert part.tags == whole.tags
    assert whole.shifted(0, 0) == whole
    assert Georef().shifted(7, 3) == Georef()


@pytest.mark.parametrize("transform", [(10.0, 0.5, 5e5, -0.25, -10.0, 4e6), (0.1, 0.0, 7.3, 0.0, -0.1, 50.1)])
def test_bounds_of_pixels_and_pixels_of_bounds(transform: tuple[float, ...]) -> None:
    place = Georef(transform=transform)
    whole, part = place.bounds(Shape2d(40, 30)), place.shifted(7, 3).bounds(Shape2d(20, 10))
    assert whole is not None
    assert part is not None
    for (low, high), first, count, turned in zip(place.pixels_of(part), (7, 3), (20, 10), (10, 20), strict=True):
        bent = 0 if transform[1] == 0 else turned  # seen along the axes, a turned rectangle takes more room
        assert first - bent / 4 <= low <= first
        assert first + count <= high <= first + count + bent / 4
    assert whole[0] < part[0] < part[2] < whole[2]
    assert whole[1] < part[1] < part[3] < whole[3]


def test_bounds_on_the_border_of_a_pixel_stay_there() -> None:
    place = Georef(transform=(0.1, 0.0, 7.3, 0.0, -0.1, 50.1))
    part = place.shifted(7, 3).bounds(Shape2d(20, 10))
    assert part is not None
    assert place.pixels_of(part) == ((7.0, 27.0), (3.0, 13.0))


def test_without_a_transform_there_is_no_place() -> None:
    assert Georef().bounds(Shape2d(4, 4)) is None
    assert Georef().pixels_of((0, 0, 1, 1)) is None
    for transform in ((1.0, 2.0, 0.0, 2.0, 4.0, 0.0), (1e-200, 0.0, 0.0, 0.0, 1e-120, 1e300)):
        assert Georef(transform=transform).pixels_of((0, 0, 1, 1)) is None


def test_alpha_band_is_found() -> None:
    assert alpha_band(["red", "green", "blue", "alpha"]) == 3
    assert alpha_band(["alpha", "gray", "alpha"]) == 0
    assert alpha_band(["gray", "undefined"]) is None


def test_looking_at_metadata_needs_no_rasterio() -> None:
    code = "import sys, ltchm_geo.georef; sys.exit('rasterio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
