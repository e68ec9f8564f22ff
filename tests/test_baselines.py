"""Cheng2020, the ablations of LTCHM, and the registry: costs, equality with CompressAI, causality, gradients."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from make_compressai_oracle import fill

from ltchm_geo.baselines import cheng2020
from ltchm_geo.baselines.registry import build, count
from ltchm_geo.errors import LtchmError, UsageError
from ltchm_geo.nn.attention import DAM, HPHAM
from ltchm_geo.nn.complexity import count_complexity
from ltchm_geo.nn.config import ModelConfig

ORACLE = Path(__file__).parent / "vectors" / "cheng2020_oracle.npz"
SMALL = {"channels": 32, "parameter_width": 32}
OURS = ["ltchm", "ltchm-no-dam", "ltchm-no-hpham", "ltchm-neither", "cheng2020-attn", "cheng2020-transposed"]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def cost(name):
    return count(name)


def small(name):
    torch.manual_seed(4)
    return build(name, SMALL)


# --- costs ------------------------------------------------------------------------------------------------------------


def test_the_cheng2020_of_table_6_costs_what_was_counted():
    counted, gain = cost("cheng2020-transposed"), 2 * 8 * 128
    assert counted.macs / 1e9 == pytest.approx(25.44, abs=0.005)
    assert (counted.parameters - gain) / 1e6 == pytest.approx(9.70, abs=0.01)


def test_sub_pixel_convolutions_cost_what_they_add():
    published, transposed = cost("cheng2020-attn"), cost("cheng2020-transposed")
    n = 128
    blocks = 3 * (3 * n * 9 * n + 4 * n * 9 * n - n * n)  # four times the channels, and 3x3 instead of 1x1 in the skip
    hyper = 3 * 9 * (n * n + (3 * n // 2) ** 2)
    last = 3 * 3 * 9 * n
    weights = blocks + hyper + last
    biases = 3 * (3 * n + 3 * n) + 3 * (n + 3 * n // 2) + 3 * 3
    assert published.parameters - transposed.parameters == weights + biases


def uncounted_by_thop(name):
    """Parameters of GDN, the masked convolution and the dynamic kernels, which `thop` does not see; and ours alone."""
    with torch.device("meta"):
        model = build(name, {})
    hidden = ("gamma", "beta", "log2_scale", "affine.scale", "affine.shift", "position_bias", "prior.")
    unseen = [p for n, p in model.named_parameters() if n.startswith("context.conv.") or any(h in n for h in hidden)]
    dynamic = [p for n, p in model.named_parameters() if ".convs." in n and n.split(".")[-2].isdigit()]
    return sum(p.numel() for p in [*unseen, *dynamic])


@pytest.mark.parametrize(
    ("name", "millions", "within"),
    # HPHAM's gated channel attention is the text's, not the published code's wider one: 0.1 M less.
    [("ltchm-neither", 7.43, 0.01), ("ltchm-no-hpham", 8.41, 0.01), ("ltchm-no-dam", 11.36, 0.11)],
)
def test_ablations_have_the_parameters_of_table_4(name, millions, within):
    assert (cost(name).parameters - uncounted_by_thop(name)) / 1e6 == pytest.approx(millions, abs=within)


def test_counting_agrees_with_the_count_by_parts():
    whole, parts = count("ltchm", ModelConfig(channels=32).to_dict()), count_complexity(ModelConfig(channels=32))
    assert whole.parameters == parts.parameters
    assert whole.macs == pytest.approx(parts.macs, rel=1e-4)


# --- ablations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dams", "hphams"),
    [("ltchm", 4, 2), ("ltchm-no-dam", 0, 2), ("ltchm-no-hpham", 4, 0), ("ltchm-neither", 0, 0)],
)
def test_ablations_lack_what_they_say_and_nothing_else(name, dams, hphams):
    model, whole = small(name), small("ltchm")
    assert sum(isinstance(m, DAM) for m in model.modules()) == dams
    assert sum(isinstance(m, HPHAM) for m in model.modules()) == hphams
    ours, theirs = model.state_dict(), whole.state_dict()
    without_hyper = [k for k in theirs if hphams or not k.startswith(("h_a.layers.", "h_s.layers."))]
    attention = [n for n, m in whole.named_modules() if isinstance(m, DAM)]
    kept = [k for k in without_hyper if dams or not k.startswith(tuple(f"{n}." for n in attention))]
    assert set(kept) == set(ours if hphams else [k for k in ours if not k.startswith(("h_a.layers.", "h_s.layers."))])
    assert all(torch.equal(ours[k], theirs[k]) for k in kept)  # and starts from the same weights


@pytest.mark.parametrize("name", ["ltchm-no-dam", "ltchm-no-hpham", "ltchm-neither"])
@torch.no_grad()
def test_ablations_may_have_more_latent_channels(name):
    model = build(name, {**SMALL, "latent_channels": 48})
    x_hat, bits_y, _ = model(torch.rand(1, 3, 128, 128), torch.tensor([3.0]))
    assert x_hat.shape == (1, 3, 128, 128)
    assert float(bits_y) > 0


# --- Cheng2020 --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def oracle():
    """Answers of CompressAI. A missing file is a failure: it is never regenerated on the way."""
    with np.load(ORACLE, allow_pickle=False) as file:
        return {name: torch.from_numpy(file[name]) for name in file if name != "compressai_version"}


@pytest.mark.parametrize(
    ("part", "source", "target"),
    [
        ("g_a", "x", "g_a"),
        ("g_s", "y", "g_s"),
        ("h_a", "y", "h_a"),
        ("h_s", "z", "h_s"),
        ("context", "y", "context_prediction"),
    ],
)
@torch.no_grad()
def test_every_transform_equals_compressais(oracle, part, source, target):
    model = build("cheng2020-attn", {"channels": 8, "parameter_width": 8}).double()
    module = getattr(model, part)
    fill(module)
    torch.testing.assert_close(module(oracle[source].double()).float(), oracle[target], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_latent_depends_on_earlier_ones_only(monkeypatch):
    monkeypatch.setattr(cheng2020, "for_rate", lambda y, y_hat, training: torch.zeros_like(y))
    model = small("cheng2020-attn").eval()
    y, z_hat = torch.randn(1, 32, 8, 8) * 3, torch.zeros(1, 32, 2, 2)
    likelihood = model.code_latent(y, z_hat)[1].flatten(2)
    for place in (0, 9, 36, 62):
        changed = y.flatten(2).clone()
        changed[:, :, place] += 9
        other = model.code_latent(changed.reshape(y.shape), z_hat)[1].flatten(2)
        assert torch.equal(likelihood[:, :, : place + 1], other[:, :, : place + 1])
        assert not torch.equal(likelihood[:, :, place + 1 :], other[:, :, place + 1 :])


# --- the contract of every architecture here --------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_estimates_and_gradients(name):
    model, x = small(name), torch.rand(2, 3, 128, 128)
    with torch.no_grad():  # latents that do not all round to zero
        (model.gain if hasattr(model, "gain") else model.g_a.scale4).log2_scale.add_(3)
    x_hat, bits_y, bits_z = model(x, torch.tensor([0.0, 6.5]))
    assert x_hat.shape == x.shape
    assert bits_y.shape == bits_z.shape == (2,)
    assert bool((bits_y > 0).all())
    assert bool((bits_z > 0).all())
    (x_hat.square().sum() + bits_y.sum() + bits_z.sum()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []


@pytest.mark.parametrize("name", ["ltchm", "cheng2020-attn"])
def test_rates_are_of_integers_in_evaluation_and_noisy_where_latents_are_trained(name):
    model, x, quality = small(name), torch.rand(1, 3, 128, 128), torch.tensor([3.0])
    first, second = (model(x, quality).bits_y for _ in range(2))
    assert not torch.equal(first, second)
    with torch.no_grad():
        untrained = model(x, quality)
        model.eval()
        first, second = (model(x, quality) for _ in range(2))
    assert torch.equal(first.bits_y, second.bits_y)
    assert torch.equal(first.bits_z, second.bits_z)
    assert torch.equal(first.bits_y, untrained.bits_y)


@pytest.mark.parametrize("name", ["cheng2020-attn", "cheng2020-transposed"])
def test_the_gain_sets_the_step_of_the_quantiser(name):
    model = small(name)
    y = torch.ones(2, 32, 1, 1)
    coarse, fine = model.gain(y, torch.tensor([1.0, 5.0]))[:, 0, 0, 0].tolist()
    assert fine / coarse == pytest.approx(2 ** (4 * 0.45))
    torch.testing.assert_close(model.inverse_gain(model.gain(y, torch.tensor([1.0, 5.0])), torch.tensor([1.0, 5.0])), y)


def test_wrong_names_and_options_are_refused():
    with pytest.raises(UsageError, match="no architecture 'vgg'"):
        build("vgg", {})
    with pytest.raises(LtchmError, match="unknown keys"):
        build("ltchm-no-dam", {"depth": 3})
    with pytest.raises(UsageError, match=r"unknown options \['depth'\]"):
        build("cheng2020-attn", {"depth": 3})
    with pytest.raises(UsageError, match="upsampling must be"):
        build("cheng2020-attn", {"upsampling": "nearest"})
