"""New channels of a widened network begin with what the trained ones lose."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from test_klt import CONFIG, psnr
from test_start_from import shaken
from test_training import make_trainer

from ltchm_geo.nn.config import LEVELS_PER_ANCHOR, level_to_lambda
from ltchm_geo.nn.model import LTCHM
from ltchm_geo.training.awaken import awaken
from ltchm_geo.training.klt import best_step, start_as_klt
from ltchm_geo.training.widen import widen

WIDE = replace(CONFIG, deep_channels=48, latent_channels=160)
HIGHEST = torch.tensor([7.0])


@torch.no_grad()
def coded(network, x):
    quality = HIGHEST.expand(len(x))
    y = network.g_a(x, quality)
    return y, network.g_s(y, quality)


@pytest.fixture(scope="module")
def networks(crops):
    """A trained network, the same widened, and that awakened."""
    torch.manual_seed(0)
    trained = LTCHM(CONFIG).eval()
    start_as_klt(trained, crops)
    with torch.no_grad():  # neither linear nor alike at all qualities
        generator = torch.Generator().manual_seed(1)
        for parameter in trained.parameters():
            parameter += 0.003 * torch.randn(parameter.shape, generator=generator)
    widened = LTCHM(WIDE).eval()
    widen(trained, widened)
    awakened = copy.deepcopy(widened)
    awaken(awakened, CONFIG, crops)
    return trained, widened, awakened


def test_what_was_lost_comes_back(networks, crops):
    (y, before), (_, same), (y_wide, after) = (coded(network, crops) for network in networks)
    assert psnr(crops, before) == pytest.approx(psnr(crops, same), abs=1e-3)
    assert psnr(crops, after) > psnr(crops, before) + 1
    torch.testing.assert_close(y_wide[:, :96], y, rtol=1e-3, atol=1e-3)  # trained channels stay as they were


def test_new_latents_are_in_steps_worth_their_bits(networks):
    _, _, awakened = networks
    for anchor in range(8):
        step = best_step(level_to_lambda(anchor * LEVELS_PER_ANCHOR))
        scales = awakened.g_a.scale4.log2_scale[anchor, 96:].detach()
        torch.testing.assert_close(scales, torch.full_like(scales, -math.log2(step)))
        torch.testing.assert_close(awakened.g_s.scale4.log2_scale[anchor, 96:].detach(), -scales)


def test_as_much_is_expected_of_them_as_of_the_trained_one_most_alike(networks, crops):
    _, _, awakened = networks
    spread = coded(awakened, crops)[0].std((0, 2, 3)).log()
    rows = awakened.parameter_net.layers[-1].weight.detach().view(9, 160, -1)
    for channel in range(96, 160):
        nearest = (spread[:96] - spread[channel]).abs().argmin()
        torch.testing.assert_close(rows[:, channel], rows[:, nearest])


def test_a_trainer_awakens_what_it_widens(networks):
    trained, _, _ = networks
    trainer = make_trainer(model=WIDE, batch=4)
    trainer.start_from(trained)
    assert trainer.trained_latent == 96
    assert trainer.model.g_s.up2.skip.weight[32:].any()
    for key, value in trainer.model.state_dict().items():
        torch.testing.assert_close(trainer.average[key], value)


def test_one_wide_enough_is_taken_over_as_it_is():
    trained = shaken(CONFIG)
    trainer = make_trainer(model=CONFIG, batch=4)
    trainer.start_from(trained)
    for key, value in trainer.model.state_dict().items():
        torch.testing.assert_close(value, trained.state_dict()[key])
