"""How large the numbers inside the entropy path get: the basis of its fraction bits."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ltchm_geo.entropy import arithmetic as ar
from ltchm_geo.errors import UsageError
from ltchm_geo.nn.config import LEVELS_PER_ANCHOR
from ltchm_geo.nn.model import LTCHM

#: Latents y (B, N, h, w) and z (B, N, h / 4, w / 4) int32 at a quality level.
Latents = tuple[Tensor, Tensor, int]

MAX_BITS = 14
_HEADROOM = 2.0
#: Where every channel has its own bits: one that calibration hardly moves may move more elsewhere.
_CHANNEL_HEADROOM = 8.0


class Peaks:
    """Largest magnitude per channel at the input and output of every module."""

    def __init__(self) -> None:
        self._seen: dict[tuple[nn.Module, str], Tensor] = {}

    def note(self, module: nn.Module, side: str, value: Tensor) -> None:
        """Take in a tensor seen at `side` ("in" or "out") of a module; channels are its second axis."""
        peak = value.detach().abs().amax(dim=[d for d in range(value.ndim) if d != 1])
        old = self._seen.get((module, side))
        self._seen[module, side] = peak if old is None else torch.maximum(old, peak)

    def bits(self, module: nn.Module, side: str, part: slice = slice(None)) -> int:
        """Fraction bits with which that tensor, or some channels of it, fits sixteen bits with room to spare."""
        return int(_bits(self._finite(module, side)[part].max(), _HEADROOM))

    def bits_each(self, module: nn.Module, side: str) -> NDArray[np.int64]:
        """Fraction bits (C,) with which each channel of that tensor fits sixteen bits."""
        return _bits(self._finite(module, side), _CHANNEL_HEADROOM).numpy()

    def _finite(self, module: nn.Module, side: str) -> Tensor:
        peaks = self._seen[module, side]
        if not torch.isfinite(peaks).all():
            raise UsageError("the network does not give finite numbers on the calibration latents")
        return peaks


def _bits(peak: Tensor, headroom: float) -> Tensor:
    return torch.log2(ar.LIMIT / headroom / peak.double().clamp(min=1e-6)).floor().clamp(max=MAX_BITS).long()


def observe(model: LTCHM, calibration: Iterable[Latents]) -> Peaks:
    """Run the float64 entropy path of `model` over the calibration latents."""
    peaks = Peaks()

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        peaks.note(module, "in", inputs[0])
        peaks.note(module, "out", output)

    parts = (model.h_s, model.context, model.parameter_net)
    handles = [m.register_forward_hook(hook) for part in parts for m in part.modules()]
    count = 0
    with torch.no_grad():
        for y, z, level in calibration:
            quality = torch.full((len(y),), level / LEVELS_PER_ANCHOR, dtype=torch.float64)
            model.parameters_of(y.cpu().double(), z.cpu().double(), quality)
            count += len(y)
    for handle in handles:
        handle.remove()
    if not count:
        raise UsageError("calibration needs at least one tile")
    return peaks
