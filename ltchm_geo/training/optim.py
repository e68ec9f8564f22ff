"""Optimiser: Muon for matrices and convolutions, AdamW for the rest, as one `torch.optim.Optimizer`.

A network has hundreds of small parameters. One by one they would be thousands of tiny operations a step, a quarter of
a CPU's time and worse on a GPU; so Muon's of one shape are updated together, and all of AdamW's as one vector.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, cast, overload

import torch
from torch import Tensor, nn

from ltchm_geo.device import has_bfloat16
from ltchm_geo.errors import UsageError
from ltchm_geo.training.whiten import Whitening

#: Quintic Newton-Schulz coefficients that push singular values to about 1 (Jordan et al., 2024).
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: Tensor, iterations: int = 5) -> Tensor:
    """Nearest-to-orthogonal matrices (..., m, n), approximately: their singular values come to lie near 1."""
    tall = matrix.shape[-2] > matrix.shape[-1]
    half = has_bfloat16(matrix.device)
    x = matrix.reshape(-1, *matrix.shape[-2:])
    x = x.bfloat16() if half else x.float()
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    x = _iterated(x, iterations) if half else _polynomial(x @ x.mT, iterations) @ x
    return (x.mT if tall else x).to(matrix.dtype).contiguous().reshape(matrix.shape)


def _iterated(x: Tensor, iterations: int) -> Tensor:
    a, b, c = _NEWTON_SCHULZ
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _polynomial(gram: Tensor, iterations: int) -> Tensor:
    """What all iterations together multiply a matrix by, from its products x x^T alone, which are far smaller.

    These multiply the products' rounding errors by up to a^(2 iterations), 2e5: for float32 only.
    """
    a, b, c = _NEWTON_SCHULZ
    unit = a * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    whole = factor = unit + b * gram + c * gram @ gram
    for _ in range(iterations - 1):
        gram = factor @ gram @ factor
        factor = unit + b * gram + c * gram @ gram
        whole = factor @ whole
    return whole


class MuonAdamW(torch.optim.Optimizer):
    """Groups with `muon=True` take orthogonalised Nesterov momentum, the others AdamW.

    Parameters
    ----------
    groups : list of dict
        Each with `params`, `lr` and `muon`.

    Attributes
    ----------
    whitenings : dict of Tensor to Whitening
        Of Muon's parameters that have one: their steps are shortened where their input is strong.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, momentum: float = 0.95, betas: tuple[float, float] = (0.9, 0.99)
    ):
        super().__init__(groups, {"momentum": momentum, "betas": betas, "muon": False})
        self.whitenings: dict[Tensor, Whitening] = {}

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step along the gradients at hand."""
        loss = closure() if closure is not None else None
        self.step_if(torch.ones((), dtype=torch.bool, device=self.param_groups[0]["params"][0].device))
        return loss

    @torch.no_grad()
    def step_if(self, follow: Tensor) -> None:
        """`step` where `follow`, a boolean scalar on the parameters' device, holds; no GPU is made to wait for it."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not group["muon"]:
                self._adamw(parameters, group, follow)
                continue
            kinds: dict[tuple[torch.Size, int | None], list[Tensor]] = {}
            for parameter in parameters:
                kinds.setdefault(self._kind(parameter), []).append(parameter)
            for alike in kinds.values():
                self._muon(alike, group, follow)

    def _kind(self, parameter: Tensor) -> tuple[torch.Size, int | None]:
        """What parameters that Muon updates together have in common: shape and axis of whitening."""
        whitening = self.whitenings.get(parameter)
        return parameter.shape, None if whitening is None else whitening.axis

    def _muon(self, parameters: list[Tensor], group: dict[str, Any], follow: Tensor) -> None:
        """Orthogonalised Nesterov momentum for parameters of one kind, where `follow` holds."""
        momenta = self._states(parameters, "momentum")
        gradient, old = torch.stack([_gradient(p) for p in parameters]), torch.stack(momenta)
        momentum = old.lerp(gradient, 1 - group["momentum"])
        whitenings = [self.whitenings[p] for p in parameters if p in self.whitenings]
        direction = _whitened(gradient.lerp(momentum, group["momentum"]), whitenings)
        update = _whitened(orthogonalise(direction.flatten(2)).reshape(direction.shape), whitenings)
        torch._foreach_copy_(momenta, torch.where(follow, momentum, old).unbind())
        update = torch.where(follow, update * (-group["lr"] * _muon_scale(parameters[0])), 0.0)
        torch._foreach_add_(parameters, laid_out(update, momentum).unbind())

    def _adamw(self, parameters: list[Tensor], group: dict[str, Any], follow: Tensor) -> None:
        """AdamW for all parameters as one vector, where `follow` holds; they have always stepped together."""
        means, squares = self._states(parameters, "mean"), self._states(parameters, "square")
        for parameter in parameters:
            self.state[parameter].setdefault("step", torch.zeros((), device=parameter.device))
        steps = [self.state[p]["step"] for p in parameters]
        torch._foreach_copy_(steps, (torch.stack(steps) + follow).unbind())
        beta1, beta2 = group["betas"]
        gradient = _joined([_gradient(p) for p in parameters])
        old_mean, old_square = _joined(means), _joined(squares)
        mean = torch.where(follow, old_mean.lerp(gradient, 1 - beta1), old_mean)
        square = torch.where(follow, old_square.lerp(gradient * gradient, 1 - beta2), old_square)
        root = (square / (1 - beta2 ** steps[0])).sqrt_().add_(1e-8)
        update = torch.where(follow, mean / (1 - beta1 ** steps[0]) / root * -group["lr"], 0.0)
        torch._foreach_copy_(means, _parted(mean, parameters))
        torch._foreach_copy_(squares, _parted(square, parameters))
        torch._foreach_add_(parameters, _parted(update, parameters))

    def _states(self, parameters: list[Tensor], key: str) -> list[Tensor]:
        """That state of each parameter, zero where it has none yet."""
        for parameter in parameters:
            if key not in self.state[parameter]:
                self.state[parameter][key] = torch.zeros_like(parameter)
        return [self.state[p][key] for p in parameters]


