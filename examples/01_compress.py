"""Compress the bundled scene, look at what came out, and read a part of it back.

python examples/01_compress.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import ltchm_geo

SCENE = Path(__file__).parent / "data" / "farmland_rgbn.tif"


def main() -> None:
    """Run the example in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        result = ltchm_geo.compress_raster(SCENE, Path(folder) / "farmland.ltchm", quality=50, measure=True)
        print(f"{result.raw_bytes} bytes of pixels -> {result.bytes} bytes, {result.bpp:.3f} bits per pixel position")
        print("PSNR per band:", ", ".join(f"{p:.2f} dB" for p in result.psnr or ()))

        with ltchm_geo.open(result.path) as scene:  # lazy: nothing is decoded yet
            field = scene.band_data.sel(band=4)[100:200, 100:200]  # near infrared, a 100 x 100 window
            print("mean near infrared of a field:", float(field.mean()))

        restored = ltchm_geo.decompress_raster(result.path, Path(folder) / "restored.tif")
        print(
            ltchm_geo.compare_rasters(SCENE, restored.path).metadata or "georeferencing, bands and tags are identical"
        )


if __name__ == "__main__":
    main()
