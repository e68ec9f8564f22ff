"""Training that goes on from released weights: back from integers to floats, and into a wider latent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from exact_cases import CONFIG, LEVELS, latents, small_exact, small_model
from test_training import TINY, make_trainer

from ltchm_geo.entropy.integer_net import ExactCoder
from ltchm_geo.errors import UsageError
from ltchm_geo.nn.model import LTCHM
from ltchm_geo.training.dequantise import fit_prior, float_model
from ltchm_geo.training.export import float_tensors
from ltchm_geo.training.integerise import integerise
from ltchm_geo.training.widen import widen
from ltchm_geo.weights import LoadedWeights, load


class Stored(LoadedWeights):
    """Weights that never were a file."""

    def __init__(self, model, tensors, spec):
        stored = float_tensors(model) | {f"entropy.{name}": value for name, value in tensors.items()}
        documents = {"ltchm_config": model.config.to_dict(), "ltchm_entropy": spec}
        for name, value in {"tensors": stored, "documents": documents}.items():
            object.__setattr__(self, name, value)

    def document(self, key):
        return self.documents[key]


def shaken(config):
    """Random weights everywhere, also where training begins with zeros and ones."""
    torch.manual_seed(4)
    generator = torch.Generator().manual_seed(3)
    model = LTCHM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.005 * torch.randn(parameter.shape, generator=generator)
    return model


def test_integers_become_the_same_network():
    """What comes back gives the same integers again, but for the rounding of two quantisations instead of one."""
    tensors, spec = small_exact()
    restored = float_model(Stored(small_model(), tensors, spec)).eval()
    again = integerise(restored, [(*latents(2, seed), level) for seed, level in enumerate(LEVELS)])
    y, z = latents(2, seed=50)
    for level in LEVELS:
        (_, _, before), (_, _, after) = (
            ExactCoder.from_tensors(*exact).symbols(y, z, level) for exact in ((tensors, spec), again)
        )
        # Of the units of the parameters, as in test_integerise: the first quantisation differs from floats as much.
        error = np.abs(before.astype(int) - after).mean(axis=(0, 1, 3))
        assert (error < [4, 4, 4, 1.2, 1.2, 1.2, 0.6, 0.6, 0.6]).all(), error


def test_released_weights_come_back():
    weights = load("ltchm-64-preview2")
    model = float_model(weights).eval()
    for name, value in model.g_a.state_dict().items():
        np.testing.assert_array_equal(value, weights.tensors[f"nn.g_a.{name}"].astype(np.float32))
    masses = np.diff(weights.tensors["entropy.z_cdf"].astype(np.int64), axis=1) / 2**24
    values = torch.arange(-64, 65).float()[:, None, None, None].expand(-1, model.config.channels, 1, 1)
    with torch.no_grad():
        fitted = model.prior(values)[:, :, 0, 0].T.numpy()
    entropy, cost = -(masses * np.log2(masses)).sum(1), -(masses * np.log2(fitted)).sum(1)
    assert (cost - entropy).mean() < 0.02  # bits per latent of z; a tile has four of each channel in 128 x 128


def test_prior_is_fitted_to_any_table():
    model = LTCHM(CONFIG)
    rng = np.random.default_rng(0)
    counts = np.exp(-0.5 * ((np.arange(-64, 65) - rng.uniform(-5, 5, (16, 1))) / rng.uniform(0.3, 9, (16, 1))) ** 2)
    masses = 1 + np.floor(counts / counts.sum(1, keepdims=True) * (2**24 - 129 - 16))
    masses[:, 64] += 2**24 - masses.sum(1)
    fit_prior(model.prior, np.concatenate([np.zeros((16, 1)), masses.cumsum(1)], axis=1).astype(np.uint32))
    with torch.no_grad():
        fitted = model.prior(torch.arange(-64, 65).float()[:, None, None, None].expand(-1, 16, 1, 1))[:, :, 0, 0].T
    shares = masses / 2**24
    assert (shares * np.log2(shares / fitted.numpy())).sum(1).max() < 0.1


@pytest.mark.parametrize("deep", [0, 48])
@pytest.mark.parametrize("gain", [False, True])
def test_a_wider_latent_codes_as_before(gain, deep):
    config = replace(TINY, dam_gain=gain)
    trained, wide = shaken(config), LTCHM(replace(config, latent_channels=72, deep_channels=deep)).eval()
    widen(trained, wide)
    trained, wide = trained.double(), wide.double()  # inverse GDNs amplify rounding
    x, quality = torch.rand(1, 3, 128, 128).double(), torch.tensor([2.5]).double()
    with torch.no_grad():
        y, y_wide = trained.g_a(x, quality), wide.g_a(x, quality)
        torch.testing.assert_close(y_wide[:, :32], y)
        assert y_wide[:, 32:].abs().max() > 0
        y, y_wide = torch.round(y), torch.round(y_wide)
        y_wide[:, :32] = y
        torch.testing.assert_close(wide.g_s(y_wide, quality), trained.g_s(y, quality))
        z = torch.round(trained.h_a(y, quality))
        torch.testing.assert_close(wide.h_a(y_wide, quality), trained.h_a(y, quality))
        mixtures, before = wide.parameters_of(y_wide, z, quality), trained.parameters_of(y, z, quality)
        torch.testing.assert_close(mixtures.unflatten(1, (9, 72))[:, :, :32], before.unflatten(1, (9, 32)))


def test_wider_skips_begin_as_what_they_replace():
    trained, wide = shaken(TINY), LTCHM(replace(TINY, latent_channels=64, skip="2x2")).eval()
    widen(trained, wide)
    trained, wide = trained.double(), wide.double()  # inverse GDNs amplify rounding
    x, quality = torch.rand(1, 3, 128, 128).double(), torch.tensor([2.5]).double()
    with torch.no_grad():
        y = trained.g_a(x, quality)
        torch.testing.assert_close(wide.g_a(x, quality)[:, :32], y)
        y_wide = torch.nn.functional.pad(torch.round(y), (0, 0, 0, 0, 0, 32))
        torch.testing.assert_close(wide.g_s(y_wide, quality), trained.g_s(torch.round(y), quality))


def test_the_new_channels_learn():
    trainer = make_trainer(model=replace(TINY, latent_channels=64), batch=2)
    trainer.start_from(shaken(TINY))
    assert trainer.average.keys() == trainer.model.state_dict().keys()
    for key in ("g_s.up3.skip.weight", "context.conv.weight"):
        assert not trainer.model.get_parameter(key)[:, 32:].any()
    for _ in range(3):
        trainer.train_step()
    for key in ("g_s.up3.skip.weight", "context.conv.weight"):
        assert trainer.model.get_parameter(key)[:, 32:].any()


def test_new_channels_are_free_while_they_awaken():
    model = LTCHM(replace(TINY, latent_channels=64, dam_gain=True))
    with torch.no_grad():  # leave only the direct way from a latent to its own cost
        for layer in (model.context.conv, model.h_a.layers[-1]):
            layer.weight.zero_()
    x, quality = torch.rand(2, 3, 128, 128), torch.tensor([5.0, 6.0])
    model(x, quality, free_from=32).bits_y.sum().backward()
    gradient = model.g_a.down4.weight.grad
    assert gradient[:32].any()
    assert not gradient[32:].any()
    model(x, quality).bits_y.sum().backward()
    assert gradient[32:].any()


def test_awakening_ends_and_outlives_a_checkpoint(tmp_path):
    settings = {"model": replace(TINY, latent_channels=64), "awaken": 2}
    trainer = make_trainer(**settings)
    assert trainer._charging() == {}  # from random weights, all channels are alike
    trainer.start_from(LTCHM(TINY))
    trainer.train_step()
    trainer.save(tmp_path / "run.safetensors")
    again = make_trainer(**settings)
    again.load(tmp_path / "run.safetensors")
    assert again._charging() == {"free_from": 32}
    again.train_step()
    assert again._charging() == {}


def test_other_architectures_are_refused():
    with pytest.raises(UsageError, match="ltchm-no-dam cannot start"):
        make_trainer(architecture="ltchm-no-dam").start_from(LTCHM(TINY))


@pytest.mark.parametrize(
    "change", [{"parameter_width": 48}, {"latent_channels": 24}, {"deep_channels": 24}, {"hpham": "table2"}]
)
def test_networks_that_do_not_fit_are_refused(change):
    with pytest.raises(UsageError, match="only latent_channels, deep_channels and skip may differ"):
        make_trainer(model=replace(TINY, **change)).start_from(LTCHM(TINY))
