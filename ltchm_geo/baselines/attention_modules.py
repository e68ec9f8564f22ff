"""Attention modules of learned codecs, side by side (the paper's Tab. 5)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ltchm_geo.nn.attention import ChannelNorm, WindowAttention
from ltchm_geo.nn.layers import conv1x1, conv3x3

__all__ = ["SAM", "WAM", "ResidualUnit", "SWAtten", "SwinBlock"]


class ResidualUnit(nn.Module):
    """1x1 to half the width, 3x3, 1x1 back, beside the identity."""

    def __init__(self, channels: int, activation: type[nn.Module] = nn.ReLU):
        super().__init__()
        half = channels // 2
        layers = (conv1x1(channels, half), activation(), conv3x3(half, half), activation(), conv1x1(half, channels))
        self.layers = nn.Sequential(*layers)
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> same shape."""
        return cast(Tensor, self.activation(x + self.layers(x)))


class SAM(nn.Module):
    """Simplified attention (Cheng et al., CVPR 2020): x + trunk(x) * sigmoid(mask(x)), three residual units each.

    Its successors put a wider `context` at the start of the mask.
    """

    def __init__(self, channels: int, *, activation: type[nn.Module] = nn.ReLU, context: tuple[nn.Module, ...] = ()):
        super().__init__()
        trunk, mask = ([ResidualUnit(channels, activation) for _ in range(3)] for _ in range(2))
        self.trunk = nn.Sequential(*trunk)
        self.mask = nn.Sequential(*context, *mask, conv1x1(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> same shape."""
        return cast(Tensor, x + self.trunk(x) * torch.sigmoid(self.mask(x)))


class _WindowResidual(WindowAttention):
    """Window attention beside the identity, without normalisation."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class WAM(SAM):
    """Window-based attention (Zou et al., CVPR 2022): SAM with attention in shifted windows first, and GELU."""

    def __init__(self, channels: int, *, heads: int = 8, window: int = 8):
        attention = _WindowResidual(channels, head_dim=channels // heads, window=window, shifted=True)
        super().__init__(channels, activation=nn.GELU, context=(attention,))


class SwinBlock(nn.Module):
    """Window attention and a four times wider 1x1 network, each normalised first and beside the identity."""

    def __init__(self, channels: int, *, head_dim: int, window: int, shifted: bool):
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(channels), ChannelNorm(channels)
        self.attention = WindowAttention(channels, head_dim=head_dim, window=window, shifted=shifted)
        self.mlp = nn.Sequential(conv1x1(channels, 4 * channels), nn.GELU(), conv1x1(4 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> same shape; H and W are multiples of the window."""
        x = x + self.attention(self.norm1(x))
        return cast(Tensor, x + self.mlp(self.norm2(x)))


class SWAtten(nn.Sequential):
    """Swin-transformer attention (Liu et al., CVPR 2023): SAM with two Swin blocks first, at a narrower width."""

    def __init__(self, channels: int, *, inner: int = 128, head_dim: int = 16, window: int = 8):
        swin = tuple(SwinBlock(inner, head_dim=head_dim, window=window, shifted=s) for s in (False, True))
        super().__init__(conv1x1(channels, inner), SAM(inner, context=swin), conv1x1(inner, channels))
