"""Make a picture of original, restored scene and difference, side by side.

    python examples/02_pictures.py SCENE.tif OUT.png [--quality 50] [--bands 1,2,3] [--window ROW COL HEIGHT WIDTH]

The difference is amplified eight times around mid-grey. Bits per pixel and PSNR are printed for the picture's caption.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import click
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

import ltchm_geo

GAP, GAIN = 8, 8


def to_display(pixels: NDArray[np.generic], low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """(bands, h, w) in data units to (3, h, w), 0 ... 255."""
    shown = (pixels.astype(np.float64) - low[:, None, None]) / (high - low)[:, None, None] * 255
    return np.repeat(shown, 3, axis=0)[:3] if len(shown) == 1 else shown[:3]


@click.command()
@click.argument("scene", type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--quality", default=50, show_default=True)
@click.option("--bands", default="1,2,3", show_default=True, help="Bands to show, 1-based.")
@click.option("--window", nargs=4, type=int, default=None, help="Row, column, height and width to show.")
@click.option("--model", default=None, help="Weights, by tag or hash.")
def main(scene: Path, out: Path, quality: int, bands: str, window: tuple[int, ...] | None, model: str | None) -> None:
    """Compress SCENE, restore it, and write the panels to OUT (PNG)."""
    shown = [int(band) for band in bands.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "scene.ltchm"
        result = ltchm_geo.compress_raster(scene, packed, quality=quality, measure=True, model=model)
        restored = ltchm_geo.decompress_raster(packed, Path(folder) / "restored.tif").path
        with rasterio.open(scene) as a, rasterio.open(restored) as b:
            row, column, height, width = window or (0, 0, a.height, a.width)
            view = Window(column, row, width, height)
            original, decoded = a.read(shown, window=view), b.read(shown, window=view)
            valid = a.read_masks(shown, window=view) > 0
    values = [band[mask] for band, mask in zip(original, valid, strict=True)]
    eight_bits = original.dtype == np.uint8
    low = np.array([0.0 if eight_bits else np.percentile(v, 0.5) for v in values])
    high = np.array([255.0 if eight_bits else np.percentile(v, 99.5) for v in values])
    panels = [to_display(pixels, low, high) for pixels in (original, decoded)]
    panels.append((panels[1] - panels[0]) * GAIN + 128)
    gap = np.full((3, original.shape[1], GAP), 255.0)
    strip = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=2).clip(0, 255).astype(np.uint8)
    warnings.simplefilter("ignore", NotGeoreferencedWarning)  # it is a picture
    with rasterio.open(
        out, "w", driver="PNG", height=strip.shape[1], width=strip.shape[2], count=3, dtype="uint8"
    ) as p:
        p.write(strip)
    decibels = ", ".join(f"{value:.2f}" for value in result.psnr or ())
    print(f"{scene.name}: {result.bpp:.3f} bpp, {result.bytes} bytes, ratio {result.ratio:.1f}, PSNR {decibels} dB")


if __name__ == "__main__":
    main()
