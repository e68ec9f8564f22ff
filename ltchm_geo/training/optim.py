"""Optimiser: Muon for matrices and convolutions, AdamW for the rest, as one `torch.optim.Optimizer`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor, nn

#: Quintic Newton-Schulz coefficients that push singular values to about 1 (Jordan et al., 2024).
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: Tensor, iterations: int = 5) -> Tensor:
    """Nearest-to-orthogonal matrix of the same shape, approximately: singular values come to lie near 1."""
    a, b, c = _NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.bfloat16()
    x = x.mT if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrix.dtype)


class MuonAdamW(torch.optim.Optimizer):
    """Groups with `muon=True` take orthogonalised Nesterov momentum, the others AdamW.

    Parameters
    ----------
    groups : list of dict
        Each with `params`, `lr`, `muon`, and optionally `weight_decay`.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, momentum: float = 0.95, betas: tuple[float, float] = (0.9, 0.99)
    ):
        super().__init__(groups, {"momentum": momentum, "betas": betas, "weight_decay": 0.0, "muon": False})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step along the gradients at hand."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            update = self._muon if group["muon"] else self._adamw
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    update(parameter, parameter.grad, group)
        return loss

    def _muon(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        direction = gradient.lerp(momentum, group["momentum"]).reshape(len(parameter), -1)
        # The factor keeps the update's RMS independent of the matrix's shape, so one learning rate fits all.
        scale = max(direction.shape) ** 0.5 * 0.2
        parameter.add_(orthogonalise(direction).reshape(parameter.shape), alpha=-group["lr"] * scale)

    def _adamw(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        beta1, beta2 = group["betas"]
        state["step"] += 1
        step = float(state["step"])
        mean = state["mean"].lerp_(gradient, 1 - beta1) / (1 - beta1**step)
        square = state["square"].lerp_(gradient * gradient, 1 - beta2) / (1 - beta2**step)
        parameter.addcdiv_(mean, square.sqrt().add_(1e-8), value=-group["lr"])


def make_optimizer(model: nn.Module, *, kind: str, lr: float, muon_lr: float) -> MuonAdamW:
    """Split the model's parameters: dense convolution weights to Muon (if asked), everything else to AdamW."""
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in model.named_parameters():
        dense = parameter.ndim == 4 and parameter.shape[1] > 1 and min(parameter.shape[0], parameter[0].numel()) >= 16
        # The learned kernels of dynamic convolutions are (G, C, K, K): not matrices, though four-dimensional.
        dynamic = name.endswith(tuple(f".convs.{i}.weight" for i in range(3)))
        wanted = kind == "muon" and dense and not dynamic
        (matrices if wanted else others).append(parameter)
    groups: list[dict[str, Any]] = [{"params": others, "lr": lr, "muon": False}]
    if matrices:
        groups.append({"params": matrices, "lr": muon_lr, "muon": True})
    return MuonAdamW(groups)
