"""Compress and restore a very large scene made of the bundled one; print speed, peak memory and where the time goes.

    python examples/04_large_scene.py --side 20000

Each step runs in a process of its own, so that its peak memory is its own. The scene is the bundled one and its mirror
images side by side, so no seam repeats an edge; 20,000 x 20,000 x 3 takes 1.2 GB on disk.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from ltchm_geo.benchmark.speed_input import write_mirrored

SCENE = Path(__file__).parent / "data" / "farmland_rgbn.tif"
_STEP = """
import json, resource, sys, ltchm_geo
verb, source, target, keywords = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
result = getattr(ltchm_geo, verb)(source, target, overwrite=True, **keywords)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({**result.to_dict(), "peak_kib": peak}, default=str))
"""


def run_step(verb: str, source: Path, target: Path, **keywords: object) -> dict[str, object]:
    """Run one API call in a process of its own; its result with `peak_kib`."""
    command = [sys.executable, "-c", _STEP, verb, str(source), str(target), json.dumps(keywords)]
    environment = {"GDAL_CACHEMAX": "256", **os.environ}  # as the command line does
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found: dict[str, object] = json.loads(done.stdout)
    return found


@click.command()
@click.option("--side", default=20_000, show_default=True, help="Rows and columns of the scene.")
@click.option("--quality", default=50, show_default=True)
@click.option("--workers", default=None, type=int)
@click.option("--folder", type=click.Path(path_type=Path), default=None, help="Where to work; a temporary folder.")
def main(side: int, quality: int, workers: int | None, folder: Path | None) -> None:
    """Measure compress and decompress on a scene of SIDE x SIDE x 3 pixels of 8 bits."""
    with tempfile.TemporaryDirectory(dir=folder) as work:
        scene, packed, restored = (Path(work) / name for name in ("scene.tif", "scene.ltchm", "restored.tif"))
        write_mirrored(SCENE, scene, side)
        steps = {
            "compress": run_step("compress_raster", scene, packed, quality=quality, workers=workers),
            "decompress": run_step("decompress_raster", packed, restored, workers=workers),
        }
    print(f"{side} x {side} x 3, {steps['compress']['bpp']:.3f} bpp")
    for name, found in steps.items():
        seconds, stages = float(str(found["seconds"])), found["stages"]
        total = sum(stages.values())  # type: ignore[attr-defined]
        shares = ", ".join(f"{k} {v / total:.1%}" for k, v in sorted(stages.items(), key=lambda s: -s[1]))  # type: ignore[attr-defined]
        peak = int(str(found["peak_kib"])) / 2**20
        print(f"{name}: {side * side / seconds / 1e6:.2f} Mpx/s, {seconds:.0f} s, peak memory {peak:.2f} GiB; {shares}")


if __name__ == "__main__":
    main()
