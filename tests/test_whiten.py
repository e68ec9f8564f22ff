"""Steps shortened where a layer's input is strong (`training.whiten`)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ltchm_geo.nn.config import ModelConfig
from ltchm_geo.nn.model import LTCHM
from ltchm_geo.training.optim import MuonAdamW, make_optimizer
from ltchm_geo.training.whiten import InputMoments

TINY = ModelConfig(channels=16, window=2, head_dim=8)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(20, 24, 3, padding=1)
        self.up = nn.ConvTranspose2d(24, 16, 2, stride=2)
        self.apart = nn.Conv2d(16, 16, 3, groups=16)

    def forward(self, x: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
        return self.apart(self.up(self.down(x)))


def crops(seed: int, loud: float = 30.0) -> torch.Tensor:
    """(2, 20, 16, 16) whose first channel is `loud`."""
    x = torch.randn(2, 20, 16, 16, generator=torch.Generator().manual_seed(seed))
    x[:, 0] *= loud
    return x


def test_moments_are_those_of_what_layers_read():
    net, x = Net(), crops(0)
    inputs = InputMoments(net)
    inputs.observe(x, torch.zeros(2))
    assert set(inputs.moments) == {"down.weight", "up.weight"}  # of a grouped convolution there is no such matrix
    rows = x.transpose(0, 1).flatten(1)
    torch.testing.assert_close(inputs.moments["down.weight"], rows @ rows.T / rows.shape[1])
    rows = net.down(x).detach().transpose(0, 1).flatten(1)
    torch.testing.assert_close(inputs.moments["up.weight"], rows @ rows.T / rows.shape[1])


def test_looks_are_rarer_once_there_were_enough():
    inputs, due = InputMoments(Net()), []
    for step in range(1501):
        if inputs.due(step):
            inputs.observe(crops(step), torch.zeros(2))
            due.append(step)
    assert due == [*range(0, 500, 50), 500, 1000, 1500]


def test_moments_are_running_means():
    net = Net()
    inputs, found = InputMoments(net), []
    for seed in range(12):
        inputs.observe(crops(seed), torch.zeros(2))
        rows = crops(seed).transpose(0, 1).flatten(1)
        found.append(rows @ rows.T / rows.shape[1])
    expected = torch.stack(found[:10]).mean(0)
    for moment in found[10:]:
        expected = torch.lerp(expected, moment, 0.1)
    torch.testing.assert_close(inputs.moments["down.weight"], expected)


def test_strong_directions_are_divided_by_their_spread_and_others_left():
    net = Net()
    inputs = InputMoments(net)
    inputs.observe(crops(0), torch.zeros(2))
    matrix, axis = dict(inputs.whitenings())["down.weight"]
    assert axis == 1
    assert dict(inputs.whitenings())["up.weight"].axis == 0
    torch.testing.assert_close(matrix, matrix.T)
    factors = torch.linalg.eigvalsh(matrix)
    assert float(factors.max()) == pytest.approx(1.0)
    assert int((factors > 0.999).sum()) >= 10
    assert float(matrix[0, 0]) == pytest.approx(1 / 30, rel=0.2)


@pytest.mark.parametrize("name", ["down", "up"])
def test_a_step_changes_the_output_alike_in_every_direction(name: str):
    """A channel thirty times as loud has gradients thirty times as large, and gets steps a thirtieth as long."""
    net, x = Net(), crops(0)
    if name == "up":
        net.down = nn.Identity()
        net.up = nn.ConvTranspose2d(20, 16, 2, stride=2)
    layer = getattr(net, name)
    inputs = InputMoments(net)
    inputs.observe(x, torch.zeros(2))
    moved = {}
    for whiten in (False, True):
        weight = layer.weight
        before = weight.detach().clone()
        optimizer = MuonAdamW([{"params": [weight], "lr": 0.01, "muon": True}])
        if whiten:
            optimizer.whitenings = {weight: dict(inputs.whitenings())[f"{name}.weight"]}
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
        weight.grad.select(0 if name == "up" else 1, 0).mul_(30)
        optimizer.step()
        step = (weight.detach() - before).movedim(0 if name == "up" else 1, 0).flatten(1).norm(dim=1)
        with torch.no_grad():
            weight.copy_(before)
        moved[whiten] = step
    assert float(moved[False][0] / moved[False][1:].mean()) > 0.6
    assert float(moved[True][0] / moved[True][1:].mean()) == pytest.approx(1 / 30, rel=0.4)
    assert float(moved[True][1:].mean() / moved[False][1:].mean()) == pytest.approx(1.0, rel=0.3)


def test_every_convolution_that_muon_trains_is_seen():
    """A layer that only lends its weights to a function would be missed."""
    model = LTCHM(TINY)
    inputs = InputMoments(model)
    inputs.observe(torch.rand(1, 3, 128, 128), torch.tensor([3.0]))
    names = {p: n for n, p in model.named_parameters()}
    groups = make_optimizer(model, kind="muon", lr=1e-3, muon_lr=1e-3).param_groups
    trained = {names[p] for group in groups if group["muon"] for p in group["params"]}
    assert trained <= set(inputs.moments)
    assert "context.conv.weight" in trained
    parameters = dict(model.named_parameters())
    for name, (matrix, axis) in inputs.whitenings():
        assert matrix.shape == (parameters[name].shape[axis],) * 2
