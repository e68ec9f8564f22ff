"""Liu et al., "Region-Adaptive Transform with Segmentation Prior for Image Compression" (SegPIC), ECCV 2024.

Mean features of regions travel as side information. From them, dynamic depth-wise convolutions are made for every
place (region-adaptive transform, RAT) that act inside g_a and g_s and on both ends of the hyper prior. Strided 5x5
convolutions with scale affine layers (SAL) and window attention make g_a and g_s; y is coded in ten slices.

Regions are the cells of a 4x4 grid, as in the authors' mode without segmentation masks: masks are never transmitted,
and segmented training images are not at hand. Simplified: scales are predicted as log2. Without a gain of their own the
first regions' codes cost about the same at every quality, and both codes cost the same for an image of any size.

At 3x256x256 and the published widths: 47.21 GMAC and 83.51 M parameters. The published code has 47.23 GMAC, where the
products of the dynamic kernels (0.02 G) count too, and 83.50 M. Tab. 6 of the LTCHM paper prints 190.55 and 91.17; even
by `thop` this network has 68.2 and 83.0, so they must have counted another version of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltchm_geo.baselines.attention_modules import WAM
from ltchm_geo.baselines.balle import conv5x5, deconv5x5
from ltchm_geo.baselines.channelwise import ChannelwiseModel
from ltchm_geo.baselines.cheng2020 import subpixel_conv3x3
from ltchm_geo.baselines.common import parse_options
from ltchm_geo.nn.layers import GDN, QualityScale, conv1x1, conv3x3
from ltchm_geo.nn.likelihood import FactorisedPrior
from ltchm_geo.nn.model import Estimate, autocast, bits_per_image, for_rate, round_through

__all__ = ["RegionAdaptiveTransform", "RegionCode", "SegPIC"]


class ScaleAffine(nn.Module):
    """SAL: every value scaled and shifted by what a 1x1 network makes of its pixel."""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(conv1x1(channels, channels), nn.GELU(), conv1x1(channels, 2 * channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> same shape."""
        scale, shift = self.layers(x).chunk(2, dim=1)
        return cast(Tensor, x * (1 + scale) + shift)


