"""Layers with a counterpart in CompressAI against its frozen answers (see `make_compressai_oracle.py`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ltchm_geo.nn.layers import GDN
from ltchm_geo.nn.likelihood import FactorisedPrior, mixture_likelihood

ORACLE = Path(__file__).parent / "vectors" / "compressai_oracle.npz"
LIKELIHOOD_BOUND = 1e-9


def case(name):
    """Arrays of one case. A missing file is a failure: these vectors are never regenerated on the way."""
    with np.load(ORACLE, allow_pickle=False) as file:
        return {k.removeprefix(f"{name}."): torch.from_numpy(file[k]) for k in file if k.startswith(f"{name}.")}


def test_the_oracle_says_which_version_answered():
    with np.load(ORACLE, allow_pickle=False) as file:
        assert str(file["compressai_version"]) == "1.2.8"


@pytest.mark.parametrize("name", ["gdn", "igdn"])
@torch.no_grad()
def test_gdn_equals_compressai(name):
    frozen = case(name)
    layer = GDN(len(frozen["beta"]), inverse=name == "igdn")
    layer.load_state_dict({"beta": frozen["beta"], "gamma": frozen["gamma"]})  # same names, same parametrisation
    torch.testing.assert_close(layer(frozen["x"]).double(), frozen["out"], rtol=2e-5, atol=1e-6)


@torch.no_grad()
def test_factorised_prior_equals_entropy_bottleneck():
    frozen = case("bottleneck")
    z, likelihood = frozen.pop("z"), frozen.pop("likelihood")
    prior = FactorisedPrior(z.shape[1])
    prior.load_state_dict(frozen)
    expected = likelihood.clamp(min=LIKELIHOOD_BOUND)
    # Differences of nearly equal logits lose up to a thousandth of a likelihood far out in the tails.
    torch.testing.assert_close(prior(z).double(), expected, rtol=1e-3, atol=1e-9)


@torch.no_grad()
def test_mixture_likelihood_equals_gaussian_mixture_conditional():
    frozen = case("mixture")
    parameters = torch.cat([frozen[k].flatten(1, 2) for k in ("logits", "means", "log2_sigmas")], dim=1)
    ours = mixture_likelihood(frozen["y"], parameters).double()
    torch.testing.assert_close(ours, frozen["likelihood"].clamp(min=LIKELIHOOD_BOUND), rtol=1e-4, atol=1e-9)


@torch.no_grad()
def test_likelihoods_of_all_integers_sum_to_one():
    values = torch.arange(-300.0, 301)
    prior = FactorisedPrior(2)
    over_z = prior(values[None, None, None].expand(1, 2, 1, -1)).double().sum(-1)
    torch.testing.assert_close(over_z, torch.ones_like(over_z), rtol=0, atol=1e-4)
    parameters = torch.randn(1, 9, 1, 1).expand(-1, -1, 1, len(values))
    over_y = mixture_likelihood(values[None, None, None], parameters).double().sum()
    assert float(over_y) == pytest.approx(1, abs=1e-5)
