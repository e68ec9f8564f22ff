"""Start a network with more channels or wider skips where a trained one stands: at first, the same function.

The trained channels come first and see nothing of the new ones. The new channels begin at random; what reads them
begins at zero, and learns. A 2x2 skip begins as the 1x1 skip that it replaces.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ltchm_geo.errors import UsageError
from ltchm_geo.nn.attention import IDConv
from ltchm_geo.nn.hyperprior import PARAMETERS, ParameterNetwork
from ltchm_geo.nn.layers import input_axis
from ltchm_geo.nn.model import LTCHM

__all__ = ["grouped", "widen"]


@torch.no_grad()
def widen(trained: LTCHM, network: LTCHM) -> None:
    """Give `network` the weights of `trained`, which may have fewer channels in y or at 1/8, or 1x1 skips for 2x2.

    Raises
    ------
    UsageError
        They differ in more, or `network` is the narrower one.
    """
    wanted, held = network.config, trained.config
    free = {name: getattr(wanted, name) for name in ("latent_channels", "deep_channels", "skip")}
    fewer = wanted.latent < held.latent or wanted.deep < held.deep
    if replace(held, **free) != wanted or fewer or wanted.skip < held.skip:
        raise UsageError(
            f"the recipe's network {wanted.to_dict()} cannot start from {held.to_dict()}: "
            "only latent_channels, deep_channels and skip may differ, and not be less"
        )
    parts = _parts(network)
    for (name, new), (_, old) in zip(network.named_modules(), trained.named_modules(), strict=True):
        for key, parameter in new.named_parameters(recurse=False):
            groups, trained_parameter = parts.get(name, 1), old.get_parameter(key)
            if name.endswith(".skip") and key == "weight" and wanted.skip != held.skip:
                trained_parameter = _as_2x2(trained_parameter, transposed=isinstance(new, nn.ConvTranspose2d))
            _place(grouped(trained_parameter, groups), grouped(parameter, groups), _input_axis(new))
    new_channels = slice(held.latent, wanted.latent)
    _strengthen(network.g_a.down4.weight, new_channels)


def _as_2x2(weight: Tensor, *, transposed: bool) -> Tensor:
    """A 1x1 skip (out, in, 1, 1) as a 2x2 one: it reads the first of four pixels, or holds its value over them."""
    if transposed:
        return weight.transpose(0, 1).expand(-1, -1, 2, 2)
    return torch.nn.functional.pad(weight, (0, 1, 0, 1))


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


def grouped(parameter: Tensor, groups: int) -> Tensor:
    """(groups, channels, ...), a view."""
    return parameter.view(groups, -1, *parameter.shape[1:]) if groups > 1 else parameter[None]


def _input_axis(layer: nn.Module) -> int | None:
    """The axis of a layer's inputs in its grouped weight, None if it does not mix channels."""
    return 1 + input_axis(layer) if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) else None


def _place(old: Tensor, new: Tensor, inputs: int | None) -> None:
    corner = [slice(size) for size in old.shape]
    if inputs is not None and old.ndim > inputs + 1:  # a weight, not a bias: trained outputs see no new inputs
        new[tuple(slice(None) if axis == inputs else part for axis, part in enumerate(corner))] = 0.0
    new[tuple(corner)] = old
