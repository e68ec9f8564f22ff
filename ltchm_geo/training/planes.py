"""Crops as the network meets scenes of many bands: one component in all channels, or three that are what is left.

`ltchm_geo.components` turns bands into such planes, of which natural-colour crops hold little: a component has up to
three times the contrast of a band and leaves [0, 1], and what is left of many bands is faint and without common
brightness.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ltchm_geo.components import MIXING
from ltchm_geo.training.augment import Draw

#: Orthonormal: in its columns, what three bands share, and two ways in which they differ.
_BASIS = torch.from_numpy(MIXING[3]).float()
#: How much of what bands share stays in three planes that are left: they are never of two components only.
_LEFT = 0.1
_ONE_BAND, _STRONGEST, _WEAK = 0.3, 0.6, 0.75  # bounds of the four kinds among crops that become planes
_MIDDLE = 0.5
#: log2 of by how much differences of infrared bands are stronger than those of natural colours.
_GAIN = (-0.5, 2.5)


def as_planes(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Turn about `share` of the crops (B, 3, S, S) into planes of components; the others stay as they are.

    Of these 30 % are one band, 30 % the strongest component of several, 15 % another by itself, 25 % three others.
    Values may leave [0, 1], as planes do.
    """
    draw = Draw(len(x), x.device, generator)
    chosen, kind = draw.chance(share), draw.between(0.0, 1.0)
    one = (x * draw.weights()).sum(1, keepdim=True)
    planes = torch.where(kind < _STRONGEST, _strongest(one, draw), _weak(x, draw))
    planes = torch.where(kind < _ONE_BAND, one.expand_as(x), planes)
    planes = torch.where(kind < _WEAK, planes, _left(x, draw))
    return torch.where(chosen, planes, x)


def _strongest(one: Tensor, draw: Draw) -> Tensor:
    """Brightness about the scene's mean, which is near the crop's, with the contrast of up to twelve bands."""
    near = torch.lerp(torch.full_like(one[..., :1, :1], _MIDDLE), one.mean((2, 3), keepdim=True), draw.between(0.3, 1))
    return (_MIDDLE + torch.exp2(draw.between(0.0, 1.6)) * (one - near)).expand(-1, 3, -1, -1)


def _components(x: Tensor, draw: Draw) -> Tensor:
    """Common brightness and two differences (B, 3, S, S) of random directions, about their crop's mean."""
    shared, *others = torch.einsum("ki,bkhw->bihw", _BASIS.to(x.device), x).split(1, dim=1)
    angle = draw.between(0.0, 6.2832)
    turned = others[0] * angle.cos() + others[1] * angle.sin(), others[1] * angle.cos() - others[0] * angle.sin()
    found = torch.cat([shared, *turned], dim=1)
    return found - found.mean((2, 3), keepdim=True)


def _weak(x: Tensor, draw: Draw) -> Tensor:
    gain = torch.exp2(draw.between(*_GAIN))
    return (_MIDDLE + gain * _components(x, draw)[:, 1:2]).expand(-1, 3, -1, -1)


def _left(x: Tensor, draw: Draw) -> Tensor:
    shared, first, second = _components(x, draw).split(1, dim=1)
    mixed = torch.einsum("ij,bjhw->bihw", _BASIS.to(x.device), torch.cat([first, second, _LEFT * shared], dim=1))
    return _MIDDLE + torch.exp2(draw.between(*_GAIN)) * mixed
