"""Channel-wise entropy model with latent residual prediction (Minnen & Singh, ICIP 2020), as TCM and SegPIC use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ltchm_geo.nn.layers import conv3x3
from ltchm_geo.nn.likelihood import gaussian_likelihood
from ltchm_geo.nn.model import for_rate, round_through

__all__ = ["ChannelwiseModel"]


class ChannelwiseModel(nn.Module):
    """Slices of y, each coded under Gaussians that the hyper prior and the first decoded slices give.

    A slice is rounded about its mean; then the rounding error is guessed from what is known, within +-0.5.

    Parameters
    ----------
    channels : int
        Channels of y and of both hyper features.
    slices, support : int
        Number of slices; a slice sees at most the first `support` ones.
    widths : sequence of int
        Widths between the 3x3 convolutions.
    attention : callable or None
        Builds a module of so many channels that stands before the networks of mean and scale.
    """

    def __init__(
        self,
        channels: int,
        *,
        slices: int,
        widths: Sequence[int],
        support: int = 5,
        attention: Callable[[int], nn.Module] | None = None,
    ):
        super().__init__()
        self.slices, self.support = slices, support
        step = channels // slices
        known = [channels + step * min(i, support) for i in range(slices)]
        before = attention or (lambda _channels: nn.Identity())
        self.mean_attention = nn.ModuleList(before(c) for c in known)
        self.scale_attention = nn.ModuleList(before(c) for c in known)
        self.means = nn.ModuleList(_stack([c, *widths, step]) for c in known)
        self.scales = nn.ModuleList(_stack([c, *widths, step]) for c in known)
        self.residuals = nn.ModuleList(_stack([c + step, *widths, step]) for c in known)

    def forward(self, y: Tensor, mean_features: Tensor, scale_features: Tensor) -> tuple[Tensor, Tensor]:
        """Quantised y, with the guessed errors, and the likelihood of every y; all (B, C, H, W)."""
        decoded: list[Tensor] = []
        likelihoods = []
        for i, part in enumerate(y.chunk(self.slices, dim=1)):
            support = decoded[: self.support]
            seen = self.mean_attention[i](torch.cat([mean_features, *support], dim=1))
            mean = self.means[i](seen)
            log_sigma = self.scales[i](self.scale_attention[i](torch.cat([scale_features, *support], dim=1)))
            rounded = round_through(part - mean) + mean
            likelihoods.append(gaussian_likelihood(for_rate(part, rounded, self.training), mean, log_sigma))
            decoded.append(rounded + 0.5 * torch.tanh(self.residuals[i](torch.cat([seen, rounded], dim=1))))
        return torch.cat(decoded, dim=1), torch.cat(likelihoods, dim=1)


def _stack(widths: Sequence[int]) -> nn.Sequential:
    """3x3 convolutions through these widths with GELU between."""
    layers: list[nn.Module] = []
    for c_in, c_out in pairwise(widths):
        layers += [conv3x3(c_in, c_out), nn.GELU()]
    return nn.Sequential(*layers[:-1])
