"""The start as a Karhunen-Loeve transform: an orthogonal projection that keeps more than any other."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from test_training import CPU, TINY, assert_same, everything

from ltchm_geo.errors import UsageError
from ltchm_geo.nn.config import level_to_lambda
from ltchm_geo.nn.model import LTCHM
from ltchm_geo.training.data import Pool, Sampler
from ltchm_geo.training.klt import best_step, principal_components, start_as_klt
from ltchm_geo.training.loop import Trainer
from ltchm_geo.training.recipe import Recipe

CONFIG = replace(TINY, latent_channels=96, dam_gain=True, skip="2x2", scales="geometric")
MIDDLE = torch.tensor([3.5])


@pytest.fixture(scope="module")
def network(crops):
    torch.manual_seed(0)
    network = LTCHM(CONFIG).eval()
    start_as_klt(network, crops)
    return network


@torch.no_grad()
def restored(network, x):
    quality = MIDDLE.expand(len(x))
    return network.g_s(network.g_a(x, quality), quality)


def psnr(x, y):
    return -10 * math.log10(float((x - y).square().mean()))


def test_the_network_begins_as_an_orthogonal_projection(network, crops):
    again = restored(network, crops)
    torch.testing.assert_close(restored(network, again), again, rtol=0, atol=1e-5)
    lost, kept, whole = (float((a - 0.5).square().sum()) for a in (crops - again + 0.5, again, crops))
    assert lost + kept == pytest.approx(whole, rel=1e-5)
    with torch.no_grad():
        y = network.g_a(crops, MIDDLE.expand(len(crops)))
    assert float(y.square().sum()) * best_step(level_to_lambda(56)) ** 2 == pytest.approx(kept, rel=1e-5)


def test_it_keeps_more_than_other_projections(network, crops):
    torch.manual_seed(0)
    for basis in (torch.randn(96, 768), torch.eye(768)[:96]):
        cells = torch.nn.functional.unfold(crops - 0.5, 16, stride=16).transpose(0, 1).flatten(1)
        rows = torch.linalg.qr(basis.T).Q.T
        other = rows.T @ (rows @ cells)
        assert psnr(crops, restored(network, crops)) > -10 * math.log10(float((other - cells).square().mean())) + 6


def test_files_are_good_before_the_first_step(network, crops):
    """Rounded, at the middle of the qualities; what PyTorch's own random weights make of it is noise."""
    x_hat = network(crops, MIDDLE.expand(len(crops))).x_hat.detach()
    assert psnr(crops, x_hat) > 30
    torch.manual_seed(0)
    assert psnr(crops, LTCHM(CONFIG).eval()(crops, MIDDLE.expand(len(crops))).x_hat.detach()) < 20


def test_components_are_orthonormal_and_the_largest_come_first(crops):
    basis = principal_components(crops - 0.5, 64)
    assert basis.shape == (12, 3, 2, 2)  # a cell has no more
    torch.testing.assert_close(basis.flatten(1) @ basis.flatten(1).T, torch.eye(12), rtol=0, atol=1e-5)
    energy = torch.nn.functional.conv2d(crops - 0.5, basis, stride=2).square().mean((0, 2, 3))
    assert (energy[:-1] >= energy[1:]).all()
    torch.testing.assert_close(principal_components(crops - 0.5, 5), basis[:5])


@pytest.mark.parametrize("level", [0, 56, 112])
def test_no_other_step_is_better(level):
    """A uniform latent much wider than the step: its bits are log2(width / step), its error is measured."""
    lagrangian = level_to_lambda(level)
    values = torch.linspace(-500, 500, 1_000_001, dtype=torch.float64)

    def cost(step):
        error = float((values - torch.round(values / step) * step).square().mean())
        return math.log2(1000 / step) / 256 + lagrangian * error / 768

    best = best_step(lagrangian)
    assert cost(best) < min(cost(best * 0.9), cost(best * 1.1))


def test_mixtures_begin_as_wide_as_their_latents(network, crops):
    with torch.no_grad():
        y = network.g_a(crops, MIDDLE.expand(len(crops)))
    widths = network.parameter_net.layers[-1].bias.detach()[6 * 96 :].reshape(3, 96)
    spread = y.square().mean((0, 2, 3)).sqrt().log2()
    torch.testing.assert_close(widths - spread, torch.tensor([[-2.5], [-1.0], [0.5]]).expand(3, 96), rtol=0, atol=0.01)


def test_a_trainer_starts_so_and_goes_on(farmland, tmp_path):
    """The same twice, with the average at the same place; and a resumed run goes on as if nothing had been."""
    recipe = Recipe(model=CONFIG, start="klt", crop=128, batch=2, decay_crop=128, decay_batch=2, mixed_precision=False)

    def trainer():
        return Trainer(recipe, Sampler([Pool.build([("farmland", farmland)], CPU)], {}), CPU)

    random, first, second = trainer(), trainer(), trainer()
    first.start_as_klt()
    second.start_as_klt()
    assert_same(everything(first), everything(second))
    assert_same(dict(first.model.state_dict()), first.average)
    assert float(first.train_step()[0]) < float(random.train_step()[0]) / 4
    first.save(tmp_path / "trunk.safetensors")
    first.train_step()
    second.load(tmp_path / "trunk.safetensors")
    second.train_step()
    assert_same(everything(first), everything(second))


@pytest.mark.parametrize("wrong", [{"skip": "1x1"}, {"dam_gain": False}])
def test_networks_that_cannot_be_linear_are_refused(wrong):
    with pytest.raises(UsageError, match='start = "klt" needs'):
        Recipe(model=replace(CONFIG, **wrong), start="klt")
    with pytest.raises(UsageError, match='start must be "random" or "klt"'):
        Recipe(start="dct")
