"""A vegetation index from a compressed scene: xarray opens it, dask computes shard by shard, rioxarray writes.

    python examples/08_ndvi_xarray.py [ndvi.tif]

The same lines work on the GeoTIFF and on the compressed scene, which tells what compression does to the index. Needs
rioxarray (pip install rioxarray).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import numpy as np
import rioxarray  # noqa: F401 - gives xarray objects their .rio
import xarray as xr

import ltchm_geo

SCENE = Path(__file__).parent / "data" / "farmland_rgbn.tif"
RED, NIR = 1, 4
COARSER = 4


def ndvi(path: Path) -> xr.DataArray:
    """(NIR - red) / (NIR + red) of a raster or scene, NaN where there is no data; nothing is computed yet."""
    bands = xr.open_dataset(path, chunks={}).band_data
    red, nir = bands.sel(band=RED, drop=True), bands.sel(band=NIR, drop=True)
    return ((nir - red) / (nir + red)).rename("ndvi")


@click.command()
@click.argument("out", type=click.Path(path_type=Path), default="ndvi.tif")
@click.option("--quality", default=50, show_default=True)
def main(out: Path, quality: int) -> None:
    """Compress the bundled scene, write its NDVI at a quarter of the resolution to OUT, and compare."""
    with tempfile.TemporaryDirectory() as folder:
        made = ltchm_geo.compress_raster(SCENE, Path(folder) / "farmland.ltchm", quality=quality)
        before, after = ndvi(SCENE), ndvi(made.path)
        print(f"{made.raw_bytes} bytes of pixels -> {made.bytes} bytes, {made.ratio:.1f} times smaller")
        print(f"mean NDVI of the original: {float(before.mean()):.4f}")
        print(f"mean NDVI of the scene:    {float(after.mean()):.4f}")
        error = np.abs(after - before.values)
        print(f"mean error per pixel:      {float(error.mean()):.4f}")
        coarse = after.coarsen(y=COARSER, x=COARSER, boundary="trim").mean()
        coarse.rio.to_raster(out, compress="deflate")
        print(f"{out}: {coarse.sizes['x']} x {coarse.sizes['y']} pixels, {coarse.rio.crs}")


if __name__ == "__main__":
    main()
