"""What coding bands as components of each other gives, and what it costs.

    python examples/12_components.py SCENE.tif... [--qualities 1,25,50,75,100] [--model TAG]
    python examples/12_components.py SCENE.tif --qualities 15,20,25 --picture OUT.png --bands 4,1,2 --window 0 0 300 300

Real files with and without `decorrelate`, at the same qualities. PSNR is the mean over the bands of what `--measure`
reports; BD-rate compares the two curves. Times are of one run each: good for a glance. The picture shows the original,
bands as they are at the middle quality, and components in the file whose size comes nearest to that.
"""

from __future__ import annotations

import math
import tempfile
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

import ltchm_geo
from ltchm_geo.metrics import bd_rate
from ltchm_geo.picture import write_png

GAP = 8


class Measured(NamedTuple):
    """Bytes, mean PSNR in dB, seconds to restore, and what a window looks like then."""

    size: int
    psnr: float
    seconds: float
    view: NDArray[np.generic]


def measure(
    scene: Path, quality: int, model: str | None, decorrelate: bool, bands: list[int], window: Window | None
) -> Measured:
    """Compress and restore once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "scene.ltchm")
        result = ltchm_geo.compress_raster(
            scene, path, quality=quality, model=model, decorrelate=decorrelate, measure=True
        )
        began = time.perf_counter()
        restored = ltchm_geo.decompress_raster(path, Path(folder, "restored.tif")).path
        seconds = time.perf_counter() - began
        psnr = [value for value in result.psnr or () if math.isfinite(value)]
        return Measured(result.bytes, sum(psnr) / len(psnr), seconds, read(Path(str(restored)), bands, window))


def read(path: Path, bands: list[int], window: Window | None) -> NDArray[np.generic]:
    """Some bands of a window."""
    with rasterio.open(path) as dataset:
        pixels: NDArray[np.generic] = dataset.read(bands, window=window)
    return pixels


def side_by_side(original: NDArray[np.generic], views: list[NDArray[np.generic]]) -> NDArray[np.uint8]:
    """The original and what became of it, stretched alike to its 0.5 and 99.5 percentiles."""
    low, high = (np.percentile(original, share, axis=(1, 2), keepdims=True) for share in (0.5, 99.5))
    panels = [(view - low) / (high - low) * 255 for view in (original, *views)]
    gap = np.full((len(original), original.shape[1], GAP), 255.0)
    joined = np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=2)
    return np.repeat(joined, 3 // len(original), axis=0).clip(0, 255).astype(np.uint8)


@click.command()
@click.argument("scenes", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--qualities", default="1,25,50,75,100", show_default=True)
@click.option("--model", default=None, help="Weights, by tag or hash.")
@click.option("--picture", type=click.Path(path_type=Path), help="A PNG file to make, of one scene.")
@click.option("--bands", default="1", show_default=True, help="One or three bands to show in it, 1-based.")
@click.option("--window", nargs=4, type=int, default=None, help="Row, column, height and width to show.")
def main(
    scenes: tuple[Path, ...],
    qualities: str,
    model: str | None,
    picture: Path | None,
    bands: str,
    window: tuple[int, int, int, int] | None,
) -> None:
    """Print a Markdown table for each scene."""
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    shown = [int(band) for band in bands.split(",")]
    view = None if window is None else Window(window[1], window[0], window[3], window[2])
    for scene in scenes:
        print(
            "| scene | quality | bands: bytes | PSNR (dB) | restored in | components: bytes | PSNR (dB) | restored in |"
        )
        print("|---|---|---|---|---|---|---|---|")
        found: tuple[list[Measured], ...] = ([], [])
        for quality in map(int, qualities.split(",")):
            for kept, decorrelate in zip(found, (False, True), strict=True):
                kept.append(measure(scene, quality, model, decorrelate, shown, view))
            cells = [f"{one[-1].size} | {one[-1].psnr:.2f} | {one[-1].seconds:.1f} s" for one in found]
            print(f"| {scene.name} | {quality} | {' | '.join(cells)} |")
        plain, mixed = ([(one.size, one.psnr) for one in kept] for kept in found)
        print(f"\nBD-rate of components against bands: {bd_rate(plain, mixed):+.1f} %\n")
        if picture is not None:
            middle = found[0][len(found[0]) // 2]
            nearest = min(found[1], key=lambda one: abs(one.size - middle.size))
            write_png(picture, side_by_side(read(scene, shown, view), [middle.view, nearest.view]))
            print(f"{picture}: bands in {middle.size} bytes, components in {nearest.size} bytes")


if __name__ == "__main__":
    main()
