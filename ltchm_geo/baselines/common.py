"""What the baselines share: a gain at the latent that makes them variable-rate, and the training forward pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields
from typing import Any, TypeVar

from torch import Tensor, nn

from ltchm_geo.errors import UsageError
from ltchm_geo.nn.layers import QualityScale
from ltchm_geo.nn.likelihood import FactorisedPrior
from ltchm_geo.nn.model import Estimate, autocast, bits_per_image, for_rate, round_through

__all__ = ["Baseline", "parse_options"]

Options = TypeVar("Options")


def parse_options(kind: type[Options], options: dict[str, Any]) -> Options:
    """The dataclass `kind` with these values; unknown keys are an error."""
    unknown = set(options) - {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if unknown:
        raise UsageError(f"unknown options {sorted(unknown)} of the architecture ({kind.__name__})")
    return kind(**options)


class Baseline(nn.Module, ABC):
    """A hyperprior codec with a learned gain per quality at y and its inverse before g_s.

    ::

        x -> g_a -> gain -> y -> code_latent -> y_hat -> inverse_gain -> g_s -> x_hat
                            |         |
                           h_a -> z_hat

    Subclasses set `g_a`, `g_s` and `h_a` (each a module of one input) and say how y is coded given z.

    Parameters
    ----------
    latent_channels, hyper_channels : int
        Channels of y and of z.
    """

    g_a: nn.Module
    g_s: nn.Module
    h_a: nn.Module

    def __init__(self, latent_channels: int, hyper_channels: int):
        super().__init__()
        self.gain = QualityScale(latent_channels, exponent=0.45)
        self.inverse_gain = QualityScale(latent_channels, exponent=-0.45)
        self.prior = FactorisedPrior(hyper_channels)

    @abstractmethod
    def code_latent(self, y: Tensor, z_hat: Tensor) -> tuple[Tensor, Tensor]:
        """Quantised latent, as g_s gets it, and the likelihood of every y, both (B, M, H/16, W/16)."""

    def forward(self, x: Tensor, quality: Tensor, *, mixed_precision: bool = False) -> Estimate:
        """Estimate rate and reconstruction, with arguments and conventions of `LTCHM.forward`."""
        with autocast(x, mixed_precision):
            y = self.gain(self.g_a(x - 0.5), quality).float()
        z = self.h_a(y)
        z_hat = round_through(z)
        y_hat, likelihood = self.code_latent(y, z_hat)
        bits_y, bits_z = bits_per_image(likelihood), bits_per_image(self.prior(for_rate(z, z_hat, self.training)))
        with autocast(x, mixed_precision):
            x_hat = self.g_s(self.inverse_gain(y_hat, quality)).float() + 0.5
        return Estimate(x_hat, bits_y, bits_z)