def _whitened(directions: Tensor, whitenings: list[Whitening]) -> Tensor:
    """`directions` (n, ...) of parameters of one kind, shortened where these read much; n whitenings, or none."""
    if not whitenings:
        return directions
    matrices, axis = torch.stack([w.matrix for w in whitenings]), whitenings[0].axis + 1
    moved = directions.movedim(axis, 1)
    if has_bfloat16(directions.device):
        matrices, moved = matrices.bfloat16(), moved.bfloat16()
    return (matrices @ moved.flatten(2)).reshape(moved.shape).movedim(1, axis).to(directions.dtype)


def _muon_scale(parameter: Tensor) -> float:
    """Keeps the update's RMS independent of the matrix's shape, so one learning rate fits all."""
    rows = len(parameter)
    return max(rows, parameter.numel() // rows) ** 0.5 * 0.2


def _gradient(parameter: Tensor) -> Tensor:
    return cast(Tensor, parameter.grad)


def _joined(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


def _parted(vector: Tensor, like: list[Tensor]) -> list[Tensor]:
    """Inverse of `_joined`."""
    parts = vector.split([t.numel() for t in like])
    return [laid_out(part.reshape(t.shape), t) for part, t in zip(parts, like, strict=True)]


def laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    """A contiguous tensor with the strides of `like`: where they differ, GPUs do `torch._foreach_*` one by one."""
    return tensor if like.is_contiguous() else torch.empty_like(like).copy_(tensor)


def make_optimizer(
    model: nn.Module, *, kind: str, lr: float, muon_lr: float, rates: Mapping[str, float] | None = None
) -> MuonAdamW:
    """Split the parameters that are trained: dense convolution weights to Muon (if asked), the others to AdamW.

    Parameters
    ----------
    model : nn.Module
    kind : {"muon", "adamw"}
    lr, muon_lr : float
        Learning rates of AdamW and Muon.
    rates : mapping of str to float, optional
        By what they are multiplied, per part of the model (a name of its children) and per kind of parameter (the last
        part of its name); 1 for the others.

    Raises
    ------
    UsageError
        `rates` names something that the model does not have.
    """
    rates = rates or {}
    parts = {part for name, _ in model.named_parameters() for part in _part_and_kind(name)}
    if unknown := set(rates) - parts:
        raise UsageError(f"recipe: no parts {sorted(unknown)} to set the rates of; there are {sorted(parts)}")
    groups: dict[tuple[bool, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        dense = parameter.ndim == 4 and parameter.shape[1] > 1 and min(parameter.shape[0], parameter[0].numel()) >= 16
        # The learned kernels of dynamic convolutions are (G, C, K, K): not matrices, though four-dimensional.
        dynamic = name.endswith(tuple(f".convs.{i}.weight" for i in range(3)))
        muon = kind == "muon" and dense and not dynamic
        rate = (muon_lr if muon else lr) * math.prod(rates.get(part, 1.0) for part in _part_and_kind(name))
        groups.setdefault((muon, rate), []).append(parameter)
    return MuonAdamW([{"params": groups[muon, rate], "lr": rate, "muon": muon} for muon, rate in sorted(groups)])


def _part_and_kind(name: str) -> set[str]:
    """Of a parameter "g_a.down1.skip.weight": g_a and weight."""
    names = name.split(".")
    return {names[0], names[-1]}
