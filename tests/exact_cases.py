"""Small networks and latents for the tests of the exact parameter network."""

from __future__ import annotations

from functools import cache

import torch

from ltchm_geo.nn.config import ModelConfig
from ltchm_geo.nn.model import LTCHM
from ltchm_geo.training.integerise import integerise

CONFIG = ModelConfig(channels=16, parameter_width=64, head_dim=4)
#: More channels in y than in z.
WIDE = ModelConfig(channels=16, latent_channels=40, parameter_width=64, head_dim=4)
LEVELS = (0, 37, 112)


@cache
def small_model(config: ModelConfig = CONFIG) -> LTCHM:
    """Random weights, shaken so that biases, norms, position biases and anchors matter."""
    generator = torch.Generator().manual_seed(5)
    torch.manual_seed(5)
    model = LTCHM(config).eval()
    with torch.no_grad():
        for part in (model.h_s, model.context, model.parameter_net):
            for parameter in part.parameters():
                parameter *= 1.3
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def latents(count, seed=0, side=16, scale=3.0, config=CONFIG):
    """y (count, M, side, side) and z (count, N, side / 4, side / 4) int32."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(count, config.latent, side, side, generator=generator) * scale
    z = torch.randn(count, config.channels, side // 4, side // 4, generator=generator) * scale
    return y.round().int(), z.round().int()


@cache
def small_exact(config: ModelConfig = CONFIG):
    """Tensors and description of `small_model` in integers."""
    calibration = [(*latents(2, seed, config=config), level) for seed, level in enumerate(LEVELS)]
    return integerise(small_model(config), calibration)


def only_net(tensors):
    """The tensors without z_cdf."""
    return {name: array for name, array in tensors.items() if name != "z_cdf"}
