"""Liu et al., "Learned Image Compression with Mixed Transformer-CNN Architectures" (TCM), CVPR 2023.

Each stage of g_a, g_s, h_a and h_s halves the channels: one half passes a residual block, the other a Swin block (TCM
block). y is coded channel-wise in five slices, behind Swin attention (SWAtten).

Simplified: scales are predicted as log2; LeakyReLU has this project's slope 1/128 instead of 0.01. Image sides are
multiples of 128; where a map is no larger than a window, the window is not shifted.

At 3x256x256 and N = 128: 121.01 GMAC and 76.57 M parameters, as the published code has; Tab. 6 of the LTCHM paper
prints 116.78 and 75.90 by `thop`, which sees neither GDN nor the products of attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ltchm_geo.baselines.attention_modules import SWAtten, SwinBlock
from ltchm_geo.baselines.channelwise import ChannelwiseModel
from ltchm_geo.baselines.cheng2020 import SubpixelUpBlock, subpixel_conv3x3
from ltchm_geo.baselines.common import Baseline, parse_options
from ltchm_geo.nn.layers import DownBlock, ResidualBlock, conv1x1, conv3x3

__all__ = ["TCM", "TCMBlock"]


@dataclass(frozen=True)
class TCMOptions:
    """Width N of each half, channels of y and of z, slices of y, and widths of the entropy model's networks.

    `head_dims` are the channels per head in the three stages of g_a (reversed in g_s), in h_a and h_s, and in SWAtten.
    """

    channels: int = 128
    latent: int = 320
    hyper: int = 192
    slices: int = 5
    widths: tuple[int, ...] = (224, 128)
    attention: int = 128
    head_dims: tuple[int, ...] = (8, 16, 32, 32, 16)


class TCMBlock(nn.Module):
    """Residual block beside Swin block, between 1x1 convolutions, beside the identity."""

    def __init__(self, half: int, *, head_dim: int, window: int, shifted: bool):
        super().__init__()
        self.split, self.join = conv1x1(2 * half, 2 * half), conv1x1(2 * half, 2 * half)
        self.residual = ResidualBlock(half)
        self.swin = SwinBlock(half, head_dim=head_dim, window=window, shifted=shifted)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2 half, H, W) -> same shape; H and W are multiples of the window."""
        local, distant = self.split(x).chunk(2, dim=1)
        # The block's own identity comes on top of the one inside `ResidualBlock`, as published.
        local = self.residual(local) + local
        return cast(Tensor, x + self.join(torch.cat([local, self.swin(distant)], dim=1)))


class TCM(Baseline):
    """TCM: transforms of TCM blocks, channel-wise entropy model with SWAtten."""

    def __init__(self, options: dict[str, Any]):
        size = parse_options(TCMOptions, options)
        n, wide, m = size.channels, 2 * size.channels, size.latent
        first, second, third, hyper, attention = size.head_dims
        super().__init__(m, size.hyper)

        def pair(head_dim: int, window: int = 8) -> list[nn.Module]:
            return [TCMBlock(n, head_dim=head_dim, window=window, shifted=shifted) for shifted in (False, True)]

        self.g_a = nn.Sequential(
            *(DownBlock(3, wide), *pair(first)),
            *(DownBlock(wide, wide), *pair(second)),
            *(DownBlock(wide, wide), *pair(third)),
            conv3x3(wide, m, stride=2),
        )
        last = subpixel_conv3x3(wide, 3)
        with torch.no_grad():  # start from mid-grey, as LTCHM's synthesis does
            cast(Tensor, last[0].weight).mul_(0.1)
        self.g_s = nn.Sequential(
            *(SubpixelUpBlock(m, wide), *pair(third)),
            *(SubpixelUpBlock(wide, wide), *pair(second)),
            *(SubpixelUpBlock(wide, wide), *pair(first)),
            last,
        )
        self.h_a = nn.Sequential(DownBlock(m, wide), *pair(hyper, 4), conv3x3(wide, size.hyper, stride=2))
        self.h_mean, self.h_scale = (
            nn.Sequential(SubpixelUpBlock(size.hyper, wide), *pair(hyper, 4), subpixel_conv3x3(wide, m))
            for _ in range(2)
        )
        self.entropy = ChannelwiseModel(
            m,
            slices=size.slices,
            widths=size.widths,
            attention=lambda c: SWAtten(c, inner=size.attention, head_dim=attention),
        )

    def code_latent(self, y: Tensor, z_hat: Tensor) -> tuple[Tensor, Tensor]:
        """Slices one after the other, each likelihood under noise."""
        out: tuple[Tensor, Tensor] = self.entropy(y, self.h_mean(z_hat), self.h_scale(z_hat))
        return out
