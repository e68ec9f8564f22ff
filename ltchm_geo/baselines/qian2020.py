"""Qian et al., "Learning Accurate Entropy Model with Global Reference for Image Compression", ICLR 2021.

Each latent is coded under three Gaussians, mixed: one from the 5x5 context, one from context and *global reference*
(the most similar place among all decoded ones, found by comparing 3x3 contexts), one from both and the hyper prior.
How similar the place is, and how well the context predicted it there, weigh the second. GSDN in the autoencoder.

Simplified against the authors' code: the search is causal in training too, where theirs also looks ahead; features are
not masked at random; z has a factorised prior; GSDN's subtracted term is a free 1x1 convolution.

At 3x256x256 and 192/384/192 channels: 20.65 GMAC and 36.01 M parameters. The published code has 21.56 GMAC, as it runs
the 1x1 network of the context twice (0.91 G), and 35.99 M. Tab. 6 of the LTCHM paper prints 32.10 and 25.52 by `thop`,
which takes transposed convolutions four times and sees neither GSDN, masked convolutions nor the search.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltchm_geo.baselines.balle import analysis, conv5x5, deconv5x5, synthesis
from ltchm_geo.baselines.common import Baseline, parse_options
from ltchm_geo.nn.config import MIXTURES
from ltchm_geo.nn.hyperprior import MaskedConv
from ltchm_geo.nn.layers import GDN, conv1x1, conv3x3
from ltchm_geo.nn.likelihood import gaussian_likelihood, mixture_likelihood
from ltchm_geo.nn.model import for_rate, round_through

__all__ = ["GlobalReference", "Qian2020"]

#: Least similarity and likelihood, so that their logarithms stay finite.
_LEAST = 1e-8


def _act() -> nn.Module:
    return nn.LeakyReLU(0.2)


class GSDN(GDN):
    """Generalised subtractive and divisive normalisation: GDN of x with a linear mix of the channels taken off."""

    def __init__(self, channels: int, *, inverse: bool = False):
        super().__init__(channels, inverse=inverse)
        self.shift = conv1x1(channels, channels)
        with torch.no_grad():
            self.shift.weight.copy_(0.1 * torch.eye(channels)[:, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (B, C, H, W)."""
        beta, gamma = self.coefficients()
        norm = F.conv2d(x * x, gamma.to(x.dtype)[:, :, None, None], beta.to(x.dtype))
        shift = cast(Tensor, self.shift(x))
        return x * torch.sqrt(norm) + shift if self.inverse else (x - shift) * torch.rsqrt(norm)


class GlobalReference(nn.Module):
    """Features of the most similar earlier place, how similar it is, and a value kept there."""

    KERNEL = 3
    known: Tensor
    before: Tensor

    def __init__(self, channels: int):
        super().__init__()
        taps = torch.arange(self.KERNEL**2)
        self.register_buffer("before", (taps < self.KERNEL**2 // 2).float()[:, None], persistent=False)
        self.register_buffer("known", (taps <= self.KERNEL**2 // 2).float()[:, None], persistent=False)
        self.read = conv1x1(channels * self.KERNEL**2, 2 * channels)

    def forward(self, y_hat: Tensor, likelihood: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Look up every place's reference.

        Parameters
        ----------
        y_hat : (B, M, H, W)
            Quantised latents.
        likelihood : (B, M, H, W)
            How well the context predicted each of them.

        Returns
        -------
        Features (B, 2M, H, W) of the reference, its similarity and its mean likelihood (both (B, 1, H, W)).
        """
        b, c, h, w = y_hat.shape
        patches = F.unfold(y_hat, self.KERNEL, padding=self.KERNEL // 2).reshape(b, c, self.KERNEL**2, h * w)
        with torch.no_grad():
            similarity, place = self._search(patches)
            found = (place < torch.arange(h * w, device=y_hat.device)).float()[:, None]
            confidence = likelihood.mean(dim=1).flatten(1).gather(1, place)[:, None] * found
        reference = (patches * self.known).flatten(1, 2)
        reference = reference.gather(2, place[:, None].expand_as(reference)) * found
        features = cast(Tensor, self.read(reference.reshape(b, -1, h, w)))
        similarity = (similarity[:, None] * found).clamp(_LEAST, 1)
        return features, similarity.reshape(b, 1, h, w), confidence.clamp(_LEAST, 1).reshape(b, 1, h, w)

    def _search(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine similarity (B, places) of the contexts, and the place; the first of all finds itself, at -2."""
        contexts = F.normalize((patches * self.before).flatten(1, 2), dim=1)
        similarity = contexts.transpose(1, 2) @ contexts
        places = similarity.shape[1]
        earlier = torch.ones(places, places, dtype=torch.bool, device=patches.device).triu(1)
        best, place = similarity.masked_fill(~earlier, -2.0).max(dim=1)
        return best, place


@dataclass(frozen=True)
class Qian2020Options:
    """Channels of the autoencoder, of y and of z."""

    channels: int = 192
    latent: int = 384
    hyper: int = 192


class Qian2020(Baseline):
    """Context, global reference and hyper prior."""

    def __init__(self, options: dict[str, Any]):
        size = parse_options(Qian2020Options, options)
        n, m, z = size.channels, size.latent, size.hyper
        super().__init__(m, z)
        self.g_a, self.g_s = analysis(n, m, GSDN), synthesis(n, m, GSDN)
        self.h_a = nn.Sequential(conv3x3(m, n), _act(), conv5x5(n, n), _act(), conv5x5(n, z))
        up = (deconv5x5(z, n), _act(), deconv5x5(n, n), _act())
        self.h_s = nn.Sequential(*up, conv3x3(n, n), _act(), conv1x1(n, 2 * m))
        self.context, self.reference = MaskedConv(m, 2 * m), GlobalReference(m)
        self.experts = nn.ModuleList(self._expert(2 * m * sources, m) for sources in (1, 2, 3))

    @staticmethod
    def _expert(c_in: int, latent: int) -> nn.Sequential:
        width = 3 * latent
        return nn.Sequential(*(conv1x1(c_in, width), _act(), conv1x1(width, width), _act(), conv1x1(width, 3 * latent)))

    def code_latent(self, y: Tensor, z_hat: Tensor) -> tuple[Tensor, Tensor]:
        """Likelihood given the hyper prior and the rounded latents before."""
        y_hat = round_through(y)
        local = self.context(y_hat)
        first = self.experts[0](local)
        _, mean, log_sigma = first.detach().chunk(3, dim=1)
        reference, similarity, confidence = self.reference(y_hat, gaussian_likelihood(y_hat.detach(), mean, log_sigma))
        second = self.experts[1](torch.cat([local, reference], dim=1))
        third = self.experts[2](torch.cat([local, reference, self.h_s(z_hat)], dim=1))
        logits, *others = second.chunk(3, dim=1)
        second = torch.cat([logits + similarity.log() + confidence.log(), *others], dim=1)
        b, m, h, w = y.shape
        parameters = torch.stack([p.reshape(b, 3, m, h, w) for p in (first, second, third)], dim=2)
        parameters = parameters.reshape(b, 3 * MIXTURES * m, h, w)
        return y_hat, mixture_likelihood(for_rate(y, y_hat, self.training), parameters)
