"""LTCHM as a whole: `forward` for training, `analyse` and `synthesise` for coding."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ltchm_geo.nn.config import ModelConfig
from ltchm_geo.nn.hyperprior import HyperAnalysis, HyperSynthesis, MaskedContext, ParameterNetwork
from ltchm_geo.nn.likelihood import FactorisedPrior, mixture_likelihood
from ltchm_geo.nn.transforms import Analysis, Synthesis


class Estimate(NamedTuple):
    """What a training step needs: reconstruction (B, 3, H, W) and estimated bits per image (B,)."""

    x_hat: Tensor
    bits_y: Tensor
    bits_z: Tensor


def round_through(x: Tensor) -> Tensor:
    """Round half to even; the gradient passes as if nothing had happened."""
    return x + (torch.round(x) - x).detach()


class LTCHM(nn.Module):
    """Low-complexity Transformer-CNN Hybrid Model (Zhang et al., Radioengineering 33(4), 2024), variable rate.

    ::

        x -> g_a -> y -> round -> y_hat ---------------------> g_s -> x_hat
                    |               |
                   h_a            context --+
                    |                       +--> parameters -> mixture of y_hat
                    z -> round -> h_s ------+

    `quality` is a position in [0, 7]: log2(lambda / 128).
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.g_a, self.g_s = Analysis(config), Synthesis(config)
        self.h_a, self.h_s = HyperAnalysis(config), HyperSynthesis(config)
        self.context, self.parameter_net = MaskedContext(config), ParameterNetwork(config)
        self.prior = FactorisedPrior(config.channels)

    def forward(
        self,
        x: Tensor,
        quality: Tensor,
        *,
        mixed_precision: bool = False,
        free_from: int | None = None,
        ramp: float = 0.0,
    ) -> Estimate:
        """Estimate rate and reconstruction.

        In training mode rates are taken under uniform noise (Sec. 2.1) or, of y, along a ramp; in evaluation mode of
        the integers; so are, in training, those of latents whose transform is not trained. Everything downstream of y
        and z sees rounded values with a straight-through gradient, so g_s and the context never meet inputs they will
        not meet in a file.

        Parameters
        ----------
        x : (B, 3, H, W) float32
            Pixels, nominally in [0, 1]; H and W multiples of 128, which fill whole attention windows at H/32 x W/32.
        quality : (B,) float32
            Positions in [0, 7].
        mixed_precision : bool
            Run in bfloat16 what runs in it in use; rates stay in float32.
        free_from : int
            What latent channels from this one on cost is not charged to g_a.
        ramp : float
            Charge y in training as `ramped_bits` does, with this width; 0 for uniform noise.
        """
        with autocast(x, mixed_precision):
            y = self.g_a(x, quality).float()
        z = self.h_a(y, quality)
        y_hat, z_hat = round_through(y), round_through(z)
        parameters = self.parameters_of(y_hat, z_hat, quality)
        charged = y if free_from is None else torch.cat([y[:, :free_from], y[:, free_from:].detach()], dim=1)
        if ramp and self.training and charged.requires_grad:
            bits_y = ramped_bits(charged, parameters, ramp)
        else:
            bits_y = bits_per_image(mixture_likelihood(for_rate(charged, y_hat, self.training), parameters))
        bits_z = bits_per_image(self.prior(for_rate(z, z_hat, self.training)))
        with autocast(x, mixed_precision):
            x_hat = self.g_s(y_hat, quality).float()
        return Estimate(x_hat, bits_y, bits_z)

    def parameters_of(self, y_hat: Tensor, z_hat: Tensor, quality: Tensor) -> Tensor:
        """Mixture parameters (B, 9M, H/16, W/16) of integer latents: the float form of the exact path."""
        out: Tensor = self.parameter_net(self.h_s(z_hat, quality), self.context(y_hat, quality))
        return out

    def analyse(self, x: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Integer latents y (B, M, H/16, W/16) and z (B, N, H/64, W/64), int32."""
        y = self.g_a(x, quality)
        z = self.h_a(y, quality)
        return torch.round(y).int(), torch.round(z).int()

    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) from integer latents y."""
        out: Tensor = self.g_s(y_hat.float(), quality)
        return out


def autocast(x: Tensor, enabled: bool) -> AbstractContextManager[object]:
    """Bfloat16 on the device of `x` where `enabled`; else nothing, which also suits the meta device."""
    return torch.autocast(x.device.type, torch.bfloat16) if enabled else nullcontext()


def for_rate(x: Tensor, x_hat: Tensor, training: bool) -> Tensor:
    """What a rate is taken of: `x` under uniform noise of one step where it is trained, else the coded `x_hat`."""
    return x + torch.empty_like(x).uniform_(-0.5, 0.5) if training and x.requires_grad else x_hat


def ramped_bits(y: Tensor, parameters: Tensor, width: float) -> Tensor:
    """Bits (B,) of what latents y (B, M, H, W) round to; near where they round otherwise, a straight line between both.

    The line is `width` of a step long. Noise charges every latent for a neighbourhood of one step, so that those which
    files code for next to nothing cost a fifth of all bits (docs/decisions/0017-ramp.md); here they cost next to
    nothing.
    """
    lower = torch.floor(y.detach())
    share = ((y - lower - 0.5) / width + 0.5).clamp(0, 1)
    below, above = (-torch.log2(mixture_likelihood(value, parameters)) for value in (lower, lower + 1))
    return torch.lerp(below, above, share).flatten(1).sum(1)


def bits_per_image(likelihood: Tensor) -> Tensor:
    """Bits (B,) of all likelihoods (B, ...) of an image together."""
    return -torch.log2(likelihood).flatten(1).sum(1)
