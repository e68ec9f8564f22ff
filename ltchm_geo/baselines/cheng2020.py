"""Cheng et al., "Learned Image Compression with Discretized Gaussian Mixture Likelihoods and Attention Modules", 2020.

The full network of the paper: residual blocks, simplified attention, 5x5 serial context, mixture of three Gaussians.
LeakyReLU has this project's slope 1/128 instead of 0.01.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from ltchm_geo.baselines.attention_modules import SAM
from ltchm_geo.baselines.common import Baseline, parse_options
from ltchm_geo.errors import UsageError
from ltchm_geo.nn.config import ModelConfig
from ltchm_geo.nn.hyperprior import MaskedConv, ParameterNetwork
from ltchm_geo.nn.layers import GDN, LEAKY_SLOPE, DownBlock, ResidualBlock, UpBlock, conv3x3, deconv3x3, leaky_relu
from ltchm_geo.nn.likelihood import mixture_likelihood
from ltchm_geo.nn.model import for_rate, round_through

__all__ = ["Cheng2020", "SubpixelUpBlock", "hyper_analysis", "hyper_synthesis", "subpixel_conv3x3"]

#: Builds a layer or block from its input and output channels.
Layer = Callable[[int, int], nn.Module]


def subpixel_conv3x3(c_in: int, c_out: int) -> nn.Sequential:
    """3x3 convolution to four times the channels, rearranged to twice the height and width."""
    return nn.Sequential(conv3x3(c_in, 4 * c_out), nn.PixelShuffle(2))


class SubpixelUpBlock(nn.Module):
    """Double height and width: sub-pixel 3x3, 3x3, IGDN beside a sub-pixel 3x3."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.up = subpixel_conv3x3(c_in, c_out)
        self.conv = conv3x3(c_out, c_out)
        self.norm = GDN(c_out, inverse=True)
        self.skip = subpixel_conv3x3(c_in, c_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, 2H, 2W)."""
        return cast(Tensor, self.norm(self.conv(leaky_relu(self.up(x)))) + self.skip(x))


@dataclass(frozen=True)
class Cheng2020Options:
    """Size and variant.

    Attributes
    ----------
    channels : int
        Width of every layer, a multiple of 8.
    parameter_width : int
        Hidden width of the 1x1 parameter network.
    upsampling : {"subpixel", "transposed"}
        As published, or by transposed convolutions with a 1x1 skip: the LTCHM paper's Tab. 6 counts the latter.
    """

    channels: int = 128
    parameter_width: int = 640
    upsampling: Literal["subpixel", "transposed"] = "subpixel"

    def __post_init__(self) -> None:
        if self.upsampling not in ("subpixel", "transposed"):
            raise UsageError(f'cheng2020: upsampling must be "subpixel" or "transposed", not {self.upsampling!r}')


class Cheng2020(Baseline):
    """Cheng2020 with attention."""

    def __init__(self, options: dict[str, Any]):
        size = parse_options(Cheng2020Options, options)
        n, subpixel = size.channels, size.upsampling == "subpixel"
        super().__init__(n, n)
        up: Layer = subpixel_conv3x3 if subpixel else deconv3x3
        self.g_a, self.g_s = _analysis(n), _synthesis(n, SubpixelUpBlock if subpixel else UpBlock, up)
        self.h_a, self.h_s = hyper_analysis(n, n), hyper_synthesis(n, up)
        self.context = MaskedConv(n, 2 * n)
        config = ModelConfig(channels=n, parameter_width=size.parameter_width, head_dim=1)  # there are no heads
        self.parameter_net = ParameterNetwork(config)

    def code_latent(self, y: Tensor, z_hat: Tensor) -> tuple[Tensor, Tensor]:
        """Likelihood given the hyper prior and the rounded latents before."""
        y_hat = round_through(y)
        parameters = self.parameter_net(self.h_s(z_hat), self.context(y_hat))
        return y_hat, mixture_likelihood(for_rate(y, y_hat, self.training), parameters)


def hyper_analysis(m: int, n: int) -> nn.Sequential:
    """h_a: (B, m, H, W) -> (B, n, H/4, W/4), convolutions only."""
    return _chain([conv3x3(m, n), conv3x3(n, n), conv3x3(n, n, 2), conv3x3(n, n), conv3x3(n, n, 2)])


def hyper_synthesis(n: int, up: Layer) -> nn.Sequential:
    """h_s: (B, n, h, w) -> (B, 2n, 4h, 4w), convolutions only; `up` doubles height and width."""
    wide = n + n // 2
    return _chain([conv3x3(n, n), up(n, n), conv3x3(n, wide), up(wide, wide), conv3x3(wide, 2 * n)])


def _chain(layers: list[nn.Module]) -> nn.Sequential:
    """The layers with a LeakyReLU between each two."""
    first, *others = layers
    return nn.Sequential(first, *(m for layer in others for m in (nn.LeakyReLU(LEAKY_SLOPE), layer)))


def _analysis(n: int) -> nn.Sequential:
    return nn.Sequential(
        *(DownBlock(3, n), ResidualBlock(n)),
        *(DownBlock(n, n), SAM(n), ResidualBlock(n)),
        *(DownBlock(n, n), ResidualBlock(n)),
        *(conv3x3(n, n, stride=2), SAM(n)),
    )


def _synthesis(n: int, block: Layer, up: Layer) -> nn.Sequential:
    last = up(n, 3)
    with torch.no_grad():  # start from mid-grey, as LTCHM's synthesis does
        next(last.parameters()).mul_(0.1)
    return nn.Sequential(
        *(SAM(n), ResidualBlock(n), block(n, n)),
        *(ResidualBlock(n), block(n, n)),
        *(SAM(n), ResidualBlock(n), block(n, n)),
        *(ResidualBlock(n), last),
    )
