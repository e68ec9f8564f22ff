"""Every trainable architecture by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ltchm_geo.baselines.ablations import ltchm_without
from ltchm_geo.baselines.cheng2020 import Cheng2020
from ltchm_geo.baselines.qian2020 import Qian2020
from ltchm_geo.baselines.qian2022 import Qian2022
from ltchm_geo.baselines.segpic import SegPIC
from ltchm_geo.baselines.tcm import TCM
from ltchm_geo.errors import UsageError
from ltchm_geo.nn.complexity import Cost, count_cost
from ltchm_geo.nn.config import ModelConfig
from ltchm_geo.nn.model import LTCHM

__all__ = ["ARCHITECTURES", "build", "count"]

Options = dict[str, Any]

#: Name -> constructor from a dictionary of options; an empty one gives the size that its paper compares with.
ARCHITECTURES: dict[str, Callable[[Options], nn.Module]] = {
    "ltchm": lambda options: LTCHM(ModelConfig.from_dict(options)),
    "ltchm-no-dam": lambda options: ltchm_without(ModelConfig.from_dict(options), dam=True),
    "ltchm-no-hpham": lambda options: ltchm_without(ModelConfig.from_dict(options), hpham=True),
    "ltchm-neither": lambda options: ltchm_without(ModelConfig.from_dict(options), dam=True, hpham=True),
    "cheng2020-attn": Cheng2020,
    "qian2020": Qian2020,
    "qian2022": Qian2022,
    "tcm": TCM,
    "segpic": SegPIC,
    "cheng2020-transposed": lambda options: Cheng2020({"upsampling": "transposed"} | options),
}


def build(name: str, options: Options) -> nn.Module:
    """A freshly initialised network, `forward(x, quality, *, mixed_precision=False) -> Estimate`.

    Raises
    ------
    UsageError
        No such architecture, or it does not know one of the options.
    """
    if name not in ARCHITECTURES:
        raise UsageError(f"no architecture {name!r}; there are {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name](options)


def count(name: str, options: Options | None = None, *, side: int = 256) -> Cost:
    """Parameters, and multiply-accumulates for one image of 3 x `side` x `side`, counted on the meta device.

    Counted is a training pass: the likelihoods' own products are in it, about 0.001 %.
    """
    with torch.device("meta"):
        return count_cost(build(name, options or {}), torch.zeros(1, 3, side, side), torch.zeros(1))
