"""How strongly each convolution is driven, direction by direction of its input, and steps that take it into account.

A step that is equally long in every direction of a weight matrix changes the output most where the input is strongest.
What a codec's layers read is dominated by one direction, brightness, with thousands of times the energy of the median
one: at rates at which the details learn, the brightness of everything trembles. Dividing a step by the spread of the
input lets every direction tremble alike, as K-FAC's input factor does (Martens and Grosse, 2015).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ltchm_geo.nn.layers import input_axis

__all__ = ["InputMoments", "Whitening"]

#: Positions of a map that are looked at, at most.
_POSITIONS = 1 << 14
#: Moments are the mean of the first observations, then a running one of about as many.
_MEMORY = 10
#: Steps between two observations: the first ones, and later, when inputs change slowly.
_OFTEN, _SELDOM = 50, 500


class Whitening(NamedTuple):
    """`matrix` (C, C) shortens steps along dimension `axis` of a weight, its input channels."""

    matrix: Tensor
    axis: int


class InputMoments:
    """Second moments (C, C) of what the dense convolutions of a model read, by the names of their weights.

    Parameters
    ----------
    model : nn.Module
        Its convolutions must run as modules: those that only lend their weights are not seen.

    Attributes
    ----------
    moments : dict of str to Tensor
        Empty before the first `observe`.
    observations : int
    """

    def __init__(self, model: nn.Module):
        self._model = model
        self._layers = {
            f"{name}.weight": layer
            for name, layer in model.named_modules()
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.groups == 1
        }
        self.moments: dict[str, Tensor] = {}
        self.observations = 0

    def due(self, step: int) -> bool:
        """Whether to observe before this step: that is one more forward pass, and eigenvectors for every layer."""
        return step % (_OFTEN if self.observations < _MEMORY else _SELDOM) == 0

    @torch.no_grad()
    def observe(self, x: Tensor, quality: Tensor) -> None:
        """Run the model on crops, and take their moments into the running means."""
        seen: dict[str, Tensor] = {}

        def note(name: str, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen[name] = _moment(inputs[0])

        with ExitStack() as stack:
            for name, layer in self._layers.items():
                stack.enter_context(layer.register_forward_pre_hook(partial(note, name)))
            self._model(x, quality)
        self.observations += 1
        share = 1 / min(self.observations, _MEMORY)
        for name, moment in seen.items():
            old = self.moments.get(name, moment)
            self.moments[name] = torch.lerp(old, moment, share)

    def whitenings(self) -> Iterator[tuple[str, Whitening]]:
        """By the names of weights."""
        for name, moment in self.moments.items():
            yield name, Whitening(_shortening(moment), input_axis(self._layers[name]))


def _moment(maps: Tensor) -> Tensor:
    """(C, C) of maps (B, C, H, W)."""
    rows = maps.transpose(0, 1).flatten(1)
    rows = rows[:, :: -(-rows.shape[1] // _POSITIONS)]
    return rows @ rows.T / rows.shape[1]


def _shortening(moment: Tensor) -> Tensor:
    """Symmetric (C, C): divides by the spread in directions with more than the median one, and leaves the others."""
    energies, directions = torch.linalg.eigh(moment.double())
    energies = energies.clamp(min=1e-12)
    factors = (energies.median() / energies).sqrt().clamp(max=1.0)
    return ((directions * factors) @ directions.mT).to(moment.dtype)
