"""Rate and distortion of a checkpoint of any architecture, without files.

The rate is the entropy of the rounded latents under the network's own float probabilities. What a coder would add (an
integer twin of the network, headers) is not in it, for no architecture; `ltchm bench rd` measures real files.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ltchm_geo.benchmark.dataset import Dataset
from ltchm_geo.benchmark.environment import environment
from ltchm_geo.benchmark.rd import distortion
from ltchm_geo.benchmark.results import RdPoint, RdResult
from ltchm_geo.errors import UsageError
from ltchm_geo.nn.config import LEVELS_PER_ANCHOR, MAX_LEVEL
from ltchm_geo.schedule import Progress, Ticker
from ltchm_geo.training.loop import average_model, read_facts
from ltchm_geo.training.recipe import Recipe

__all__ = ["evaluate_checkpoint", "measure_checkpoint"]

Pixels = NDArray[np.uint8]


def evaluate_checkpoint(
    path: Path,
    images: Mapping[str, Pixels],
    levels: Sequence[int],
    *,
    tile: int = 256,
    batch: int = 8,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> list[RdPoint]:
    """Estimated rate, and PSNR and MS-SSIM of 8-bit pixels, of a checkpoint's averaged weights.

    Parameters
    ----------
    path : Path
        Checkpoint of `ltchm train`.
    images : name -> (3, h, w) uint8
        Cut into tiles; right and lower edges that do not fill one are left out.
    levels : sequence of int
        Quality levels, 0 to 112.
    tile, batch : int
        Side of the tiles, a multiple of 128, and how many to compute at once.
    device : torch.device
        Where to compute; default: the CPU.
    progress : callable
        Called with (points done, points in all).

    Returns
    -------
    A point for each image and level, its `setting` the level. Times are NaN: nothing is coded.

    Raises
    ------
    UsageError
        If an image is not 8-bit RGB or smaller than a tile, or a level does not exist.
    """
    if wrong := [level for level in levels if not 0 <= level <= MAX_LEVEL]:
        raise UsageError(f"there is no quality level {wrong[0]}; levels go from 0 to {MAX_LEVEL}")
    for name, pixels in images.items():
        if pixels.dtype != np.uint8 or len(pixels) != 3 or min(pixels.shape[1:]) < tile:
            raise UsageError(f"{name} is {pixels.dtype} {pixels.shape}; need 8-bit RGB of at least {tile} x {tile}")
    device = device or torch.device("cpu")
    model = average_model(path).to(device)
    ticker = Ticker(len(images) * len(levels), progress)
    points = []
    for name, pixels in images.items():
        whole = pixels[:, : pixels.shape[1] // tile * tile, : pixels.shape[2] // tile * tile]
        for level in levels:
            points.append(_point(model, name, whole, level, tile, batch, device))
            ticker.add(1)
    return points


def measure_checkpoint(
    path: Path,
    dataset: Dataset,
    levels: Sequence[int],
    *,
    name: str | None = None,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> RdResult:
    """`evaluate_checkpoint` on a data set as a result to store beside those of codecs.

    `name` tells it from others, default: the architecture.
    """
    facts = read_facts(path)
    architecture, step = Recipe.from_dict(facts["recipe"]).architecture, facts["step"]
    images = {image.name: image.load() for image in dataset.images}
    points = evaluate_checkpoint(path, images, levels, device=device, progress=progress)
    about: dict[str, Any] = {
        "rate": "estimated: entropy of the rounded latents, no file",
        "checkpoint": {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "step": step,
            "recipe": facts["recipe"],
        },
        **environment(["torch"]),
    }
    label = f"{architecture}, {step} steps (estimated rate)"
    return RdResult(name or architecture, label, dataset.name, tuple(points), about)


def _point(
    model: nn.Module, name: str, pixels: Pixels, level: int, tile: int, batch: int, device: torch.device
) -> RdPoint:
    bits, decoded = 0.0, np.empty_like(pixels)
    height, width = pixels.shape[1:]
    corners = [(y, x) for y in range(0, height, tile) for x in range(0, width, tile)]
    for first in range(0, len(corners), batch):
        places = corners[first : first + batch]
        crops = np.stack([pixels[:, y : y + tile, x : x + tile] for y, x in places])
        restored, spent = _code(model, torch.from_numpy(crops).to(device), level)
        bits += spent
        for (y, x), crop in zip(places, restored, strict=True):
            decoded[:, y : y + tile, x : x + tile] = crop
    found: dict[str, Any] = distortion(pixels, decoded, ("psnr", "ms-ssim"))
    size, bpp = math.ceil(bits / 8), round(bits / (height * width), 6)
    return RdPoint(image=name, setting=str(level), bytes=size, bpp=bpp, encode_s=math.nan, decode_s=math.nan, **found)


@torch.inference_mode()
def _code(model: nn.Module, crops: torch.Tensor, level: int) -> tuple[Pixels, float]:
    """Restored crops (B, 3, S, S) and the bits of all of them."""
    quality = torch.full((len(crops),), level / LEVELS_PER_ANCHOR, device=crops.device)
    estimate = model(crops.float() / 255, quality)
    restored = (estimate.x_hat.clamp(0, 1) * 255).round().byte().cpu().numpy()
    return restored, float((estimate.bits_y + estimate.bits_z).double().sum())
