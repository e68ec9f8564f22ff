"""How much of the device's matrix rate a training run uses."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from ltchm_geo.baselines.registry import count
from ltchm_geo.device import has_bfloat16, wait
from ltchm_geo.training.recipe import Recipe

__all__ = ["Throughput", "matrix_rate"]

#: Backward passes cost twice the forward one.
_PASSES = 3


@dataclass(frozen=True)
class Throughput:
    """What a step costs, and what the device can do.

    Attributes
    ----------
    macs_per_tile : float
        Of one forward pass over 256 x 256 pixels.
    matrix_rate : float
        Multiply-accumulates per second of large matrix products, see `matrix_rate`.
    """

    macs_per_tile: float
    matrix_rate: float

    @classmethod
    def measure(cls, recipe: Recipe, device: torch.device) -> Throughput:
        """Count the recipe's network and time matrix products on the device."""
        types = [torch.float32, torch.bfloat16] if recipe.mixed_precision and has_bfloat16(device) else [torch.float32]
        rate = max(matrix_rate(device, dtype) for dtype in types)
        return cls(count(recipe.architecture, recipe.architecture_options).macs, rate)

    def share(self, tiles_per_second: float) -> float:
        """Fraction of the matrix rate that training at this speed does useful work with."""
        return _PASSES * self.macs_per_tile * tiles_per_second / self.matrix_rate


def matrix_rate(device: torch.device, dtype: torch.dtype, *, seconds: float = 0.2) -> float:
    """Multiply-accumulates per second of a square matrix product, measured for about `seconds`."""
    side = 8192 if device.type == "cuda" else 768
    a = torch.randn(side, side, device=device, generator=torch.Generator(device)).to(dtype)  # leaves a run's seed alone
    a @ a  # the first loads libraries and chooses a method
    repeats, elapsed = 1, 0.0
    while elapsed < seconds:
        repeats *= 2 if elapsed else 1
        wait(device)
        began = time.perf_counter()
        for _ in range(repeats):
            a @ a
        wait(device)
        elapsed = time.perf_counter() - began
    return side**3 * repeats / elapsed
