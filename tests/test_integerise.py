from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from exact_cases import CONFIG, LEVELS, latents, small_exact, small_model

from ltchm_geo.entropy import rans, tables
from ltchm_geo.entropy.integer_net import ExactCoder
from ltchm_geo.errors import UsageError
from ltchm_geo.nn.config import ModelConfig
from ltchm_geo.nn.likelihood import FactorisedPrior
from ltchm_geo.nn.model import LTCHM
from ltchm_geo.training.integerise import calibration_latents, integerise, prior_tables, rate_report

N = CONFIG.channels
SCALE = np.repeat([256, 64, 16], 3)[:, None]


def float_parameters(model, y, z, level):
    """The float64 network's parameters (B, P, 9, N) in wavefront order and in the units of the integer ones."""
    exact = LTCHM(model.config)
    exact.load_state_dict(model.state_dict())
    quality = torch.full((len(y),), level / 16, dtype=torch.float64)
    with torch.no_grad():
        found = exact.double().parameters_of(y.double(), z.double(), quality)
    n, (h, w) = model.config.channels, y.shape[2:]
    order = np.concatenate(rans.wavefront(h, w))
    values = found.reshape(len(y), 9, n, h * w).permute(0, 3, 1, 2).numpy()[:, order] * SCALE
    values[:, :, 6:] = values[:, :, 6:].clip(tables.LS_MIN, tables.LS_MAX)
    return values


@pytest.mark.parametrize("level", LEVELS)
def test_close_to_the_float_network(level):
    y, z = latents(2, seed=100 + level)
    coder = ExactCoder.from_tensors(*small_exact())
    found = coder.symbols(y, z, level)[2]
    error = np.abs(found - float_parameters(small_model(), y, z, level)).mean(axis=(0, 1, 3))
    # Rounding alone gives 0.25 units; the rest is what the integer layers add.
    assert (error < [4, 4, 4, 1.2, 1.2, 1.2, 0.6, 0.6, 0.6]).all(), error


def test_deep_hybrid_variant():
    """Attention at both sizes (Tab. 2 of the paper)."""
    torch.manual_seed(0)
    model = LTCHM(ModelConfig(channels=16, parameter_width=32, head_dim=8, hpham="table2")).eval()
    y, z = latents(1, seed=3)
    tensors, spec = integerise(model, [(y, z, 40)])
    assert [layer["op"] for layer in spec["hyper"]].count("hybrid") == 4
    coder = ExactCoder.from_tensors(tensors, spec)
    error = np.abs(coder.symbols(y, z, 40)[2] - float_parameters(model, y, z, 40))
    assert error.mean() < 0.4


def test_description_is_plain_json_and_model_is_untouched():
    model = small_model()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    tensors, spec = integerise(model, [(*latents(1), 3)])
    assert json.loads(json.dumps(spec)) == spec
    assert all(torch.equal(v, before[k]) and v.dtype == before[k].dtype for k, v in model.state_dict().items())
    assert {str(a.dtype) for a in tensors.values()} == {"int8", "int16", "int32", "int64", "uint32"}
    assert not any(m._forward_hooks for m in model.modules())


def test_weights_use_their_sixteen_bits():
    tensors, _ = small_exact()
    peaks = np.abs(tensors["mlp.1.weight"].astype(int)).max(axis=0)
    assert (peaks >= 2**13).all()


def test_calibration_is_needed_and_must_be_finite():
    with pytest.raises(UsageError):
        integerise(small_model(), [])
    broken = LTCHM(CONFIG)
    torch.nn.init.constant_(broken.parameter_net.layers[0].bias, float("nan"))
    with pytest.raises(UsageError):
        integerise(broken, [(*latents(1), 3)])


def test_prior_tables():
    torch.manual_seed(1)
    prior = FactorisedPrior(5)
    with torch.no_grad():
        prior.biases[0] += torch.linspace(-300, 300, 5)[:, None, None]  # one channel far below, one far above
    found = prior_tables(prior)
    assert found.dtype == np.uint32
    frequencies = np.diff(tables.check_z_cdf(found), axis=1)
    assert frequencies.min() >= 1
    z = torch.arange(-63, 64).reshape(1, 1, 1, -1).expand(1, 5, 1, -1)
    expected = prior(z)[0, :, 0].detach().numpy()
    np.testing.assert_allclose(frequencies[:, 1:-1] / 2**24, expected, atol=2e-6, rtol=1e-4)


def test_rate_report():
    model = small_model()
    crops = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(2))
    tensors, spec = integerise(model, calibration_latents(model, crops, (0, 112)))
    report = rate_report(model, ExactCoder.from_tensors(tensors, spec), crops, (0, 112))
    assert list(report) == [0, 112]
    for row in report.values():
        assert row["ideal"] <= row["real"]
        assert abs(row["ideal"] / row["float"] - 1) < 0.01
        assert row["cost"] == pytest.approx(row["real"] / row["float"] - 1)
