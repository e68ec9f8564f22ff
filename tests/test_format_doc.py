"""docs/format.md prints numbers that live in the code; they must not drift apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltchm_geo import _store, bitstream, manifest, pyramid, scene_meta, weights
from ltchm_geo.entropy import tables

TEXT = (Path(__file__).parents[1] / "docs" / "format.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "stated",
    [
        tables.TABLES_SHA256,
        f"| bands | {scene_meta.MAX_BANDS:,} |",
        f"| shards of all arrays | {scene_meta.MAX_SHARDS:,} |",
        f"| `zarr.json` | {manifest.MAX_JSON >> 20} MiB |",
        f"| manifest | {manifest.MAX_MANIFEST >> 20} MiB |",
        f"| preview | {manifest.MAX_PREVIEW >> 20} MiB, {pyramid.PREVIEW_SIDE} x {pyramid.PREVIEW_SIDE} pixels |",
        f"| `format` | {scene_meta.FORMAT_VERSION} |",
        f"`format` ({manifest.FORMAT_VERSION}), `complete` (true)",
        f"| 0 | format version: 0, 1 in modes 4 and 5, or {bitstream.FORMAT_VERSION} in mode 6 and with an extent |",
        f"| a deflated document, as it is stored | {_store._MAX_DOCUMENT >> 20} MiB |",
        f"{_store._MAX_DIRECTORY >> 20} MiB, {_store.MAX_MEMBERS:,} members, names of {_store._MAX_NAME} characters",
        f"| weights file | {weights.MAX_BYTES >> 30} GiB |",
        f"multiple of 64, 64..{scene_meta.MAX_TILE}",
        f"1..{scene_meta.MAX_SHARD}; by default {scene_meta.DEFAULT_SHARD}",
        f"quality level 0..{bitstream.MAX_LEVEL} of a LATENT tile",
        *(f"{mode.value} {mode.name}" for mode in bitstream.TileMode),
        *(f"`{field}`" for field in scene_meta.SceneMeta.__dataclass_fields__),
        *(f"`{field}`" for field in weights.WeightsEntry.__dataclass_fields__),
    ],
)
def test_stated(stated):
    assert stated in TEXT
