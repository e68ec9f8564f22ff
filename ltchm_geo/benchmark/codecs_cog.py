"""Cloud Optimized GeoTIFFs as GDAL makes them: what most users of imagery have today. Whole files, no overviews."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .codecs import Files, Pixels
from .geotiff import ignoring_missing_georeference, plain_geotiff

__all__ = ["COG_CODECS", "CogCodec"]

# Blocks of 256, not 512: every block is coded in full, and on small images the margin would double the file.
_COMMON = {"BLOCKSIZE": "256", "OVERVIEWS": "NONE", "NUM_THREADS": "1"}
_LERC_STEPS = ("1", "2", "4", "6", "9", "13", "19", "28")
_WIDE_LERC_STEPS = ("8", "16", "32", "64", "128", "256", "512", "1024")


@dataclass(frozen=True)
class CogCodec:
    """GDAL's COG driver with one compression. See `Codec`.

    Attributes
    ----------
    option : creation option that `settings` are values of; None for a lossless file
    wide : whether it takes 16 bits and any number of bands
    """

    name: str
    label: str
    option: str | None
    values: tuple[str, ...]
    options: dict[str, str]
    wide: bool = False
    excess: int = 0

    def missing(self) -> str | None:
        """See `Codec.missing`."""
        from rasterio.io import MemoryFile

        # GDAL only warns of a compression that it was built without, and goes on uncompressed.
        (tiny,) = self.encode(np.zeros((3, 16, 16), np.uint8), self.values[-1])
        with ignoring_missing_georeference(), MemoryFile(tiny) as file, file.open() as source:
            if "COMPRESSION" in source.tags(ns="IMAGE_STRUCTURE"):
                return None
        return f"needs a GDAL that was built with {self.options['COMPRESS']}: take a wheel of rasterio"

    def refuses(self, dtype: np.dtype[Any], bands: int) -> str | None:
        """See `Codec.refuses`."""
        if self.wide or (dtype == np.uint8 and bands in ((1, 3) if self.name == "cog-jpeg" else (3,))):
            return None
        return f"{self.label} has no {bands} bands of {dtype}"

    def settings(self, dtype: np.dtype[Any]) -> tuple[str, ...]:
        """See `Codec.settings`."""
        if self.option == "MAX_Z_ERROR" and dtype != np.uint8:
            return _WIDE_LERC_STEPS
        return self.values

    def encode(self, pixels: Pixels, setting: str) -> Files:
        """See `Codec.encode`."""
        from rasterio.io import MemoryFile
        from rasterio.shutil import copy

        options = {**self.options, **_COMMON} | ({self.option: setting} if self.option else {})
        with ignoring_missing_georeference(), MemoryFile(plain_geotiff(pixels)) as plain, MemoryFile() as result:
            with plain.open() as source:
                copy(source, result.name, driver="COG", **options)
            return (bytes(result.getbuffer()),)

    def decode(self, files: Files, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Pixels:
        """See `Codec.decode`."""
        from rasterio.io import MemoryFile

        with ignoring_missing_georeference(), MemoryFile(files[0]) as file, file.open() as source:
            return source.read()

    def about(self) -> dict[str, Any]:
        """See `Codec.about`."""
        import rasterio

        options = {**self.options, **_COMMON} | ({self.option: "SETTING"} if self.option else {})
        arguments = " ".join(f"-co {key}={value}" for key, value in options.items())
        return {
            "command": f"gdal_translate -of COG {arguments}",
            "versions": {"rasterio": rasterio.__version__, "gdal": rasterio.__gdal_version__},
        }


COG_CODECS = {
    codec.name: codec
    for codec in (
        CogCodec(
            "cog-jpeg",
            "COG, JPEG",
            "QUALITY",
            ("10", "15", "20", "30", "40", "50", "60", "75", "85", "90"),
            {"COMPRESS": "JPEG"},
        ),
        CogCodec(
            "cog-webp",
            "COG, WebP",
            "QUALITY",
            ("1", "4", "10", "20", "35", "50", "60", "75", "90"),
            {"COMPRESS": "WEBP"},
        ),
        CogCodec("cog-lerc", "COG, LERC", "MAX_Z_ERROR", _LERC_STEPS, {"COMPRESS": "LERC_ZSTD"}, wide=True),
        CogCodec(
            "cog-zstd", "COG, ZSTD (lossless)", None, ("lossless",), {"COMPRESS": "ZSTD", "PREDICTOR": "YES"}, wide=True
        ),
    )
}
