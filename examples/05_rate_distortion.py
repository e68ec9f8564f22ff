"""Rate and distortion of a scene at several qualities, beside JPEG2000 files of the same size.

    python examples/05_rate_distortion.py SCENE.tif... [--qualities 10,30,50,70,90]

Real files, every byte counted. PSNR is over all bands and valid pixels, against the range of the data (255 for 8 bits).
JPEG2000 is GDAL's JP2OpenJPEG driver (9/7, tiles as large as the scene), its quality searched until the size matches.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import click
import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning

import ltchm_geo
from ltchm_geo.metrics import psnr


def measure(original: Path, restored: Path) -> float:
    """PSNR in dB over all bands together."""
    with rasterio.open(original) as a, rasterio.open(restored) as b:
        reference, test, valid = a.read(), b.read(), a.read_masks() > 0
    peak = 255.0 if reference.dtype == np.uint8 else float(np.ptp(reference[valid]))
    return psnr(reference, test, peak, valid)


def jpeg2000(original: Path, target: int, folder: Path) -> tuple[int, float]:
    """Size and PSNR of the JPEG2000 file whose size comes closest to `target` bytes."""
    with rasterio.open(original) as source:
        pixels, profile = source.read(), source.profile
    found, low, high = [], 0.05, 100.0
    for step in range(14):
        quality, path = (low * high) ** 0.5, folder / f"{step}.jp2"
        options = {"QUALITY": f"{quality:.4f}", "REVERSIBLE": "NO", "YCBCR420": "NO"}
        block = {"blockxsize": 8192, "blockysize": 8192}
        with rasterio.open(
            path,
            "w",
            driver="JP2OpenJPEG",
            dtype=profile["dtype"],
            count=profile["count"],
            width=profile["width"],
            height=profile["height"],
            **options,
            **block,
        ) as out:
            out.write(pixels)
        size = path.stat().st_size
        found.append((abs(size - target), size, path))
        low, high = (quality, high) if size < target else (low, quality)
    _, size, path = min(found)
    return size, measure(original, path)


@click.command()
@click.argument("scenes", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--qualities", default="10,30,50,70,90", show_default=True)
@click.option("--model", default=None, help="Weights, by tag or hash.")
def main(scenes: tuple[Path, ...], qualities: str, model: str | None) -> None:
    """Print a Markdown table."""
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    print("| scene | quality | bytes | bpp | PSNR (dB) | JPEG2000 of the same size: bytes | PSNR (dB) |")
    print("|---|---|---|---|---|---|---|")
    for scene in scenes:
        for quality in map(int, qualities.split(",")):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                result = ltchm_geo.compress_raster(scene, folder / "scene.ltchm", quality=quality, model=model)
                restored = ltchm_geo.decompress_raster(folder / "scene.ltchm", folder / "restored.tif").path
                ours = measure(scene, restored)
                size, reference = jpeg2000(scene, result.bytes, folder)
                print(
                    f"| {scene.name} | {quality} | {result.bytes} | {result.bpp:.3f} | {ours:.2f} | "
                    f"{size} | {reference:.2f} |"
                )


if __name__ == "__main__":
    main()
