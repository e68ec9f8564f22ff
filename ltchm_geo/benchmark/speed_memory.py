"""Peak memory against the size of the scene, each run in a process of its own: what one reached, another cannot see."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltchm_geo.benchmark.output import markdown_table
from ltchm_geo.benchmark.speed_input import write_mirrored
from ltchm_geo.benchmark.timing import Tick
from ltchm_geo.errors import LtchmError, UsageError

__all__ = ["MemoryUse", "measure_memory", "memory_markdown"]

# Linux counts a process's peak in KiB, macOS in bytes.
_CODE = """
import json, resource, sys
import ltchm_geo
verb, source, target, keywords = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
getattr(ltchm_geo, verb)(source, target, overwrite=True, **keywords)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak if sys.platform == "darwin" else 1024 * peak)
"""


@dataclass(frozen=True)
class MemoryUse:
    """Most bytes that compressing and restoring a scene of side x side pixels held at once.

    Everything in the machine's memory counts: interpreter, libraries, weights, and GDAL's block cache, which is held to
    64 MB. What a GPU has in its own does not.
    """

    model: str
    device: str
    side: int
    encode: int
    decode: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return dict(vars(self))


def measure_memory(
    source: Path,
    folder: Path,
    model: str,
    sides: Sequence[int],
    *,
    device: str = "cpu",
    quality: int = 50,
    tick: Tick = lambda: None,
) -> list[MemoryUse]:
    """Compress and restore scenes of growing size.

    Parameters
    ----------
    source : raster that is mirrored to each size
    folder : where to write; takes about the raw size of two scenes
    model, device, quality : as for `compress_raster`
    sides : rows and columns of the scenes
    tick : called after every run, twice for every side

    Raises
    ------
    UsageError
        This system does not count memory per process.
    """
    if sys.platform == "win32":
        raise UsageError("memory cannot be measured on Windows: its processes do not tell their peak")
    scene, packed, restored = folder / "memory.tif", folder / "memory.ltchm", folder / "memory_restored.tif"
    found = []
    for side in sides:
        write_mirrored(source, scene, side)
        encode = _peak("compress_raster", scene, packed, model=model, device=device, quality=quality)
        tick()
        decode = _peak("decompress_raster", packed, restored, device=device)
        tick()
        found.append(MemoryUse(model, device, side, encode, decode))
    return found


def _peak(verb: str, source: Path, target: Path, **keywords: Any) -> int:
    command = [sys.executable, "-c", _CODE, verb, str(source), str(target), json.dumps(keywords)]
    # GDAL fills as large a cache as it may: by default, larger scenes would take more memory until it is full.
    environment = {**os.environ, "GDAL_CACHEMAX": "64"}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if run.returncode:
        raise LtchmError(f"{verb} failed while its memory was measured: {run.stderr.strip()}")
    return int(run.stdout.split()[-1])


def memory_markdown(found: Sequence[MemoryUse]) -> str:
    """Peaks in MiB by size of the scene."""
    rows = [
        [f"{use.model}, {use.device}", f"{use.side} x {use.side}", f"{use.encode >> 20}", f"{use.decode >> 20}"]
        for use in found
    ]
    return markdown_table(["peak memory, MiB", "scene", "encode", "decode"], rows)
