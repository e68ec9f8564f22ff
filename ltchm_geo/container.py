"""Stage 7: a compressed scene on disk, a Zarr v3 hierarchy in one file (``scene.ltchm``) or a folder (``scene.zarr``).

    zarr.json               root; its attribute "ltchm" is the scene's `SceneMeta`
    0/...                   full resolution: one sharded array per band group, alpha, mask; in a folder CF coordinates
    1/..., 2/...            overviews, alike
    preview.jpg             quick-look, optional
    ltchm-manifest.json     in a folder, written last: every other key with its size and SHA-256

docs/format.md is the specification. `ContainerWriter` takes whole shards of finished tiles; `ContainerReader` needs
neither zarr nor torch and takes nothing in the file on trust.
"""

from __future__ import annotations

from .manifest import MANIFEST_KEY
from .scene_meta import BandGroup, Overview, SceneMeta
from .scene_reader import ContainerReader, Problem
from .scene_writer import ContainerWriter

__all__ = ["MANIFEST_KEY", "BandGroup", "ContainerReader", "ContainerWriter", "Overview", "Problem", "SceneMeta"]
