"""LTCHM without one or both of its attention modules (the paper's Tab. 4)."""

from __future__ import annotations

from torch import nn

from ltchm_geo.baselines.cheng2020 import hyper_analysis, hyper_synthesis
from ltchm_geo.nn.attention import DAM
from ltchm_geo.nn.config import ModelConfig
from ltchm_geo.nn.layers import deconv3x3
from ltchm_geo.nn.model import LTCHM

__all__ = ["ltchm_without"]


def ltchm_without(config: ModelConfig, *, dam: bool = False, hpham: bool = False) -> LTCHM:
    """LTCHM with the named modules taken out.

    Without `dam` the identity stands in its place. Without `hpham` h_a and h_s have Cheng2020's convolutions: those
    that HPHAM's width of 2N demands go with it, which is what the parameters of the paper's baseline imply.

    The whole network is built first, so what remains starts from the same random weights in every variant.
    """
    model = LTCHM(config)
    if dam:
        for transform in (model.g_a, model.g_s):
            for stage in list(transform.modules()):
                for name, child in stage.named_children():
                    if isinstance(child, DAM):
                        setattr(stage, name, nn.Identity())
    if hpham:
        n = config.channels
        model.h_a.layers, model.h_s.layers = hyper_analysis(config.latent, n), hyper_synthesis(n, deconv3x3)
    return model
