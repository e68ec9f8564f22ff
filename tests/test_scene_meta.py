from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scenes import META

from ltchm_geo import scene_meta
from ltchm_geo._json import dumps, loads
from ltchm_geo.container import BandGroup, Overview, SceneMeta
from ltchm_geo.errors import (
    CorruptContainerError,
    UsageError,
)
from ltchm_geo.georef import BandInfo, Georef
from ltchm_geo.radiometry import UINT8_MAPPING, BandMapping
from ltchm_geo.types import Shape2d


@pytest.mark.parametrize(
    "meta",
    [
        META,
        replace(META, weights=None, weights_tag=None, mask=False, source={}),
        replace(META, overviews=(Overview(2, 7), Overview(128, 112))),
        SceneMeta(
            Shape2d(1, 1),
            "float64",
            (BandInfo("float64", nodata=float("inf")),),
            Georef(),
            (BandGroup("g0", (0,), (BandMapping(-1e300, 1e-300, -1e300, 1e-5),), (float("-inf"),)),),
        ),
    ],
)
def test_meta_round_trip(meta):
    assert SceneMeta.from_dict(loads(dumps(meta.to_dict()))) == meta


def test_meta_nan_survives():
    info = BandInfo("float32", nodata=float("nan"))
    group = BandGroup("g0", (0,), (UINT8_MAPPING,), (float("nan"),))
    meta = SceneMeta(Shape2d(9, 9), "float32", (info,), Georef(), (group,))
    found = SceneMeta.from_dict(loads(dumps(meta.to_dict())))
    assert np.isnan(found.groups[0].fill[0])
    assert found.bands == meta.bands


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [0, 5]},
        {"shape": [2**31, 1]},
        {"shape": [2**23, 2**23]},
        {"shape": [2**20, 2**20]},  # too many shards of 128 pixels
        {"shape": [5]},
        {"shape": [5.0, 5]},
        {"shape": [True, 5]},
        {"shape": "55"},
        {"dtype": "object"},
        {"dtype": "complex64"},
        {"dtype": "uint16"},  # bands say uint8
        {"dtype": None},
        {"bands": []},
        {"bands": None},
        {"groups": []},
        {"groups": [None]},
        {"tile": 0},
        {"tile": 100},
        {"tile": 1088},
        {"shard": 65},
        {"shard": 0},
        {"level": 113},
        {"level": -1},
        {"level": None},
        {"alpha": 5},
        {"alpha": None},
        {"alpha": 0},
        {"mask": 1},
        {"weights": "ab"},
        {"weights": 3},
        {"software": None},
        {"source": []},
        {"source": {"a": []}},
        {"source": {"a": 10**400}},
        {"source": {"a": True}},
        {"guarantee": {"max_error": [10**400] * 5, "classes": False}},
        {"bands": META.to_dict()["bands"][3:4], "groups": [], "alpha": 0},
        {"georef": None},
        {"georef": {"crs": 5}},
        {"bands": [{}] * 5},
        {"surprise": 1},
        {"overviews": None},
        {"overviews": [2]},
        {"overviews": [{"factor": 2}]},
        {"overviews": [{"factor": 2, "level": 0, "shape": [75, 110]}]},
        {"overviews": [{"factor": 2, "level": 113}]},
        {"overviews": [{"factor": 2, "level": None}]},
        *({"overviews": [{"factor": factor, "level": 0}]} for factor in (0, 1, -2, 3, 2.0, True, "2", 256, 2**40)),
        {"overviews": [{"factor": 4, "level": 0}, {"factor": 2, "level": 0}]},
        {"overviews": [{"factor": 4, "level": 0}, {"factor": 4, "level": 0}]},
    ],
)
def test_meta_is_strict(change):
    with pytest.raises(CorruptContainerError):
        SceneMeta.from_dict({**META.to_dict(), **change})


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../g0"},
        {"name": None},
        {"bands": [0, 1]},
        {"bands": [0, 1, 1]},
        {"bands": [0, 1, 9]},
        {"mapping": []},
        {"mapping": [{"offset": None, "scale": 1, "low": 0, "high": 1}] * 3},
        {"fill": [1]},
        {"fill": ["x", 1, 1]},
        {"fill": [[], 1, 1]},
    ],
)
def test_group_is_strict(change):
    groups = META.to_dict()["groups"]
    with pytest.raises(CorruptContainerError):
        SceneMeta.from_dict({**META.to_dict(), "groups": [{**groups[0], **change}, groups[1]]})


@pytest.mark.parametrize(("version", "later"), [(0, {"overviews", "halo", "guarantee"}), (1, {"halo", "guarantee"})])
def test_older_versions_lack_keys(version, later):
    older = {key: value for key, value in META.to_dict().items() if key not in later}
    assert SceneMeta.from_dict({**older, "format": version}) == META
    with pytest.raises(CorruptContainerError, match=f"lacks {min(later)}"):
        SceneMeta.from_dict({**older, "format": 3})


def test_what_has_its_default_is_left_out():
    plain = replace(
        META, alpha=None, mask=False, source={}, georef=Georef(), bands=(BandInfo("uint8"),) * 3, groups=META.groups[:1]
    )
    document = plain.to_document()
    assert document["bands"] == [{"colorinterp": "undefined"}] * 3
    assert document["georef"] == {}
    assert not {"alpha", "mask", "source", "overviews", "halo", "guarantee"} & document.keys()
    for meta in (META, plain):
        assert SceneMeta.from_dict(meta.to_document()) == SceneMeta.from_dict(meta.to_dict()) == meta
    with pytest.raises(CorruptContainerError, match="lacks alpha"):
        SceneMeta.from_dict({**document, "format": 3})


def test_what_only_seems_to_be_a_default_is_stored():
    bands = tuple(replace(band, offset=-0.0, nodata=0) for band in META.bands)
    found = SceneMeta.from_dict(replace(META, bands=bands).to_document()).bands[0]
    assert math.copysign(1, found.offset) == -1
    assert found.nodata == 0


def test_shards_of_overviews_count():
    large = replace(META, shape=Shape2d(38_400, 38_400))  # 300 x 300 shards of four arrays
    with pytest.raises(UsageError, match="450000 shards"):
        replace(large, overviews=(Overview(2, 0),))


def test_writer_refuses_contradictory_meta():
    with pytest.raises(UsageError, match="exactly one group"):
        replace(META, alpha=None)


def test_limits_agree():
    # A manifest entry takes at most about 140 bytes: a scene at the limit of shards fits into the manifest's limit.
    from ltchm_geo.manifest import MAX_MANIFEST

    assert scene_meta.MAX_SHARDS * 140 < MAX_MANIFEST
