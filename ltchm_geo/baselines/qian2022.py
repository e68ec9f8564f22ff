"""Qian et al., "Entroformer: A Transformer-based Entropy Model for Learned Image Compression", ICLR 2022.

The hyper prior and the context are transformers over all latents: attention to the 32 highest scores only, and a
contextual relative position embedding that knows offsets within a diamond of radius 3 and calls all others far.

Implemented is the causal model; the authors' two-pass checkerboard variant has the same layers. Simplified: k is fixed
in training (theirs varies), no pre-training on masked tokens, z has a factorised prior.

At 3x256x256 and 128/128/128 channels: 10.74 GMAC and 38.93 M parameters. The published code has 10.96 GMAC, as it
multiplies the query with the embedding of every pair instead of every offset (0.17 G), and 39.11 M, as its default
predicts a mixture weight for one Gaussian alone (0.20 M, 0.05 G). Tab. 6 of the LTCHM paper prints 16.72 and 39.00 by
`thop`, which takes transposed convolutions four times and sees neither GDN nor the products of attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ltchm_geo.baselines.balle import analysis, synthesis
from ltchm_geo.baselines.cheng2020 import subpixel_conv3x3
from ltchm_geo.baselines.common import Baseline, parse_options
from ltchm_geo.nn.attention import ChannelNorm
from ltchm_geo.nn.layers import conv1x1, conv3x3
from ltchm_geo.nn.likelihood import gaussian_likelihood
from ltchm_geo.nn.model import for_rate, round_through

__all__ = ["Qian2022", "TransformerStage", "diamond_offsets"]


def diamond_offsets(height: int, width: int, side: int, device: torch.device) -> Tensor:
    """Row of the position table for every pair of places, (places, places).

    Offsets of L1 length up to `side` // 2 have a row each, the others share row 0, which no short offset uses.
    """
    half = side // 2
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    dy, dx = (g.reshape(1, -1) - g.reshape(-1, 1) for g in (y, x))
    near = dy.abs() + dx.abs() <= half
    return torch.where(near, (dy + half) * side + dx + half, 0)


@dataclass(frozen=True)
class Qian2022Options:
    """Channels of the autoencoder, of y and of z; width and heads of the transformers; keys per query."""

    channels: int = 128
    latent: int = 128
    hyper: int = 128
    width: int = 384
    heads: int = 6
    head_dim: int = 64
    top_k: int = 32


class TransformerBlock(nn.Module):
    """Pre-norm self-attention among all places, and a feed-forward network, over a map (B, width, H, W).

    Layers of tokens are written as 1x1 convolutions, which the optimiser treats like everyone else's.
    """

    def __init__(self, size: Qian2022Options, top_k: int):
        super().__init__()
        width, inner = size.width, size.heads * size.head_dim
        self.heads, self.top_k, self.scale = size.heads, top_k, width**-0.5
        self.norm1, self.norm2 = ChannelNorm(width), ChannelNorm(width)
        self.qkv = nn.Conv2d(width, 3 * inner, 1, bias=False)
        self.project = nn.Conv2d(inner, width, 1, bias=False)
        self.feed_forward = nn.Sequential(conv1x1(width, 4 * width), nn.LeakyReLU(0.2), conv1x1(4 * width, width))

    def forward(self, x: Tensor, table: Tensor, offsets: Tensor, mask: Tensor | None) -> Tensor:
        """Same shape; `table` (rows, head_dim), `offsets` (places, places) into it, `mask` True where visible."""
        x = x + self.project(self.attend(self.qkv(self.norm1(x)), table, offsets, mask))
        return cast(Tensor, x + self.feed_forward(self.norm2(x)))

    def attend(self, qkv: Tensor, table: Tensor, offsets: Tensor, mask: Tensor | None) -> Tensor:
        """Mixed values (B, heads * head_dim, H, W) of `qkv`, which has three times the channels."""
        q, k, v = qkv.flatten(2).unflatten(1, (3, self.heads, -1)).permute(1, 0, 2, 4, 3)
        position = (q @ table.T).gather(3, offsets.expand(*q.shape[:2], -1, -1))
        scores = (q @ k.transpose(2, 3) + position) * self.scale
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        if self.top_k < scores.shape[-1]:
            least = scores.topk(self.top_k, dim=-1).values[..., -1:]
            scores = scores.masked_fill(scores < least, float("-inf"))
        mixed = torch.softmax(scores, dim=-1) @ v
        return mixed.transpose(2, 3).flatten(1, 2).unflatten(2, qkv.shape[2:])


class TransformerStage(nn.Module):
    """Blocks over a map (B, width, H, W) that share one position table."""

    def __init__(self, size: Qian2022Options, *, blocks: int, side: int, top_k: int, causal: bool = False):
        super().__init__()
        self.side, self.causal = side, causal
        self.table = nn.Parameter(torch.randn(side**2, size.head_dim) * 0.02)
        self.blocks = nn.ModuleList(TransformerBlock(size, top_k) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape. A causal stage lets each place see itself and those before it in raster order."""
        offsets = diamond_offsets(x.shape[2], x.shape[3], self.side, x.device)
        mask = torch.ones_like(offsets, dtype=torch.bool).tril() if self.causal else None
        for block in self.blocks:
            x = block(x, self.table, offsets, mask)
        return x


