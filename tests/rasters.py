"""Rasters for tests: the real crops, ways to make more, and what "identical but for the pixels" means."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

DATA = Path(__file__).parent / "data"
CROPS = sorted(DATA.glob("*.tif"))
DRONE, SAR, TOKYO = DATA / "drone_rgba.tif", DATA / "sar_s1_float64_db.tif", DATA / "tokyo_l8_u16.tif"
CHIAPAS = DATA / "chiapas_l7_8band_i16_nodata.tif"
COAST, FARMLAND = DATA / "coast_rotated_u8_nodata0.tif", DATA / "farmland_rgbn_u8_nodata0.tif"

Pixels = NDArray[Any]


def smooth(bands: int, height: int, width: int, dtype: str = "uint8", low: float = 10, high: float = 240) -> Pixels:
    """A gentle picture (bands, height, width) with values from `low` to `high`."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (17 + 5 * b)) * np.cos(y / (23 - 3 * (b % 5))) for b in range(bands)]
    return (low + (high - low) * (np.stack(waves) + 1) / 2).astype(dtype)


def write_tif(
    path: Path, pixels: Pixels, colors: Sequence[str] = (), mask: NDArray[np.bool_] | None = None, **profile: Any
) -> Path:
    """A GeoTIFF made with plain rasterio."""
    count, height, width = pixels.shape
    found = {
        "driver": "GTiff",
        "count": count,
        "height": height,
        "width": width,
        "dtype": pixels.dtype.name,
        "crs": CRS.from_epsg(32631),
        "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 4_000_000),
        "photometric": "RGB" if list(colors[:3]) == ["red", "green", "blue"] else "MINISBLACK",
    }
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **found | profile) as dataset:
        if colors:
            dataset.colorinterp = [ColorInterp[name] for name in colors]
        dataset.write(pixels)
        if mask is not None:
            dataset.write_mask(mask)
    return path


def write_classes(path: Path, classes: Pixels, colors: dict[int, tuple[int, ...]] | None, **profile: Any) -> Path:
    """A GeoTIFF of classes (1, h, w): with a table of colours, or without, and then said to be thematic."""
    write_tif(path, classes, photometric="palette" if colors else "MINISBLACK", **profile)
    with rasterio.open(path, "r+") as dataset:
        if colors:
            dataset.write_colormap(1, colors)
        else:
            dataset.update_tags(1, LAYER_TYPE="thematic")
    return path


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as dataset:
            yield dataset


def pixels_of(path: Path) -> Pixels:
    with opened(path) as dataset:
        found: Pixels = dataset.read()
        return found


def masks_of(path: Path) -> Pixels:
    """(bands, y, x): GDAL's masks, and False for NaN."""
    with opened(path) as dataset:
        return (dataset.read_masks() != 0) & ~np.isnan(dataset.read())


def description(path: Path) -> dict[str, Any]:
    """Everything that must survive but pixels and masks."""
    with opened(path) as dataset:
        found = {
            "shape": dataset.shape,
            "crs": dataset.crs,
            "transform": dataset.transform,
            "dtypes": dataset.dtypes,
            "nodata": tuple(map(str, dataset.nodatavals)),  # NaN equals itself as text
            "colors": dataset.colorinterp,
            "descriptions": dataset.descriptions,
            "scales": dataset.scales,
            "offsets": dataset.offsets,
            "units": dataset.units,
            "mask flags": dataset.mask_flag_enums,
            "points": [(p.row, p.col, p.x, p.y, p.z) for p in dataset.gcps[0]],
            "tags": [_tags(dataset, band) for band in (0, *dataset.indexes)],
        }
    return found


def _tags(dataset: Any, band: int) -> dict[str, Any]:
    kept = {"", *dataset.tag_namespaces(band)} - {"IMAGE_STRUCTURE", "DERIVED_SUBDATASETS"}
    return {name: dataset.tags(band, ns=name or None) for name in kept}


def without_statistics(tags: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The "tags" of a description as they are of a part of the raster."""
    return [
        {**found, "": {key: value for key, value in found[""].items() if not key.startswith("STATISTICS_")}}
        for found in tags
    ]


def assert_restored(original: Path, restored: Path) -> None:
    """Identical but for the values of valid pixels."""
    assert description(restored) == description(original)
    np.testing.assert_array_equal(masks_of(restored), masks_of(original))
    with opened(original) as first, opened(restored) as second:
        for band, color in zip(first.indexes, first.colorinterp, strict=True):
            if color == ColorInterp.alpha:
                np.testing.assert_array_equal(second.read(band), first.read(band))


def same(first: Path, second: Path) -> bool:
    return np.array_equal(pixels_of(first), pixels_of(second), equal_nan=pixels_of(first).dtype.kind == "f")
