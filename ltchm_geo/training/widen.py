"""Start a network with more latent channels where a trained one stands.

The trained channels come first and see nothing of the new ones, so that at the start the wider network codes as well as
the trained one. The new channels begin at random; what reads them begins at zero, and learns.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ltchm_geo.errors import UsageError
from ltchm_geo.nn.attention import IDConv
from ltchm_geo.nn.hyperprior import PARAMETERS, ParameterNetwork
from ltchm_geo.nn.model import LTCHM

__all__ = ["widen_latent"]


@torch.no_grad()
def widen_latent(trained: LTCHM, network: LTCHM) -> None:
    """Give `network` the weights of `trained`, which may have fewer latent channels but must be the same otherwise.

    Raises
    ------
    UsageError
        They differ in more, or `network` has fewer latent channels.
    """
    alike = replace(trained.config, latent_channels=network.config.latent_channels) == network.config
    if not alike or network.config.latent < trained.config.latent:
        raise UsageError(
            f"the recipe's network {network.config.to_dict()} cannot start from {trained.config.to_dict()}: only "
            "latent_channels may differ, and not be fewer"
        )
    parts = _parts(network)
    for (name, new), (_, old) in zip(network.named_modules(), trained.named_modules(), strict=True):
        for key, parameter in new.named_parameters(recurse=False):
            groups = parts.get(name, 1)
            _place(_grouped(old.get_parameter(key), groups), _grouped(parameter, groups), _input_axis(new))
    new_channels = slice(trained.config.latent, network.config.latent)
    _strengthen(network.g_a.down4.weight, new_channels)


def _strengthen(weight: Tensor, new: slice) -> None:
    """As strong as the trained ones: weaker latents would be rounded to zero, and nobody learns to read zeros."""
    if new.start < new.stop:
        weight[new] *= weight[: new.start].std() / weight[new].std()


def _parts(network: LTCHM) -> dict[str, int]:
    """Layers whose outputs are several sets of channels, one behind the other."""
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, IDConv):
            found[f"{name}.expand"] = module.groups
        elif isinstance(module, ParameterNetwork):
            found[f"{name}.layers.{len(module.layers) - 1}"] = PARAMETERS
    return found


def _grouped(parameter: Tensor, groups: int) -> Tensor:
    """(groups, channels, ...), a view."""
    return parameter.view(groups, -1, *parameter.shape[1:]) if groups > 1 else parameter[None]


def _input_axis(layer: nn.Module) -> int | None:
    """The axis of a layer's inputs in its grouped weight, None if it does not mix channels."""
    if isinstance(layer, nn.ConvTranspose2d):
        return 1
    return 2 if isinstance(layer, nn.Conv2d) else None


def _place(old: Tensor, new: Tensor, inputs: int | None) -> None:
    corner = [slice(size) for size in old.shape]
    if inputs is not None and old.ndim > inputs + 1:  # a weight, not a bias: trained outputs see no new inputs
        new[tuple(slice(None) if axis == inputs else part for axis, part in enumerate(corner))] = 0.0
    new[tuple(corner)] = old
