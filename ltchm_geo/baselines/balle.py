"""Autoencoder of four strided 5x5 convolutions with (I)GDN (Balle et al., ICLR 2018), which later systems kept."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ltchm_geo.nn.layers import GDN

__all__ = ["analysis", "conv5x5", "deconv5x5", "synthesis"]

#: Builds a normalisation of so many channels, or its inverse.
Norm = Callable[..., GDN]


def conv5x5(c_in: int, c_out: int) -> nn.Conv2d:
    """5x5 convolution that halves height and width."""
    return nn.Conv2d(c_in, c_out, 5, stride=2, padding=2)


def deconv5x5(c_in: int, c_out: int) -> nn.ConvTranspose2d:
    """5x5 transposed convolution that doubles height and width."""
    return nn.ConvTranspose2d(c_in, c_out, 5, stride=2, padding=2, output_padding=1)


def analysis(width: int, latent: int, norm: Norm = GDN) -> nn.Sequential:
    """g_a: (B, 3, H, W) -> (B, latent, H/16, W/16)."""
    return nn.Sequential(
        *(conv5x5(3, width), norm(width)),
        *(conv5x5(width, width), norm(width)),
        *(conv5x5(width, width), norm(width)),
        conv5x5(width, latent),
    )


def synthesis(width: int, latent: int, norm: Norm = GDN) -> nn.Sequential:
    """g_s: (B, latent, H/16, W/16) -> (B, 3, H, W)."""
    last = deconv5x5(width, 3)
    with torch.no_grad():  # start from mid-grey, as LTCHM's synthesis does
        last.weight.mul_(0.1)
    return nn.Sequential(
        *(deconv5x5(latent, width), norm(width, inverse=True)),
        *(deconv5x5(width, width), norm(width, inverse=True)),
        *(deconv5x5(width, width), norm(width, inverse=True)),
        last,
    )