class RegionCode(nn.Module):
    """Side information: mean features of the grid's cells, coded through a small 1x1 autoencoder."""

    GRID = 4

    def __init__(self, widths: tuple[int, ...], decoder_widths: tuple[int, ...]):
        super().__init__()
        self.encoder = _chain(widths, inverse=False)
        self.decoder = _chain(decoder_widths, inverse=True)
        self.prior = FactorisedPrior(widths[-1])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Decoded features (B, C, 4, 4) of the cells of `x` (B, C, H, W), and their bits (B,)."""
        z = self.encoder(F.adaptive_avg_pool2d(x, self.GRID))
        z_hat = round_through(z)
        return self.decoder(z_hat), bits_per_image(self.prior(for_rate(z, z_hat, self.training)))


def _chain(widths: tuple[int, ...], *, inverse: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for c_in, c_out in pairwise(widths):
        layers += [conv1x1(c_in, c_out), GDN(c_out, inverse=inverse)]
    return nn.Sequential(*layers[:-1])


class RegionAdaptiveTransform(nn.Module):
    """RAT: a 3x3 depth-wise kernel for every place and channel, made from the features and their region's."""

    KERNEL = 3

    def __init__(self, channels: int):
        super().__init__()
        c = channels
        self.enter = nn.Sequential(conv1x1(c, c), _act(), conv1x1(c, c))
        fan = nn.Conv2d(c, c * self.KERNEL**2, 3, padding=1, groups=c)
        self.kernels = nn.Sequential(conv1x1(2 * c, c), _act(), conv3x3(c, c), _act(), fan)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv1x1(c, c), _act(), conv1x1(c, c), nn.Sigmoid())
        self.leave = conv1x1(c, c)

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        """Transform `x` (B, C, H, W) given the features (B, C, h, w) of the cells it divides into; same shape."""
        b, c, h, w = x.shape
        inner = self.enter(x)
        spread = F.interpolate(regions, size=(h, w), mode="nearest")
        kernels = self.kernels(torch.cat([inner, spread], dim=1)).reshape(b, c, self.KERNEL**2, h, w)
        patches = F.unfold(inner, self.KERNEL, padding=self.KERNEL // 2).reshape(b, c, self.KERNEL**2, h, w)
        mixed = (patches * kernels).sum(dim=2)
        return cast(Tensor, x + self.leave(self.gate(mixed) * mixed))


def _act() -> nn.Module:
    return nn.LeakyReLU(0.1)


@dataclass(frozen=True)
class SegPICOptions:
    """Width of g_a and g_s, channels of y, z and the regions' codes, and of g_s at full resolution.

    `hyper_widths` are those between y and z, `region_widths` those between features and code of the regions.
    """

    channels: int = 192
    latent: int = 320
    hyper: int = 192
    slices: int = 10
    widths: tuple[int, ...] = (224, 176, 128, 64)
    hyper_widths: tuple[int, ...] = (288, 256, 224)
    region_widths: tuple[int, ...] = (192, 128, 96)
    last: int = 32


class SegPIC(nn.Module):
    """SegPIC with the cells of a grid for regions."""

    def __init__(self, options: dict[str, Any]):
        size = parse_options(SegPICOptions, options)
        n, m = size.channels, size.latent
        super().__init__()
        self.gain, self.inverse_gain = QualityScale(m, exponent=0.45), QualityScale(m, exponent=-0.45)
        self.g_a1 = nn.Sequential(*_down(3, n), *_down(n, n), WAM(n))
        self.g_a2 = nn.Sequential(*_down(n, n), *_down(n, m), WAM(m, window=4))
        self.g_s2 = nn.Sequential(WAM(m, window=4), *_up(m, n), *_up(n, n))
        self.g_s1 = nn.Sequential(WAM(n), *_up(n, n), *_up(n, size.last), _last(size.last))
        wide, middle, code = size.region_widths
        self.regions1 = RegionCode((n, middle, code, code), (code, middle, wide, n))
        self.regions2 = RegionCode((m, wide, middle, code), (code, middle, wide, m))
        self.rat_analysis, self.rat_synthesis = RegionAdaptiveTransform(n), RegionAdaptiveTransform(n)
        self.rat_hyper, self.rat_mean, self.rat_scale = (RegionAdaptiveTransform(m) for _ in range(3))
        self.h_a = _hyper_analysis(m, size.hyper_widths, size.hyper)
        self.h_mean, self.h_scale = (_hyper_synthesis(size.hyper, size.hyper_widths, m) for _ in range(2))
        self.prior = FactorisedPrior(size.hyper)
        self.entropy = ChannelwiseModel(m, slices=size.slices, widths=size.widths)

    def forward(self, x: Tensor, quality: Tensor, *, mixed_precision: bool = False) -> Estimate:
        """Frame of `common.Baseline`, with the regions' codes as further side information."""
        with autocast(x, mixed_precision):
            features = self.g_a1(x - 0.5)
        regions1, bits1 = self.regions1(features.float())
        with autocast(x, mixed_precision):
            y = self.gain(self.g_a2(self.rat_analysis(features, regions1)), quality).float()
        regions2, bits2 = self.regions2(y)
        z = self.h_a(self.rat_hyper(y, regions2))
        z_hat = round_through(z)
        means, scales = self.rat_mean(self.h_mean(z_hat), regions2), self.rat_scale(self.h_scale(z_hat), regions2)
        y_hat, likelihood = self.entropy(y, means, scales)
        bits_z = bits_per_image(self.prior(for_rate(z, z_hat, self.training))) + bits1 + bits2
        with autocast(x, mixed_precision):
            features = self.g_s2(self.inverse_gain(y_hat, quality))
            x_hat = self.g_s1(self.rat_synthesis(features, regions1)).float() + 0.5
        return Estimate(x_hat, bits_per_image(likelihood), bits_z)


def _down(c_in: int, c_out: int) -> tuple[nn.Module, ...]:
    return conv5x5(c_in, c_out), GDN(c_out), ScaleAffine(c_out)


def _up(c_in: int, c_out: int) -> tuple[nn.Module, ...]:
    return ScaleAffine(c_in), deconv5x5(c_in, c_out), GDN(c_out)  # not inverse: as published


def _last(channels: int) -> nn.Conv2d:
    conv = conv1x1(channels, 3)
    with torch.no_grad():  # start from mid-grey, as LTCHM's synthesis does
        for parameter in conv.parameters():
            parameter.mul_(0.1)
    return conv


def _hyper_analysis(latent: int, widths: tuple[int, ...], hyper: int) -> nn.Sequential:
    wide, middle, narrow = widths
    return nn.Sequential(
        *(conv3x3(latent, latent), nn.GELU(), conv3x3(latent, wide), nn.GELU(), conv3x3(wide, middle, 2), nn.GELU()),
        *(conv3x3(middle, narrow), nn.GELU(), conv3x3(narrow, hyper, 2)),
    )


def _hyper_synthesis(hyper: int, widths: tuple[int, ...], latent: int) -> nn.Sequential:
    wide, middle, narrow = widths
    return nn.Sequential(
        *(conv3x3(hyper, hyper), nn.GELU(), subpixel_conv3x3(hyper, narrow), nn.GELU()),
        *(conv3x3(narrow, middle), nn.GELU(), subpixel_conv3x3(middle, wide), nn.GELU(), conv3x3(wide, latent)),
    )
