"""Differentiable rates for training: Gaussian mixture for y (Eq. 1-2), factorised prior for z (Eq. 4).

Coding does not use this module: files are coded with the integer tables of `entropy`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltchm_geo.nn.config import MIXTURES
from ltchm_geo.nn.layers import lower_bound

#: Range of log2(sigma); the lower end is the usual bound of 0.11, the upper one covers any 16-bit scene.
LOG2_SIGMA_MIN, LOG2_SIGMA_MAX = -3.25, 9.0
_LIKELIHOOD_BOUND = 1e-9


def _phi(x: Tensor) -> Tensor:
    # erfc keeps its relative precision in the lower tail, where 0.5 + 0.5 erf cancels.
    return 0.5 * torch.erfc(x * -(2.0**-0.5))


def mixture_likelihood(y: Tensor, parameters: Tensor) -> Tensor:
    """Probability that each y rounds where it does, under its Gaussian mixture (Eq. 2).

    Parameters
    ----------
    y : (B, N, H, W)
        Latents, integers or with uniform noise.
    parameters : (B, 9N, H, W)
        Output of `ParameterNetwork`.

    Returns
    -------
    (B, N, H, W) likelihoods in [1e-9, 1].
    """
    b, n, h, w = y.shape
    logits, means, log_sigmas = parameters.float().reshape(b, 3, MIXTURES, n, h, w).unbind(1)
    mass = _gaussian_mass(y.float()[:, None], means, log_sigmas)
    return lower_bound((torch.softmax(logits, dim=1) * mass).sum(dim=1), _LIKELIHOOD_BOUND)


def gaussian_likelihood(y: Tensor, means: Tensor, log_sigmas: Tensor) -> Tensor:
    """Probability that each y rounds where it does under one Gaussian; `log_sigmas` are log2. All shapes alike."""
    return lower_bound(_gaussian_mass(y.float(), means.float(), log_sigmas.float()), _LIKELIHOOD_BOUND)


def _gaussian_mass(y: Tensor, means: Tensor, log_sigmas: Tensor) -> Tensor:
    sigmas = torch.exp2(_soft_clamp(log_sigmas))
    # Evaluate both ends on the side of the mean where the CDF is small: no cancellation.
    distance = (y - means).abs()
    return _phi((0.5 - distance) / sigmas) - _phi((-0.5 - distance) / sigmas)


def _soft_clamp(log_sigmas: Tensor) -> Tensor:
    return -lower_bound(-lower_bound(log_sigmas, LOG2_SIGMA_MIN), -LOG2_SIGMA_MAX)


class FactorisedPrior(nn.Module):
    """Learned univariate density per channel of z (Balle et al., ICLR 2018, appendix 6.1).

    The cumulative is a small monotone network per channel: matrices through softplus, gated tanh between.
    The parametrisation is CompressAI's `EntropyBottleneck`, so that one can be checked against the other.
    """

    def __init__(self, channels: int, filters: tuple[int, ...] = (3, 3, 3, 3), init_scale: float = 10.0):
        super().__init__()
        sizes = (1, *filters, 1)
        scale = init_scale ** (1 / (len(filters) + 1))
        self.matrices, self.biases, self.factors = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for i in range(len(filters) + 1):
            start = torch.log(torch.expm1(torch.tensor(1 / scale / sizes[i + 1])))
            self.matrices.append(nn.Parameter(start.expand(channels, sizes[i + 1], sizes[i]).clone()))
            self.biases.append(nn.Parameter(torch.empty(channels, sizes[i + 1], 1).uniform_(-0.5, 0.5)))
            if i < len(filters):
                self.factors.append(nn.Parameter(torch.zeros(channels, sizes[i + 1], 1)))

    def logits_cumulative(self, values: Tensor) -> Tensor:
        """Logit of the cumulative at `values` (N, 1, points)."""
        x = values
        for i, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            x = F.softplus(matrix) @ x + bias
            if i < len(self.factors):
                x = x + torch.tanh(self.factors[i]) * torch.tanh(x)
        return x

    def forward(self, z: Tensor) -> Tensor:
        """Likelihood of every z (B, N, h, w), in [1e-9, 1]."""
        b, n, h, w = z.shape
        values = z.float().transpose(0, 1).reshape(n, 1, -1)
        lower, upper = self.logits_cumulative(values - 0.5), self.logits_cumulative(values + 0.5)
        # Work on the tail side, where the sigmoid has precision.
        sign = -torch.sign(lower + upper).detach()
        mass = (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()
        return lower_bound(mass, _LIKELIHOOD_BOUND).reshape(n, b, h, w).transpose(0, 1)
