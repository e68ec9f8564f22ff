"""g_a and g_s made ready to run fast: the same functions, most of their convolutions in bfloat16.

What carries a value from the latent to the pixels past the convolutions (identities, skips, the last layer) and the
deepest layers, to which the result is most sensitive, stay in float32; that costs a few per cent of the time and saves
nine tenths of the error. docs/decisions/0007-cpu-inference.md has the measurements.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltchm_geo.nn.layers import PIXEL_BANDS, ResidualBlock
from ltchm_geo.nn.transforms import Analysis, Synthesis
from ltchm_geo.nn.winograd import WinogradConv, suits

__all__ = ["Precision", "prepare"]

Precision = Literal["float32", "bfloat16"]


def prepare(transform: Analysis | Synthesis, precision: Precision, device: torch.device) -> None:
    """Change a transform with folded quality, in place, into one for inference only.

    Parameters
    ----------
    transform : Analysis or Synthesis
        In evaluation mode, `fold_quality` done. Its inputs and outputs stay float32.
    precision : "float32" or "bfloat16"
        Of the convolutions that may have either.
    device : torch.device
        Where it will run.
    """
    if isinstance(transform, Synthesis):
        transform.up0 = cast(nn.ConvTranspose2d, Doubling(transform.up0))
    if precision == "bfloat16":
        for block in _tolerant_blocks(transform):
            _lower(block, device)


def _tolerant_blocks(transform: Analysis | Synthesis) -> list[nn.Module]:
    """The blocks at 1/8 of the resolution or finer; not the one up to 1/8, from which half of the error would come."""
    stages = [transform.stage1, transform.stage2, transform.stage3]
    residual = [m for stage in stages for m in stage.modules() if isinstance(m, ResidualBlock)]
    if isinstance(transform, Analysis):
        return [transform.down1, transform.down2, transform.down3, *residual]
    return [transform.up1, transform.up2, *residual]


def _lower(block: nn.Module, device: torch.device) -> None:
    """Let a block's 3x3 convolutions, and so the normalisation that follows, compute in bfloat16; not its skip."""
    for name, conv in list(block.named_children()):
        # Pixels enter in float32: 16-bit imagery has more than bfloat16's eight bits.
        if name not in ("conv1", "conv2", "deconv1") or conv.in_channels == PIXEL_BANDS:
            continue
        fast = device.type == "cpu" and suits(conv)
        setattr(block, name, WinogradConv(cast(nn.Conv2d, conv)) if fast else Lowered(conv))


class Lowered(nn.Module):
    """A convolution computed in bfloat16, sums in float32: takes any precision, returns bfloat16."""

    def __init__(self, conv: nn.Module):
        super().__init__()
        self.conv = conv.bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        """As the convolution."""
        return cast(Tensor, self.conv(x.bfloat16()))


class Doubling(nn.Module):
    """A transposed 3x3 convolution that doubles height and width, as a 2x2 convolution and a pixel shuffle.

    For the three channels of an image that is twice as fast: a vector register holds the four phases together.
    """

    def __init__(self, deconv: nn.ConvTranspose2d):
        super().__init__()
        c_in, c_out = deconv.in_channels, deconv.out_channels
        # Even rows see row i through tap 1; odd rows see row i through tap 2 and row i + 1 through tap 0.
        taps = {(0, 0): 1, (1, 0): 2, (1, 1): 0}
        weight = torch.zeros(c_out, 2, 2, c_in, 2, 2)
        for (a, i), row in taps.items():
            for (b, j), column in taps.items():
                weight[:, a, b, :, i, j] = deconv.weight.detach()[:, :, row, column].T
        self.weight = nn.Parameter(weight.reshape(4 * c_out, c_in, 2, 2), requires_grad=False)
        self.bias = nn.Parameter(cast(Tensor, deconv.bias).detach().repeat_interleave(4), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, 2H, 2W)."""
        phases = F.conv2d(x, self.weight, self.bias, padding=1)[:, :, 1:, 1:]
        return F.pixel_shuffle(phases, 2)
