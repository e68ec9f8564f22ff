"""Latents that begin as what least squares tells of them from their neighbours."""

from __future__ import annotations

import copy

import pytest
import torch
from test_klt import CONFIG
from test_training import everything, make_trainer

from ltchm_geo.nn.likelihood import mixture_likelihood
from ltchm_geo.nn.model import LTCHM
from ltchm_geo.training.klt import start_as_klt
from ltchm_geo.training.predict import predict

COUNT = 2
MIDDLE = torch.tensor([3.5])


@pytest.fixture(scope="module")
def tiles(farmland):
    """(36, 3, 128, 128) in [0, 1], overlapping."""
    pixels = torch.from_numpy(farmland).permute(2, 0, 1).float() / 255
    return torch.stack([pixels[:, y : y + 128, x : x + 128] for y in range(0, 128, 23) for x in range(0, 128, 23)])


@pytest.fixture(scope="module")
def networks(tiles):
    """A network before and after."""
    torch.manual_seed(0)
    before = LTCHM(CONFIG).eval()
    start_as_klt(before, tiles)
    after = copy.deepcopy(before)
    predict(after, tiles, COUNT)
    return before, after


@torch.no_grad()
def latents(network, x):
    y = torch.round(network.g_a(x, MIDDLE.expand(len(x))))
    return y, torch.round(network.h_a(y, MIDDLE.expand(len(x))))


@torch.no_grad()
def expected(network, y, z):
    """Logits, means and widths (B, 3, K, M, h, w)."""
    return network.parameters_of(y, z, MIDDLE.expand(len(y))).unflatten(1, (3, 3, -1))


def coded(network, y, z):
    """Bits (B, M, h, w)."""
    return -torch.log2(mixture_likelihood(y, expected(network, y, z).flatten(1, 3)))


def told(networks, y, z):
    """The latents of which the two networks expect quite different things."""
    before, after = (expected(network, y, z)[:, 1].mean(1) for network in networks)
    return (before - after).square().mean((0, 2, 3)).topk(COUNT).indices


def test_brightness_follows_its_neighbours(networks, tiles):
    mirrored = tiles.flip(3)  # not what the predictions were fitted to
    y, z = latents(networks[0], mirrored)
    mean = expected(networks[1], y, z)[:, 1]
    brightest = int(y.square().mean((0, 2, 3)).argmax())
    assert brightest in told(networks, y, z)
    inner = (slice(None), brightest, slice(2, None), slice(2, -2))
    error = (y - mean[:, 0])[inner].square().mean()
    assert float(error) < 0.15 * float(y[inner].square().mean())
    bits = [coded(network, y, z)[inner].mean() for network in networks]
    assert float(bits[0] - bits[1]) > 1


def test_a_prediction_is_linear_and_the_same_for_all_components(networks, tiles):
    y, z = latents(networks[0], tiles[:8])
    which = told(networks, y, z)
    turned = 0.5 * y.flip(0)
    first, second, both = (expected(networks[1], v, z)[:, 1][:, :, which] for v in (y, turned, y + turned))
    torch.testing.assert_close(first + second, both, rtol=1e-4, atol=1e-3 * float(both.abs().max()))
    torch.testing.assert_close(first, first[:, :1].expand_as(first))
    assert float(expected(networks[1], 0 * y, z)[:, 1][:, :, which].abs().max()) < 1e-4


def test_it_reads_what_is_known(networks, tiles):
    y, z = latents(networks[0], tiles[:1])
    later = y.clone()
    later[:, :, 4, 3:] += 5
    later[:, :, 5:] -= 3
    before, after = (expected(networks[1], v, z) for v in (y, later))
    torch.testing.assert_close(before[..., :4, :], after[..., :4, :])
    torch.testing.assert_close(before[..., 4, :4], after[..., 4, :4])
    assert not torch.allclose(before[..., 4, 4:], after[..., 4, 4:])


def test_nothing_else_changes_much(networks, tiles):
    before, after = networks
    for part in ("g_a", "g_s", "h_a", "h_s", "prior"):
        old, new = getattr(before, part).state_dict(), getattr(after, part).state_dict()
        assert all(torch.equal(old[name], new[name]) for name in old)
    y, z = latents(before, tiles)
    others = [m for m in range(y.shape[1]) if m not in told(networks, y, z)]
    bits = [coded(network, y, z)[:, others].sum() for network in networks]
    assert float(bits[1] / bits[0]) < 1.02


def test_widths_fit_what_a_prediction_leaves(networks, tiles):
    y, z = latents(networks[0], tiles)
    found = expected(networks[1], y, z)
    for m in told(networks, y, z):
        error = float((y - found[:, 1, 0])[:, m].square().mean().sqrt())
        widths = torch.exp2(found[:, 2, :, m]).mean((0, 2, 3))
        assert widths[0] < widths[1] < widths[2]
        assert widths[0] < error < widths[2]


def test_a_trainer_begins_with_predictions():
    changes = {"model": CONFIG, "start": "klt"}
    plain, predicted = make_trainer(**changes), make_trainer(**changes, predict=COUNT)
    for trainer in (plain, predicted):
        trainer.start_as_klt()
    assert torch.equal(plain.model.g_a.down4.weight, predicted.model.g_a.down4.weight)
    assert not torch.equal(plain.model.context.conv.weight, predicted.model.context.conv.weight)
    tensors = everything(predicted)
    assert torch.equal(tensors["average.context.conv.weight"], tensors["model.context.conv.weight"])
    moved = make_trainer(model=CONFIG, predict=COUNT)
    moved.start_from(plain.model)
    assert not torch.equal(plain.model.context.conv.weight, moved.model.context.conv.weight)
