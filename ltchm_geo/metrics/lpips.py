"""LPIPS 0.1 with AlexNet (Zhang, Isola, Efros, Shechtman and Wang, 2018): how different two pictures look to people.

Equal to the package lpips, which would bring torchvision along and fetch AlexNet from the web. The weights are here, in
half precision, which moves a distance by less than 0.0001; `lpips_alexnet.txt` tells where they are from.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ltchm_geo.errors import WeightsNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

__all__ = ["MIN_SIDE", "WEIGHTS", "lpips"]

MIN_SIDE = 31  # smaller ones have no pixel left in the deepest layer
WEIGHTS = Path(__file__).with_name("lpips_alexnet.safetensors")

# Mean and standard deviation of the pictures that AlexNet was trained with, for pixels in -1..1.
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)

# Stride and padding of the five convolutions; a 3x3 maximum of stride 2 goes before the second and the third.
_LAYERS = ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))
_POOLED = (1, 2)


def lpips(reference: NDArray[Any], test: NDArray[Any], peak: float = 255.0) -> float:
    """Perceptual distance of two pictures.

    Needs some 170 bytes of memory for each pixel.

    Parameters
    ----------
    reference, test : (3, h, w) arrays of one shape, at least 31 x 31 pixels: red, green, blue
    peak : float
        Range of the data.

    Returns
    -------
    0 for equal pictures; 0.1 is hard to see, 0.7 is another picture.

    Raises
    ------
    ValueError
        If the pictures differ in shape, are too small or do not have three bands.
    WeightsNotFoundError
        If the weights were left out of the installation.
    """
    import torch

    if reference.shape != test.shape:
        raise ValueError(f"the reference is {reference.shape}, the test {test.shape}")
    if reference.ndim != 3 or len(reference) != 3 or min(reference.shape[1:]) < MIN_SIDE:
        raise ValueError(f"LPIPS needs three bands of at least {MIN_SIDE} x {MIN_SIDE} pixels, not {reference.shape}")
    weights = _weights()
    distance = 0.0
    with torch.inference_mode():
        pair = torch.from_numpy(np.stack([reference, test]).astype(np.float32)) * (2 / peak) - 1
        pair = (pair - torch.tensor(_SHIFT)[:, None, None]) / torch.tensor(_SCALE)[:, None, None]
        for layer, features in enumerate(_features(pair, weights)):
            directions = features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)
            difference = (directions[0] - directions[1]).square_()
            distance += float(torch.einsum("chw,c->hw", difference, weights[f"head.{layer}"]).mean())
    return distance


def _features(pair: torch.Tensor, weights: dict[str, torch.Tensor]) -> Iterator[torch.Tensor]:
    """What each layer of AlexNet sees, (2, channels, h, w)."""
    from torch.nn.functional import conv2d, max_pool2d

    for layer, (stride, padding) in enumerate(_LAYERS):
        if layer in _POOLED:
            pair = max_pool2d(pair, 3, stride=2)
        pair = conv2d(pair, weights[f"conv.{layer}.weight"], weights[f"conv.{layer}.bias"], stride, padding).relu_()
        yield pair


@cache
def _weights() -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    if not WEIGHTS.is_file():
        raise WeightsNotFoundError(f"no LPIPS without {WEIGHTS}: it is part of ltchm-geo, install that again")
    return {name: tensor.float() for name, tensor in load_file(WEIGHTS).items()}
