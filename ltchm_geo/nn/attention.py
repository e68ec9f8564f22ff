"""The paper's attention modules: DAM (Sec. 2.2), GCA (2.3), MSB-FFN (2.4) and HPHAM (2.5)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltchm_geo.nn.layers import conv1x1, full_precision, leaky_relu


class IDConv(nn.Module):
    """Input-dependent depth-wise convolution (Eq. 5, Fig. 2a).

    Pooled to K x K, two 1x1 convolutions give G softmax weights per channel and kernel position; they mix G learned
    kernels into one depth-wise kernel per image and channel. A bias is mixed likewise from the global mean.
    """

    def __init__(self, channels: int, kernel: int, *, reduction: int = 4, groups: int = 2):
        super().__init__()
        self.channels, self.kernel, self.groups = channels, kernel, groups
        self.squeeze = conv1x1(channels, channels // reduction)
        self.expand = conv1x1(channels // reduction, groups * channels)
        self.weight = nn.Parameter(torch.randn(groups, channels, kernel, kernel) * 0.02)
        with torch.no_grad():  # start near the identity
            self.weight[:, :, kernel // 2, kernel // 2] += 1.0
        self.bias = nn.Parameter(torch.zeros(groups, channels))

    def _mixing(self, pooled: Tensor) -> Tensor:
        logits = self.expand(F.gelu(self.squeeze(pooled)))
        b, _, h, w = logits.shape
        return torch.softmax(logits.reshape(b, self.groups, self.channels, h, w), dim=1)

    def kernels(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mixed kernels D (B, C, K, K) and biases (B, C) for the input `x` (B, C, H, W)."""
        mixing = self._mixing(F.adaptive_avg_pool2d(x, 1))
        biases = (mixing[..., 0, 0] * self.bias).sum(dim=1)
        if self.kernel > 1:
            mixing = self._mixing(F.adaptive_avg_pool2d(x, self.kernel))
        return (mixing * self.weight).sum(dim=1), biases

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> same shape. A 1x1 depth-wise kernel is a scale and shift per channel, and is run as one."""
        kernels, biases = self.kernels(x)
        if self.kernel == 1:
            return torch.addcmul(biases.to(x.dtype)[:, :, None, None], x, kernels.to(x.dtype))
        if x.is_cuda:
            return self._all_images(x, kernels, biases)
        # One depth-wise convolution per image: several times faster than groups = B * C on CPUs.
        pairs = zip(x.split(1), kernels, biases, strict=True)
        done = [self._depthwise(image, kernel, bias) for image, kernel, bias in pairs]
        return torch.cat(done) if len(done) > 1 else done[0]  # of one, it would be a copy

    def _all_images(self, x: Tensor, kernels: Tensor, biases: Tensor) -> Tensor:
        """All images as the channels of one: a single kernel on a GPU."""
        weight, bias = kernels.to(x.dtype).flatten(0, 1)[:, None], biases.to(x.dtype).flatten()
        out = F.conv2d(x.reshape(1, -1, *x.shape[2:]), weight, bias, padding=self.kernel // 2, groups=len(weight))
        return out.reshape(x.shape)

    def _depthwise(self, image: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        kernel, bias = kernel.to(image.dtype)[:, None], bias.to(image.dtype)
        return F.conv2d(image, kernel, bias, padding=self.kernel // 2, groups=self.channels)


class DynamicResidualBlock(nn.Module):
    """IDConv with K = 1, 3, 1 beside the identity."""

    def __init__(self, channels: int, *, reduction: int, groups: int):
        super().__init__()
        self.convs = nn.ModuleList(IDConv(channels, kernel, reduction=reduction, groups=groups) for kernel in (1, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> same shape."""
        first, second, third = self.convs
        return leaky_relu(third(leaky_relu(second(leaky_relu(first(x))))).add_(x))


