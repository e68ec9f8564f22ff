"""A compressed scene on disk: a Zarr v3 hierarchy in one file (``scene.ltchm``) or a folder (``scene.zarr``).

    zarr.json               root; its attribute "ltchm" is the scene's `SceneMeta`
    0/...                   level 0: one sharded array per band group, alpha, mask, and CF coordinates
    ltchm-manifest.json     written last: every other key with its size and SHA-256

docs/format.md is the specification. `ContainerWriter` takes whole shards of finished tiles; `ContainerReader` needs
neither zarr nor torch and takes nothing in the file on trust.
"""

from __future__ import annotations

import hashlib
import os
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ._json import dumps, loads, require_keys
from ._sink import open_sink
from ._store import KEY, open_store
from .bitstream import inflate
from .errors import (
    ContainerError,
    CorruptContainerError,
    CorruptTileError,
    IncompleteContainerError,
    NotAContainerError,
    UsageError,
)
from .scene_meta import FORMAT_VERSION, SceneMeta, check_version
from .shards import ShardIndex, check_chunk, index_size, pack_shard
from .tiles import TileGrid, pad_tile
from .types import PixelBox, TileIndex

__all__ = ["MANIFEST_KEY", "ContainerReader", "ContainerWriter", "Problem"]

MANIFEST_KEY = "ltchm-manifest.json"
MAX_JSON = 1 << 24
MAX_MANIFEST = 1 << 26
MAX_FILES = 10_000
_GZIP = 31  # zlib's wbits for a gzip stream
_CACHED_INDICES = 256
_PIECE = 1 << 23
