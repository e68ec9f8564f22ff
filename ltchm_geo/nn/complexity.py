"""Parameters and multiply-accumulates of a network, counted on the meta device: nothing is allocated or computed.

What counts as a multiply-accumulate (MAC): each product of a value with a weight, learned or mixed for the input, and
each product inside an attention matrix. That is

- convolutions by output pixels x taps, transposed ones by input pixels x taps (the zeros between inputs cost nothing;
  taps that fall on padding or are cropped at the border do count, as usual);
- GDN's and IGDN's gamma, a 1x1 convolution;
- dynamic depth-wise convolutions (K = 1: one scale per value), and the mixing of their kernels and biases;
- both matrix products of window attention, and the 1x1 parameter network.

Not counted: products of a value with something computed from values (squares, gates, norms, softmax), below 0.1 %, and
the per-quality scales, which fold into weights (`fold_quality`) or touch the latent only. Biases are additions.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ltchm_geo.nn.attention import IDConv
from ltchm_geo.nn.config import ModelConfig
from ltchm_geo.nn.hyperprior import MaskedContext
from ltchm_geo.nn.model import LTCHM

__all__ = ["Complexity", "Cost", "count_complexity", "count_cost"]


@dataclass(frozen=True)
class Cost:
    """Parameters and multiply-accumulates of one part."""

    parameters: int
    macs: int


@dataclass(frozen=True)
class Complexity:
    """Cost of every part of an LTCHM for one image.

    Attributes
    ----------
    g_a, g_s, h_a, h_s, context, parameter_net, prior : Cost
        Parts of `LTCHM`. The context is counted as the dense 5x5 convolution that an encoder or a training step runs.
        The prior costs no MAC: files are coded with its tables.
    context_known_macs : int
        The context counted by the 12 taps that its mask leaves, as a decoder that works latent by latent runs it.
    pixels : int
        Pixels of the image.
    """

    g_a: Cost
    g_s: Cost
    h_a: Cost
    h_s: Cost
    context: Cost
    parameter_net: Cost
    prior: Cost
    context_known_macs: int
    pixels: int

    @property
    def parts(self) -> dict[str, Cost]:
        """The parts by name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Cost)}

    @property
    def parameters(self) -> int:
        """All parameters."""
        return sum(cost.parameters for cost in self.parts.values())

    @property
    def macs(self) -> int:
        """All MACs, each part run once, the context dense."""
        return sum(cost.macs for cost in self.parts.values())

    @property
    def kmacs_per_pixel(self) -> float:
        """All MACs in thousands per pixel."""
        return self.macs / self.pixels / 1000


def count_cost(module: nn.Module, *inputs: Tensor) -> Cost:
    """Cost of one forward pass of `module` on `inputs`, best all on the meta device.

    Every MAC outside of `IDConv`'s own products is in a convolution or matrix product, which PyTorch's counter sees.
    """
    dynamic = 0

    def add(conv: IDConv, arguments: tuple[Any, ...], _output: Tensor) -> None:
        nonlocal dynamic
        b, c, h, w = arguments[0].shape
        mixing = conv.groups * c * (conv.kernel**2 + 1)
        dynamic += b * (mixing + (c * h * w if conv.kernel == 1 else 0))

    hooks = [m.register_forward_hook(add) for m in module.modules() if isinstance(m, IDConv)]
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return Cost(_parameters(module), counter.get_total_flops() // 2 + dynamic)


def count_complexity(config: ModelConfig, height: int = 256, width: int = 256) -> Complexity:
    """Complexity of the network that `config` describes, for one image of 3 x `height` x `width` (multiples of 64)."""
    n = config.channels
    with torch.device("meta"):
        model = LTCHM(config)
        quality = torch.zeros(1)
        x = torch.zeros(1, 3, height, width)
        y = torch.zeros(1, config.latent, height // 16, width // 16)
        z = torch.zeros(1, n, height // 64, width // 64)
        features = torch.zeros(1, 2 * n, height // 16, width // 16)
        context = count_cost(model.context, y, quality)
        return Complexity(
            g_a=count_cost(model.g_a, x, quality),
            g_s=count_cost(model.g_s, y, quality),
            h_a=count_cost(model.h_a, y, quality),
            h_s=count_cost(model.h_s, z, quality),
            context=context,
            parameter_net=count_cost(model.parameter_net, features, features),
            prior=Cost(_parameters(model.prior), 0),
            context_known_macs=context.macs * MaskedContext.KNOWN // MaskedContext.SIZE**2,
            pixels=height * width,
        )


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
