"""Compress and restore rasters; print what was kept and what was lost as a Markdown table.

python examples/03_roundtrip_table.py SCENE.tif... [--quality 50]
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

import ltchm_geo


@click.command()
@click.argument("scenes", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--quality", default=50, show_default=True)
@click.option("--model", default=None, help="Weights, by tag or hash.")
def main(scenes: tuple[Path, ...], quality: int, model: str | None) -> None:
    """Print one row per scene: PSNR against the range of each band's data (255 for 8 bits), errors in data units."""
    print("| scene | bands, type | bytes | bpp | ratio | PSNR per band (dB) | largest error | metadata | mask |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for scene in scenes:
            packed = Path(folder) / f"{scene.stem}.ltchm"
            result = ltchm_geo.compress_raster(scene, packed, quality=quality, model=model)
            restored = ltchm_geo.decompress_raster(packed, Path(folder) / f"{scene.stem}.tif").path
            found = ltchm_geo.compare_rasters(scene, restored)
            facts = ltchm_geo.info(packed)
            decibels = ", ".join(f"{band.psnr:.2f}" for band in found.bands)
            errors = ", ".join(f"{band.max_error:g}" for band in found.bands)
            metadata = "; ".join(str(difference) for difference in found.metadata) or "identical"
            mask = "identical" if found.validity_changed == 0 else f"{found.validity_changed} pixels differ"
            print(
                f"| {scene.name} | {len(found.bands)} x {facts.meta.dtype} | {result.bytes} | {result.bpp:.3f} | "
                f"{result.ratio:.1f} | {decibels} | {errors} | {metadata} | {mask} |"
            )


if __name__ == "__main__":
    main()