class DAM(nn.Module):
    """Dynamic attention module (Fig. 2b): x + trunk(x) * sigmoid(mask(x)), three dynamic blocks in each branch.

    With `gain`, what is added is multiplied by a learned gain per channel that starts at zero.
    """

    def __init__(self, channels: int, *, reduction: int = 4, groups: int = 2, gain: bool = False):
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(channels, 1, 1)) if gain else None

        def branch() -> list[nn.Module]:
            return [DynamicResidualBlock(channels, reduction=reduction, groups=groups) for _ in range(3)]

        self.trunk = nn.Sequential(*branch())
        self.mask = nn.Sequential(*branch(), conv1x1(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> same shape. It pools over the whole tile, so the tile is the model's atomic unit."""
        with full_precision(x):
            added = self.trunk(x) * torch.sigmoid(self.mask(x))
            return x + (added if self.gain is None else added * self.gain)


class GCA(nn.Module):
    """Gated channel attention (Fig. 3): the pooled vector in four parts, a gated 1x1 convolution each, rejoined.

    The gate of a part is a sigmoid of its own 1x1 convolution, computed beside the value by one layer of twice the
    width. The rejoined vector multiplies the input channel by channel.
    """

    PARTS = 4

    def __init__(self, channels: int):
        super().__init__()
        part = channels // self.PARTS
        self.branches = nn.ModuleList(conv1x1(part, 2 * part) for _ in range(self.PARTS))
        self.merge = conv1x1(channels, channels)
        nn.init.ones_(cast(Tensor, self.merge.bias))  # start as the identity

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> same shape."""
        parts = x.mean(dim=(2, 3), keepdim=True).chunk(self.PARTS, dim=1)
        gated = [F.glu(branch(part), dim=1) for branch, part in zip(self.branches, parts, strict=True)]
        return x * self.merge(torch.cat(gated, dim=1))


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows, optionally shifted by half a window (W-MSA and SW-MSA).

    Relative position bias and shift mask as in the Swin transformer. Where the map is no larger than a window
    (128-pixel training crops), the shift is dropped: there is nothing beyond the window to exchange with.
    """

    def __init__(self, channels: int, *, head_dim: int, window: int, shifted: bool):
        super().__init__()
        self.heads, self.head_dim = channels // head_dim, head_dim
        self.window, self.shifted = window, shifted
        self.qkv = conv1x1(channels, 3 * channels)
        self.project = conv1x1(channels, channels)
        self.position_bias = nn.Parameter(torch.zeros(self.heads, (2 * window - 1) ** 2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> same shape; H and W are multiples of the window."""
        height, width = x.shape[-2:]
        shift = self.window // 2 if self.shifted and min(height, width) > self.window else 0
        qkv = torch.roll(self.qkv(x), (-shift, -shift), dims=(2, 3)) if shift else self.qkv(x)
        q, k, v = to_windows(qkv, self.window, self.head_dim).unflatten(2, (3, self.heads)).unbind(2)
        scores = q @ k.transpose(-1, -2) * self.head_dim**-0.5 + self.bias_matrix()
        if shift:
            mask = shift_mask(height, width, self.window, x.device)
            scores = scores.masked_fill(mask[:, None], float("-inf"))
        mixed = from_windows(torch.softmax(scores.float(), dim=-1).to(v.dtype) @ v, height, width)
        if shift:
            mixed = torch.roll(mixed, (shift, shift), dims=(2, 3))
        return cast(Tensor, self.project(mixed))

    def bias_matrix(self) -> Tensor:
        """Position bias (heads, window^2, window^2) spread from its table of relative offsets."""
        return self.position_bias[:, relative_positions(self.window, self.position_bias.device)]


def to_windows(x: Tensor, window: int, head_dim: int) -> Tensor:
    """(B, heads * head_dim, H, W) -> (B, windows, heads, window^2, head_dim)."""
    b, c, h, w = x.shape
    x = x.reshape(b, c // head_dim, head_dim, h // window, window, w // window, window)
    return x.permute(0, 3, 5, 1, 4, 6, 2).reshape(b, -1, c // head_dim, window * window, head_dim)


def from_windows(x: Tensor, height: int, width: int) -> Tensor:
    """Inverse of `to_windows`."""
    b, _, heads, area, head_dim = x.shape
    window = round(area**0.5)
    x = x.reshape(b, height // window, width // window, heads, window, window, head_dim)
    return x.permute(0, 3, 6, 1, 4, 2, 5).reshape(b, heads * head_dim, height, width)


def relative_positions(window: int, device: torch.device) -> Tensor:
    """Index (window^2, window^2) into a table of (2 window - 1)^2 relative offsets."""
    axis = torch.arange(window, device=device)
    y, x = (g.reshape(-1) for g in torch.meshgrid(axis, axis, indexing="ij"))
    dy = y[:, None] - y[None] + window - 1
    dx = x[:, None] - x[None] + window - 1
    return dy * (2 * window - 1) + dx


def shift_mask(height: int, width: int, window: int, device: torch.device) -> Tensor:
    """True where two pixels of a shifted window are not neighbours in the map: (windows, window^2, window^2)."""

    def band(size: int) -> Tensor:
        positions = torch.arange(size, device=device)
        return (positions >= size - window).long() + (positions >= size - window // 2).long()

    regions = (band(height)[:, None] * 3 + band(width)[None]).reshape(1, 1, height, width)
    flat = to_windows(regions, window, 1).reshape(-1, window * window)
    return flat[:, :, None] != flat[:, None, :]


class MSBFFN(nn.Module):
    """Multi-scale multi-branch feed-forward network (Fig. 4).

    After a 1x1 convolution to 4 C, four groups pass depth-wise convolutions of size 1, 3, 5 and 7; half of each result
    joins the next group's input, half the output. A 1x1 convolution returns to C.
    """

    KERNELS = (1, 3, 5, 7)

    def __init__(self, channels: int, expansion: int = 4):
        super().__init__()
        group = channels * expansion // len(self.KERNELS)
        self.expand = conv1x1(channels, channels * expansion)
        self.group = group
        self.depthwise = nn.ModuleList()
        carried = 0
        for kernel in self.KERNELS:
            width = group + carried
            self.depthwise.append(nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width))
            carried = width // 2
        self.reduce = conv1x1(channels * expansion, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> same shape."""
        groups = leaky_relu(self.expand(x)).split(self.group, dim=1)
        kept, carried = [], None
        for i, (conv, group) in enumerate(zip(self.depthwise, groups, strict=True)):
            out = conv(group if carried is None else torch.cat([group, carried], dim=1))
            if i + 1 < len(groups):
                keep = out.shape[1] - out.shape[1] // 2
                out, carried = out[:, :keep], out[:, keep:]
            kept.append(out)
        return cast(Tensor, self.reduce(leaky_relu(torch.cat(kept, dim=1))))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every pixel's channel vector."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class HybridStage(nn.Module):
    """One of HPHAM's two stages (Eq. 6): window attention beside channel attention, then MSB-FFN."""

    def __init__(self, channels: int, *, head_dim: int, window: int, shifted: bool):
        super().__init__()
        half = channels // 2
        self.norm1 = ChannelNorm(channels)
        self.split = conv1x1(channels, channels)
        self.channel = GCA(half)
        self.attention = WindowAttention(half, head_dim=head_dim, window=window, shifted=shifted)
        self.join = conv1x1(channels, channels)
        self.norm2 = ChannelNorm(channels)
        self.ffn = MSBFFN(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2C, H, W) -> same shape."""
        x_cha, x_trans = self.split(self.norm1(x)).chunk(2, dim=1)
        mid = self.join(torch.cat([self.channel(x_cha), self.attention(x_trans)], dim=1)) + x
        return cast(Tensor, self.ffn(self.norm2(mid)) + mid)


class HPHAM(nn.Sequential):
    """Hyper-prior hybrid attention model (Fig. 5): a W-MSA stage, then an SW-MSA stage."""

    def __init__(self, channels: int, *, head_dim: int = 32, window: int = 4):
        super().__init__(*(HybridStage(channels, head_dim=head_dim, window=window, shifted=s) for s in (False, True)))
