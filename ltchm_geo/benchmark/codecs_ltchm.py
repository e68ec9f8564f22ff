"""This project's own codec: real ``.ltchm`` files by the public functions, every byte counted.

Without overviews and preview, which no other codec's file has either.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .codecs import Files, Pixels
from .environment import versions
from .geotiff import ignoring_missing_georeference, plain_geotiff

__all__ = ["Ltchm"]

_QUALITIES = ("1", "10", "20", "30", "40", "50", "60", "70", "80", "90", "100")


@dataclass(frozen=True)
class Ltchm:
    """See `Codec`. The setting is the quality; `name` is the tag of the weights.

    Attributes
    ----------
    sha256, weights : hash and file of the weights
    seamless : see `compress_raster`
    """

    name: str
    label: str
    sha256: str
    weights: Path
    device: str
    excess: int = 0
    seamless: bool | None = None

    @classmethod
    def of(cls, model: str | None, device: str) -> Ltchm:
        """The codec with weights named by tag, hash or path; None takes the default."""
        from ltchm_geo.weights import find

        entry, weights = find(model)
        return cls(entry.tag, f"LTCHM ({entry.tag})", entry.sha256, weights, device)

    def missing(self) -> str | None:
        """See `Codec.missing`."""
        return None

    def refuses(self, dtype: np.dtype[Any], bands: int) -> str | None:
        """See `Codec.refuses`."""
        return None

    def settings(self, dtype: np.dtype[Any]) -> tuple[str, ...]:
        """See `Codec.settings`."""
        return _QUALITIES

    def encode(self, pixels: Pixels, setting: str) -> Files:
        """See `Codec.encode`."""
        from ltchm_geo import compress_raster

        with tempfile.TemporaryDirectory() as folder:
            source, scene = Path(folder, "source.tif"), Path(folder, "scene.ltchm")
            source.write_bytes(plain_geotiff(pixels))
            compress_raster(
                source,
                scene,
                quality=int(setting),
                model=str(self.weights),
                device=self.device,
                overviews=False,
                preview=False,
                seamless=self.seamless,
            )
            return (scene.read_bytes(),)

    def decode(self, files: Files, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Pixels:
        """See `Codec.decode`."""
        import rasterio

        from ltchm_geo import decompress_raster

        with tempfile.TemporaryDirectory() as folder, ignoring_missing_georeference():
            scene, restored = Path(folder, "scene.ltchm"), Path(folder, "restored.tif")
            scene.write_bytes(files[0])
            decompress_raster(scene, restored, device=self.device)
            with rasterio.open(restored) as dataset:
                return dataset.read()

    def about(self) -> dict[str, Any]:
        """See `Codec.about`."""
        arguments = f"quality=SETTING, model={self.name!r}, overviews=False, preview=False"
        return {
            "command": f"ltchm_geo.compress_raster(SRC, DST, {arguments})",
            "versions": versions(("torch", "numpy")),
            "model": {"tag": self.name, "sha256": self.sha256},
            "device": self.device,
        }