class CausalContext(nn.Module):
    """Features (B, width, H, W) of the latents before each place."""

    DEPTH = 6

    def __init__(self, size: Qian2022Options):
        super().__init__()
        self.embed = conv1x1(size.latent, size.width)
        self.stage = TransformerStage(size, blocks=self.DEPTH, side=7, top_k=size.top_k, causal=True)
        self.start = nn.Parameter(torch.randn(size.width, 1) * 0.02)

    def forward(self, y_hat: Tensor) -> Tensor:
        """(B, M, H, W) -> (B, width, H, W): what a place's token ends as is the next place's context."""
        tokens = self.stage(self.embed(y_hat)).flatten(2)
        shifted = torch.cat([self.start.expand(len(tokens), -1, -1), tokens[:, :, :-1]], dim=2)
        return shifted.reshape(len(tokens), -1, *y_hat.shape[2:])


class Qian2022(Baseline):
    """Entroformer with hyper prior and causal context."""

    def __init__(self, options: dict[str, Any]):
        size = parse_options(Qian2022Options, options)
        width, k = size.width, size.top_k
        super().__init__(size.latent, size.hyper)
        self.g_a, self.g_s = analysis(size.channels, size.latent), synthesis(size.channels, size.latent)

        def stage(side: int, top_k: int) -> TransformerStage:
            return TransformerStage(size, blocks=1, side=side, top_k=top_k)

        down = (stage(7, k), conv3x3(width, width, 2), stage(5, k // 2), conv3x3(width, width, 2), stage(5, k // 4))
        self.h_a = nn.Sequential(conv1x1(size.latent, width), *down, ChannelNorm(width), conv1x1(width, size.hyper))
        up1, up2 = subpixel_conv3x3(width, width), subpixel_conv3x3(width, width)
        self.h_s = nn.Sequential(conv1x1(size.hyper, width), stage(5, k // 4), up1, stage(5, k // 2), up2, stage(7, k))
        self.context = CausalContext(size)
        self.parameter_net = nn.Sequential(
            *(conv1x1(2 * width, 4 * width), nn.LeakyReLU(0.2), conv1x1(4 * width, 2 * size.latent))
        )

    def code_latent(self, y: Tensor, z_hat: Tensor) -> tuple[Tensor, Tensor]:
        """Likelihood given the hyper prior and the rounded latents before."""
        y_hat = round_through(y)
        features = torch.cat([self.h_s(z_hat), self.context(y_hat)], dim=1)
        mean, log_sigma = self.parameter_net(features).chunk(2, dim=1)
        return y_hat, gaussian_likelihood(for_rate(y, y_hat, self.training), mean, log_sigma)
