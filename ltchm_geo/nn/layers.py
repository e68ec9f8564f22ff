"""Convolutions, normalisation and residual units of g_a and g_s (Tab. 1)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltchm_geo.nn.config import QUALITY_ANCHORS, Scales, Skip

#: A power of two, so that the integer twin of the entropy path can apply it by a shift.
LEAKY_SLOPE = 2.0**-7
PIXEL_BANDS = 3


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """No bfloat16 on the way of values past the convolutions, whatever goes on around.

    Its eight bits do not tell 300 steps from 301, and weights rounded to them shift brightness everywhere alike, which
    training would follow more eagerly than anything else (docs/decisions/0018-training-precision.md).
    """
    kind = x.device.type
    lowered = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if lowered else nullcontext()


def leaky_relu(x: Tensor) -> Tensor:
    """LeakyReLU with the slope 1/128 used throughout the network; in place, so `x` must be nobody else's."""
    return F.leaky_relu(x, LEAKY_SLOPE, inplace=True)


def conv3x3(c_in: int, c_out: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution with padding 1."""
    return nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1)


def conv1x1(c_in: int, c_out: int) -> nn.Conv2d:
    """1x1 convolution."""
    return nn.Conv2d(c_in, c_out, 1)


def deconv3x3(c_in: int, c_out: int) -> nn.ConvTranspose2d:
    """3x3 transposed convolution that doubles height and width."""
    return nn.ConvTranspose2d(c_in, c_out, 3, stride=2, padding=1, output_padding=1)


class GDN(nn.Module):
    """Generalised divisive normalisation, y = x / sqrt(beta + gamma x^2), or its inverse y = x * sqrt(...).

    Parameters are kept as square roots with an offset, so that they stay non-negative and their gradients stay useful
    near zero (Balle et al., ICLR 2016; the parametrisation is the one CompressAI uses, so weights are interchangeable).
    """

    _PEDESTAL = 2.0**-36

    def __init__(self, channels: int, *, inverse: bool = False, beta_min: float = 1e-6, gamma_init: float = 0.1):
        super().__init__()
        self.inverse = inverse
        self.beta_bound = (beta_min + self._PEDESTAL) ** 0.5
        self.gamma_bound = self._PEDESTAL**0.5
        self.beta = nn.Parameter(torch.sqrt(torch.ones(channels) + self._PEDESTAL))
        self.gamma = nn.Parameter(torch.sqrt(gamma_init * torch.eye(channels) + self._PEDESTAL))

    def coefficients(self) -> tuple[Tensor, Tensor]:
        """Beta (C,) and gamma (C, C) with the parametrisation undone."""
        beta = lower_bound(self.beta, self.beta_bound) ** 2 - self._PEDESTAL
        gamma = lower_bound(self.gamma, self.gamma_bound) ** 2 - self._PEDESTAL
        return beta, gamma

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (B, C, H, W)."""
        beta, gamma = self.coefficients()
        norm = F.conv2d(x * x, gamma.to(x.dtype)[:, :, None, None], beta.to(x.dtype))
        return x * torch.sqrt(norm) if self.inverse else x * torch.rsqrt(norm)


class _LowerBound(torch.autograd.Function):
    """max(x, bound) whose gradient still lets x grow when it lies below the bound."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound  # type: ignore[attr-defined]
        return x.clamp(min=bound)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        (grad,) = grads
        return grad * ((x >= ctx.bound) | (grad < 0)), None  # type: ignore[attr-defined]


def lower_bound(x: Tensor, bound: float) -> Tensor:
    """Elementwise max(x, bound), with a gradient that does not die below the bound."""
    return _LowerBound.apply(x, bound)  # type: ignore[no-any-return, no-untyped-call]


class QualityScale(nn.Module):
    """Per-quality channel scale: one positive vector per anchor, interpolated between anchors.

    This is what makes one network serve every rate: the scales stand where a convolution follows, so at a fixed
    quality they fold into its weights (`transforms.fold_quality`).
    """

    def __init__(self, channels: int, scales: Scales = "linear", exponent: float = 0.0):
        super().__init__()
        self.scales = scales
        # The best quantiser step shrinks as lambda**-0.5; `exponent` (octaves per anchor) starts the scales there.
        octaves = exponent * (torch.arange(QUALITY_ANCHORS) - (QUALITY_ANCHORS - 1) / 2)
        self.log2_scale = nn.Parameter(octaves[:, None].expand(-1, channels).clone())

    def vectors(self, quality: Tensor) -> Tensor:
        """Scales (B, C) at the `quality` positions (B,), each in [0, 7]."""
        if self.scales == "geometric":
            return torch.exp2(interpolate_anchors(self.log2_scale, quality))
        return interpolate_anchors(torch.exp2(self.log2_scale), quality)

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        """Scale the channels of `x` (B, C, H, W)."""
        return x * self.vectors(quality).to(x.dtype)[:, :, None, None]


class QualityAffine(nn.Module):
    """Per-quality channel scale and shift of features that feed the parameter network."""

    def __init__(self, channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(QUALITY_ANCHORS, channels))
        self.shift = nn.Parameter(torch.zeros(QUALITY_ANCHORS, channels))

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        """Apply to `x` (B, C, H, W) at `quality` (B,)."""
        scale = interpolate_anchors(self.scale, quality)[:, :, None, None]
        return x * scale + interpolate_anchors(self.shift, quality)[:, :, None, None]


def interpolate_anchors(anchors: Tensor, quality: Tensor) -> Tensor:
    """Rows of `anchors` (A, C) linearly interpolated at the positions `quality` (B,) in [0, A - 1]."""
    lower = quality.floor().clamp(0, anchors.shape[0] - 2)
    t = (quality - lower)[:, None]
    index = lower.long()
    return anchors[index] * (1 - t) + anchors[index + 1] * t


def input_axis(layer: nn.Conv2d | nn.ConvTranspose2d) -> int:
    """The axis of a convolution's inputs in its weight."""
    return 0 if isinstance(layer, nn.ConvTranspose2d) else 1


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.conv2 = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> same shape."""
        change = leaky_relu(self.conv2(leaky_relu(self.conv1(x))))
        return x + change.to(x.dtype)  # converted first: adding two precisions is three times slower


def _rotation(conv: nn.Conv2d | nn.ConvTranspose2d) -> nn.Conv2d | nn.ConvTranspose2d:
    """`conv`, begun as a rotation of its cells' channels, or a projection: what it keeps, it keeps whole."""
    nn.init.orthogonal_(conv.weight)
    return conv


class DownBlock(nn.Module):
    """Halve height and width: strided 3x3, 3x3, GDN beside a strided 1x1 (Tab. 1, encoder)."""

    def __init__(self, c_in: int, c_out: int, skip: Skip = "1x1"):
        super().__init__()
        self.conv1 = conv3x3(c_in, c_out, stride=2)
        self.conv2 = conv3x3(c_out, c_out)
        self.norm = GDN(c_out)
        self.skip = conv1x1(c_in, c_out) if skip == "1x1" else _rotation(nn.Conv2d(c_in, c_out, 2, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H/2, W/2)."""
        # The stride of a 1x1 skip is a slice: PyTorch 2.13's CPU gradient of a strided 1x1 convolution with three
        # channels in channels_last layout corrupts the heap.
        step = 2 // self.skip.stride[0]
        with full_precision(x):
            skip = self.skip(x[:, :, ::step, ::step].to(self.skip.weight.dtype))
        # Pixels enter in float32: 16-bit imagery has more than bfloat16's eight bits.
        with full_precision(x) if self.skip.in_channels == PIXEL_BANDS else nullcontext():
            halved = self.conv1(x)
        return self.norm(self.conv2(leaky_relu(halved))).to(skip.dtype) + skip


class UpBlock(nn.Module):
    """Double height and width: transposed 3x3, 3x3, IGDN beside a 1x1 (Tab. 1, decoder).

    The skip is Tab. 1's stride-2 1x1 with its value held over the 2x2 cell; left at the even pixels only, as a bare
    transposed 1x1 convolution would, it prints a checkerboard that the other branch must undo. Same cost.
    """

    def __init__(self, c_in: int, c_out: int, skip: Skip = "1x1"):
        super().__init__()
        self.deconv1 = deconv3x3(c_in, c_out)
        self.conv2 = conv3x3(c_out, c_out)
        self.norm = GDN(c_out, inverse=True)
        self.skip = conv1x1(c_in, c_out) if skip == "1x1" else _rotation(nn.ConvTranspose2d(c_in, c_out, 2, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, 2H, 2W)."""
        with full_precision(x):
            skip = self.skip(x.to(self.skip.weight.dtype))
        if skip.shape[2] == x.shape[2]:
            skip = F.interpolate(skip, scale_factor=2.0, mode="nearest")
        return self.norm(self.conv2(leaky_relu(self.deconv1(x)))).to(skip.dtype) + skip
