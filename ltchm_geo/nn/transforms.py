"""The main transforms: analysis g_a and synthesis g_s (Tab. 1)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ltchm_geo.nn.attention import DAM
from ltchm_geo.nn.config import ModelConfig
from ltchm_geo.nn.layers import (
    PIXEL_BANDS,
    DownBlock,
    QualityScale,
    ResidualBlock,
    UpBlock,
    conv3x3,
    deconv3x3,
    full_precision,
    input_axis,
)
from ltchm_geo.types import Sides

_ALONE = Sides()


def _attention(config: ModelConfig, channels: int, *, always: bool) -> nn.Module:
    if not always and config.dam == "latent":
        return nn.Identity()
    return DAM(channels, reduction=config.reduction, groups=config.groups, gain=config.dam_gain)


class Analysis(nn.Module):
    """g_a: pixels (B, 3, H, W), nominally in [0, 1], to the latent y (B, M, H/16, W/16).

    Per-quality scales stand before each later down-sampling and at y itself, where they set the quantiser step.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        n, d, m = config.channels, config.deep, config.latent
        self.down1 = DownBlock(PIXEL_BANDS, n, config.skip)
        self.stage1 = nn.Sequential(_attention(config, n, always=False), ResidualBlock(n))
        self.scale1 = QualityScale(n, config.scales)
        self.down2 = DownBlock(n, n, config.skip)
        self.stage2 = nn.Sequential(_attention(config, n, always=True), ResidualBlock(n))
        self.scale2 = QualityScale(n, config.scales)
        self.down3 = DownBlock(n, d, config.skip)
        self.stage3 = nn.Sequential(_attention(config, d, always=False), ResidualBlock(d))
        self.scale3 = QualityScale(d, config.scales)
        self.down4 = conv3x3(d, m, stride=2)
        self.stage4 = _attention(config, m, always=True)
        self.scale4 = QualityScale(m, config.scales, exponent=0.45)

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        """Latent in units of the quantiser step at `quality` (B,)."""
        x = x - 0.5  # centred input trains faster
        x = self.scale1(self.stage1(self.down1(x)), quality)
        x = self.scale2(self.stage2(self.down2(x)), quality)
        x = self.scale3(self.stage3(self.down3(x)), quality)
        with full_precision(x):
            return cast(Tensor, self.scale4(self.stage4(self.down4(x)), quality))


class Synthesis(nn.Module):
    """g_s: the latent (B, M, H/16, W/16) back to pixels (B, 3, H, W); mirror of `Analysis`."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        n, d, m = config.channels, config.deep, config.latent
        self.scale4 = QualityScale(m, config.scales, exponent=-0.45)
        self.stage4 = nn.Sequential(_attention(config, m, always=True), ResidualBlock(m))
        self.scale3 = QualityScale(m, config.scales)
        self.up3 = UpBlock(m, d, config.skip)
        self.stage3 = nn.Sequential(_attention(config, d, always=False), ResidualBlock(d))
        self.scale2 = QualityScale(d, config.scales)
        self.up2 = UpBlock(d, n, config.skip)
        self.stage2 = nn.Sequential(_attention(config, n, always=True), ResidualBlock(n))
        self.scale1 = QualityScale(n, config.scales)
        self.up1 = UpBlock(n, n, config.skip)
        self.stage1 = ResidualBlock(n)
        self.up0 = deconv3x3(n, PIXEL_BANDS)
        with torch.no_grad():  # start from mid-grey; residual stages and IGDN would otherwise begin far outside [0, 1]
            self.up0.weight.mul_(0.1)

    def forward(self, y: Tensor, quality: Tensor, sides: Sides = _ALONE) -> Tensor:
        """Pixels, not clipped: headroom outside [0, 1] is legitimate.

        With `sides`, y has one more row or column on those sides: latents of the neighbours, so that tiles fit together
        where they meet. At most two pixels of that margin are carried along at any scale, for more cost time and give
        nothing (docs/decisions/0008-seams.md); the result has none.
        """
        with full_precision(y):
            x = self.stage4(self.scale4(y, quality))
            x = self.up3(self.scale3(x, quality))
        x = self.stage3(x)
        x = self.stage2(trim(self.up2(self.scale2(x, quality)), sides.times(2)))
        x = self.stage1(trim(self.up1(self.scale1(x, quality)), sides.times(2)))
        with full_precision(x):
            return trim(cast(Tensor, self.up0(x) + 0.5), sides.times(4))


def trim(x: Tensor, sides: Sides) -> Tensor:
    """(..., H, W) without as many rows and columns as `sides` says, in the same memory format."""
    if not any(sides):
        return x
    kind = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    height, width = x.shape[-2:]
    inner = x[..., sides.top : height - sides.bottom, sides.left : width - sides.right]
    return inner.contiguous(memory_format=kind)


@torch.no_grad()
def fold_quality(transform: Analysis | Synthesis, quality: float) -> None:
    """Fold the per-quality scales of a transform into its weights, in place, for one fixed quality.

    The inner scales stand before a block whose first convolutions both read the scaled map, so scaling the input
    channels of those weights is the same function. The scale at the latent stays: a DAM is not linear.
    """
    q = torch.tensor([quality])
    pairs = (
        [(transform.scale1, transform.down2), (transform.scale2, transform.down3), (transform.scale3, transform.down4)]
        if isinstance(transform, Analysis)
        else [(transform.scale3, transform.up3), (transform.scale2, transform.up2), (transform.scale1, transform.up1)]
    )
    convs: list[nn.Conv2d | nn.ConvTranspose2d]
    for scale, block in pairs:
        vector = scale.vectors(q.to(scale.log2_scale.device))[0]
        if isinstance(block, DownBlock):
            convs = [block.conv1, block.skip]
        elif isinstance(block, UpBlock):
            convs = [block.deconv1, block.skip]
        else:
            convs = [cast(nn.Conv2d, block)]
        for conv in convs:
            axis = input_axis(conv)
            conv.weight.mul_(vector.reshape([-1 if i == axis else 1 for i in range(4)]))
        scale.log2_scale.zero_()
