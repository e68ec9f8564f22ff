"""Weights between two networks of which one was trained from the other.

Steps of a leg shake weights about; on the line between its two ends there is often less loss than at either
(docs/training_log.md, leg 12), as in M. Wortsman et al., "Model soups" (ICML 2022).
"""

from __future__ import annotations

import torch

from ltchm_geo.errors import UsageError
from ltchm_geo.nn.model import LTCHM

__all__ = ["blend"]


@torch.no_grad()
def blend(model: LTCHM, origin: LTCHM, share: float) -> None:
    """Move the weights of `model` by `share`, 0 to 1, of the way to those of `origin`, from which it was trained.

    Raises
    ------
    UsageError
        The two are of different sizes.
    """
    if model.config != origin.config:
        raise UsageError("networks of different sizes cannot be blended: start from those weights to train others")
    for mine, theirs in zip(model.parameters(), origin.parameters(), strict=True):
        mine.lerp_(theirs.to(mine), share)
