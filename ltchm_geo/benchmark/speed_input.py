"""What speed is measured on: a scene of any size made of a real one, and untrained weights of any width."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltchm_geo.errors import SourceError, UsageError

__all__ = ["bundled_scene", "install_random_weights", "model_tiles", "weights_folder", "write_mirrored"]

_STRIP = 1024
_TILE = 256


def bundled_scene() -> Path:
    """The scene that comes with the repository.

    Raises
    ------
    UsageError
        The package was installed without its repository.
    """
    path = Path(__file__).parents[2] / "examples" / "data" / "farmland_rgbn.tif"
    if not path.is_file():
        raise UsageError(f"{path} is missing; name a raster to measure on with --scene")
    return path


def write_mirrored(source: str | os.PathLike[str], path: Path, side: int) -> None:
    """Write a side x side GeoTIFF of a raster's first three bands (or the first alone), mirrored again and again.

    Mirror images side by side repeat no edge, so the result compresses as the source does. Memory is bounded by the
    source, not by `side`.
    """
    import rasterio
    from rasterio.errors import RasterioError
    from rasterio.windows import Window

    try:
        with rasterio.open(source) as scene:
            pixels = scene.read([1, 2, 3] if scene.count >= 3 else [1])
            profile = {"crs": scene.crs, "transform": scene.transform, "dtype": scene.dtypes[0]}
    except RasterioError as error:
        raise SourceError(f"{source} cannot be read as a raster: {error}") from error
    block = np.concatenate([pixels, pixels[:, :, ::-1]], axis=2)
    block = np.concatenate([block, block[:, ::-1]], axis=1)
    columns = np.arange(side) % block.shape[2]
    profile |= {"driver": "GTiff", "count": len(block), "height": side, "width": side, "tiled": True}
    photometric = "rgb" if len(block) == 3 else "minisblack"
    with rasterio.open(path, "w", bigtiff="if_safer", photometric=photometric, **profile) as out:
        for top in range(0, side, _STRIP):
            rows = np.arange(top, min(top + _STRIP, side)) % block.shape[1]
            out.write(block[:, rows][:, :, columns], window=Window(0, top, side, len(rows)))


def model_tiles(path: str | os.PathLike[str], count: int) -> NDArray[np.float32]:
    """Up to `count` whole tiles (B, 3, 256, 256) of a raster, stretched to [0, 1] by its own range."""
    import rasterio

    with rasterio.open(path) as scene:
        pixels = scene.read([1, 2, 3] if scene.count >= 3 else [1, 1, 1])
    rows, columns = (size // _TILE for size in pixels.shape[1:])
    whole: NDArray[Any] = pixels[:, : rows * _TILE, : columns * _TILE].reshape(3, rows, _TILE, columns, _TILE)
    tiles = whole.transpose(1, 3, 0, 2, 4).reshape(-1, 3, _TILE, _TILE)[:count].astype(np.float32)
    low, high = float(tiles.min()), float(tiles.max())
    return (tiles - low) / max(high - low, 1.0)


def install_random_weights(channels: int, tiles: NDArray[np.float32], folder: Path) -> str:
    """Write weights of an untrained network into `folder`; returns their tag.

    They make bad pictures but whole files, exact ones. Network and parameters cost what they cost trained; the entropy
    coder's work depends on the latents, so its time is only indicative.
    """
    import torch

    from ltchm_geo.nn.config import ModelConfig
    from ltchm_geo.nn.model import LTCHM
    from ltchm_geo.training.export import export_weights

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(channels)
        model = LTCHM(ModelConfig(channels=channels)).eval()
    entry = export_weights(
        model,
        torch.from_numpy(tiles[:1]),
        folder,
        tag=f"random-{channels}",
        status="local",
        licence="none",
        data="none",
        recipe="untrained",
        commit="none",
        default=False,
    )
    return entry.tag


@contextlib.contextmanager
def weights_folder(folder: Path) -> Iterator[None]:
    """Let weights in `folder` be found, too."""
    before = os.environ.get("LTCHM_WEIGHTS")
    os.environ["LTCHM_WEIGHTS"] = os.pathsep.join(filter(None, [before, str(folder)]))
    try:
        yield
    finally:
        if before is None:
            del os.environ["LTCHM_WEIGHTS"]
        else:
            os.environ["LTCHM_WEIGHTS"] = before
