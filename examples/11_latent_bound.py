"""How much quality M numbers for 16 x 16 pixels can hold, whatever they cost in bits.

    python examples/11_latent_bound.py SCENE.tif... [--channels 64,128,192,256]

A latent with M channels at 1/16 of the resolution is M numbers for a block of 16 x 16 pixels of three bands. The best
linear transform from blocks to M numbers and back is the principal components of the scene's own blocks; its PSNR is
printed. Networks are not linear and see beyond a block, but this is about where they stop to improve with the rate
(docs/decisions/0009-latent-channels.md).
"""

from __future__ import annotations

import warnings
from pathlib import Path

import click
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

SIDE = 16


def blocks(path: Path) -> NDArray[np.float64]:
    """All whole blocks of the first three bands, one a row, in [0, 1]; those with a hole are left out."""
    with rasterio.open(path) as source:
        bands = list(range(1, min(3, source.count) + 1))
        pixels, valid = source.read(bands).astype(np.float64), source.read_masks(bands).min(0) > 0
    height, width = (side // SIDE for side in pixels.shape[1:])
    whole = pixels[:, : height * SIDE, : width * SIDE].reshape(len(bands), height, SIDE, width, SIDE)
    rows = whole.transpose(1, 3, 0, 2, 4).reshape(height * width, -1)
    known = valid[: height * SIDE, : width * SIDE].reshape(height, SIDE, width, SIDE).all(axis=(1, 3)).reshape(-1)
    low, high = rows[known].min(), rows[known].max()
    peak = 255.0 if high <= 255 else high - low
    return rows[known] / peak


def bounds(rows: NDArray[np.float64], channels: list[int]) -> list[float]:
    """PSNR in dB of the best linear transform to each number of channels."""
    spread = rows - rows.mean(axis=0)
    variances = np.linalg.eigvalsh(spread.T @ spread / len(rows))[::-1].clip(0)
    return [float(-10 * np.log10(max(variances[m:].sum() / rows.shape[1], 1e-12))) for m in channels]


@click.command()
@click.argument("scenes", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--channels", default="64,128,192,256", show_default=True, help="Numbers of latent channels M.")
def main(scenes: tuple[Path, ...], channels: str) -> None:
    """Print a table of PSNR bounds, a row for each scene."""
    warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
    numbers = [int(m) for m in channels.split(",")]
    print(f"| scene | {' | '.join(f'M = {m}' for m in numbers)} |")
    print("|---" * (len(numbers) + 1) + "|")
    for scene in scenes:
        print(f"| {scene.name} | {' | '.join(f'{b:.1f}' for b in bounds(blocks(scene), numbers))} |")


if __name__ == "__main__":
    main()
