"""What fuzzing found, each as small as it gets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decodable import DECODABLE, write_decodable
from network_targets import tiny
from rasters import pixels_of

import ltchm_geo
from ltchm_geo import _json, weights
from ltchm_geo.archive.journal import Journal
from ltchm_geo.cli.main import main
from ltchm_geo.device import pick_device
from ltchm_geo.engine import Engine
from ltchm_geo.errors import ContainerError, CorruptContainerError, InvalidWeightsError, LtchmError
from ltchm_geo.overviews import average
from ltchm_geo.types import TileIndex
from ltchm_geo.zarr_codec import LtchmCodec


def test_half_a_surrogate_pair_is_no_text() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        _json.loads(rb'["\ud800"]')
    assert _json.loads(rb'["\ud83d\ude00"]') == ["\U0001f600"]


@pytest.mark.parametrize("number", [10**400, 2**64, -(2**63) - 1])
def test_whole_numbers_have_64_bits(number: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        _json.decode_number(number)


@pytest.mark.parametrize("mapping", [[0.0, 0.0, 0.0, 1.0], [0.0, "NaN", 0.0, 1.0], [0.0, 1.0, 2.0, 1.0], [None] * 4])
def test_a_codec_has_a_mapping(mapping: list[Any]) -> None:
    found = {"format": 0, "weights": None, "mapping": [mapping], "fill": [None], "nodata": [None]}
    with pytest.raises(CorruptContainerError, match="configuration"):
        LtchmCodec.from_configuration(found)


@pytest.mark.parametrize("nodata", [-9999, 300, 0.5, float("nan")])
def test_a_nodata_value_that_no_pixel_can_hold(nodata: float, tmp_path: Path) -> None:
    """It marks nothing: a damaged tile becomes 0, and pictures are made all the same."""
    bands = tuple(replace(band, nodata=nodata) for band in DECODABLE.bands)
    groups = tuple(replace(group, fill=(nodata,) * len(group.bands)) for group in DECODABLE.groups)
    meta = replace(DECODABLE, bands=bands, groups=groups)
    path = write_decodable(tmp_path / "a.ltchm", broken=("g1", TileIndex(0, 0)), meta=meta)
    restored = ltchm_geo.decompress_raster(path, tmp_path / "a.tif", allow_damaged=True).path
    assert not pixels_of(restored)[4, :64, :64].any()
    ltchm_geo.preview(write_decodable(tmp_path / "b.ltchm", meta=meta), 20)
    average(np.zeros((1, 4, 4), np.uint8), np.ones((1, 4, 4), bool), 2, (nodata,), (nodata,))


@pytest.mark.parametrize("arguments", [["preview", ""], ["preview", "."], ["verify", "x" * 300], ["info", "x" * 300]])
def test_names_that_are_none(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) in (1, 2)
    assert "bug" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("ltchm_config", {"channels": 4096}),
        ("ltchm_config", {"window": 4096}),
        ("ltchm_config", {"window": 32}),
        ("ltchm_config", {"reduction": 4096}),
    ],
)
def test_weights_of_an_absurd_network(key: str, change: dict[str, int]) -> None:
    base = tiny()
    metadata = {**base.metadata, key: json.dumps(base.document(key) | change)}
    with pytest.raises(InvalidWeightsError):
        Engine(weights.LoadedWeights(base.entry, base.path, metadata, base.tensors), pick_device("cpu"))


def test_an_absurd_attention_window_of_the_exact_network() -> None:
    base = tiny()
    spec = base.document("ltchm_entropy")
    hybrid = next(layer for layer in spec["hyper"] if layer["op"] == "hybrid")
    hybrid["window"] = 64
    name = next(name for name in base.tensors if name.endswith("attention.position"))
    heads = len(base.tensors[name])
    tensors = {**base.tensors, name: np.zeros((heads, 127**2), np.int32)}
    metadata = {**base.metadata, "ltchm_entropy": json.dumps(spec)}
    with pytest.raises(InvalidWeightsError, match="memory"):
        Engine(weights.LoadedWeights(base.entry, base.path, metadata, tensors), pick_device("cpu"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(value: float) -> None:
    base = tiny()
    name = next(name for name in base.tensors if name.startswith("nn.g_s."))
    spoiled = base.tensors[name].copy()
    spoiled.reshape(-1)[0] = value
    with pytest.raises(InvalidWeightsError, match="finite"):
        Engine(
            weights.LoadedWeights(base.entry, base.path, base.metadata, {**base.tensors, name: spoiled}),
            pick_device("cpu"),
        )


def test_a_journal_whose_schema_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    Journal(path, "archive").close()
    data = path.read_bytes()
    path.write_bytes(data.replace(b"CREATE TABLE", b"CREATE TABL\xe4", 1))
    with pytest.raises(LtchmError, match="damaged"):
        Journal(path, "archive")


def test_an_archive_behind_another_one(tmp_path: Path) -> None:
    path = write_decodable(tmp_path / "a.ltchm")
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(ContainerError, match="before its first member"):
        ltchm_geo.info(path)
