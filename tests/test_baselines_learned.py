"""Qian2020, Qian2022, TCM and SegPIC: costs against the published networks', causality, gradients, a few steps."""

from __future__ import annotations

import pytest
import torch

from ltchm_geo.baselines import channelwise, qian2020, qian2022
from ltchm_geo.baselines.attention_modules import SAM, WAM, SWAtten
from ltchm_geo.baselines.qian2020 import GSDN, GlobalReference
from ltchm_geo.baselines.qian2022 import diamond_offsets
from ltchm_geo.baselines.registry import build, count
from ltchm_geo.baselines.segpic import RegionAdaptiveTransform
from ltchm_geo.errors import UsageError
from ltchm_geo.nn.complexity import count_cost
from ltchm_geo.nn.likelihood import gaussian_likelihood, mixture_likelihood

TINY = {
    "qian2020": {"channels": 8, "latent": 8, "hyper": 8},
    "qian2022": {"channels": 8, "latent": 8, "hyper": 8, "width": 16, "heads": 2, "head_dim": 8, "top_k": 8},
    "tcm": {
        "channels": 8,
        "latent": 10,
        "hyper": 8,
        "widths": (8,),
        "attention": 8,
        "head_dims": (8, 8, 8, 8, 8),
    },
    "segpic": {
        "channels": 8,
        "latent": 16,
        "hyper": 8,
        "slices": 8,
        "widths": (8,),
        "hyper_widths": (8, 8, 8),
        "region_widths": (8, 8, 8),
        "last": 8,
    },
}


def tiny(name, **more):
    torch.manual_seed(3)
    return build(name, {**TINY[name], **more})


def image(side=128, batch=1):
    """Smooth colours with some texture."""
    torch.manual_seed(5)
    y, x = torch.meshgrid(torch.linspace(0, 3, side), torch.linspace(0, 4, side), indexing="ij")
    waves = torch.stack([torch.sin(3 * x + y), torch.cos(2 * y), torch.sin(9 * x * y)])
    return (0.5 + 0.3 * waves + 0.03 * torch.randn(3, side, side)).expand(batch, -1, -1, -1)


# --- costs ------------------------------------------------------------------------------------------------------------

# Exact counts of the published code at 3x256x256, in G and M, and what ours leave out of them, for these reasons:
# - Qian2020 runs its 1x1 network of the context twice on the same features: 256 places x 3.539 M;
# - Qian2022 multiplies every query with the embedding of every pair, ours with that of every offset: at 16x16, eight
#   layers, 256 x (256 - 49) x 384 each. It predicts a mixture weight for its one Gaussian: 1536 x 128 weights, 256
#   places each.
PUBLISHED = {
    "qian2020": (21.56, 35.99, 256 * 3.538944e-3, 0.0),
    "qian2022": (10.96, 39.11, 8 * 256 * 207 * 384e-9 + 256 * 1536 * 128e-9, 1536 * 128e-6),
    "tcm": (121.01, 76.57, 0.0, 0.0),
    "segpic": (47.23, 83.50, 0.0, 0.0),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_costs_match_the_published_networks(name):
    macs, parameters, fewer_macs, fewer_parameters = PUBLISHED[name]
    counted = count(name)
    assert counted.macs / 1e9 == pytest.approx(macs - fewer_macs, rel=1e-3)
    assert counted.parameters / 1e6 == pytest.approx(parameters - fewer_parameters, rel=1e-3)


@pytest.mark.parametrize(
    ("module", "gmacs", "parameters"), [(SAM, 99.05, 0.758), (SWAtten, 106.3, 0.787), (WAM, 121.6, 0.908)]
)
def test_attention_modules_match_table_5(module, gmacs, parameters):
    with torch.device("meta"):
        counted = count_cost(module(192), torch.zeros(8, 192, 128, 128))
    assert counted.macs / 1e9 == pytest.approx(gmacs, rel=1e-3)
    assert counted.parameters / 1e6 == pytest.approx(parameters, rel=1e-3)


# --- the training contract --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("mixed_precision", [False, True])
def test_estimates_are_finite_float32_and_of_the_right_shape(name, mixed_precision):
    x = image(batch=2)
    x_hat, bits_y, bits_z = tiny(name)(x, torch.tensor([0.0, 6.5]), mixed_precision=mixed_precision)
    assert x_hat.shape == x.shape
    assert bits_y.shape == bits_z.shape == (2,)
    for tensor in (x_hat, bits_y, bits_z):
        assert tensor.dtype == torch.float32
        assert torch.isfinite(tensor).all()
    assert (bits_y > 0).all()
    assert (bits_z > 0).all()


@pytest.mark.parametrize("name", TINY)
def test_gradients_reach_every_parameter(name):
    model = tiny(name)
    with torch.no_grad():  # latents and side information that do not all round to zero
        model.gain.log2_scale.add_(6)
        model.h_a[-1].weight.mul_(20)
        if name == "segpic":
            model.regions1.encoder[-1].weight.mul_(100)
    x_hat, bits_y, bits_z = model(image(256), torch.tensor([3.5]))
    (x_hat.square().sum() + bits_y.sum() + bits_z.sum()).backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("name", TINY)
def test_a_few_steps_lower_the_loss(name):
    model, x, quality = tiny(name), image(), torch.tensor([4.0])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        x_hat, bits_y, bits_z = model(x, quality)
        loss = 2048 * (x_hat - x).square().mean() + (bits_y + bits_z).mean() / x[0, 0].numel()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-3:]) < 0.9 * losses[0]


@pytest.mark.parametrize("name", TINY)
def test_unknown_options_are_refused(name):
    with pytest.raises(UsageError, match="depth"):
        build(name, {"depth": 3})


# --- causality: with the coded value fixed, a likelihood shows which parameters it was taken under --------------------


@pytest.fixture
def coded_zero(monkeypatch):
    for module in (qian2020, qian2022, channelwise):
        monkeypatch.setattr(module, "for_rate", lambda x, x_hat, training: torch.zeros_like(x))


@pytest.mark.usefixtures("coded_zero")
@pytest.mark.parametrize("name", ["qian2020", "qian2022"])
@pytest.mark.parametrize("spread", [0.4, 5.0])  # mostly zero latents, where similarities tie; and busy ones
def test_parameters_depend_on_earlier_places_only(name, spread):
    model = tiny(name).eval()
    y, z_hat = torch.randn(1, 8, 8, 8) * spread, torch.zeros(1, 8, 2, 2)
    with torch.no_grad():
        likelihood = model.code_latent(y, z_hat)[1].flatten(2)
        for place in (0, 19, 40, 62):
            changed = y.flatten(2).clone()
            changed[:, :, place] += 40 * torch.randn(8)
            other = model.code_latent(changed.reshape(y.shape), z_hat)[1].flatten(2)
            same = torch.isclose(likelihood, other, rtol=1e-4, atol=1e-7).all(dim=1)[0]
            assert same[: place + 1].all()
            assert not same[place + 1]


@pytest.mark.usefixtures("coded_zero")
@pytest.mark.parametrize("name", ["tcm", "segpic"])
def test_a_slice_depends_on_earlier_slices_only(name):
    entropy = tiny(name).entropy
    channels = TINY[name]["latent"]
    step = channels // entropy.slices
    y, features = torch.randn(1, channels, 8, 8), torch.randn(1, channels, 8, 8)
    with torch.no_grad():
        y_hat, likelihood = entropy(y, features, features)
        for part in range(entropy.slices):
            changed = y.clone()
            changed[:, part * step : (part + 1) * step] += 40
            other_y, other = entropy(changed, features, features)
            end = (part + 1) * step
            assert torch.equal(likelihood[:, :end], other[:, :end])
            assert torch.equal(y_hat[:, : part * step], other_y[:, : part * step])
            # Slices after the fifth serve no other as support.
            later = part + 1 < entropy.slices and part < entropy.support
            assert torch.equal(likelihood[:, end:], other[:, end:]) != later


# --- parts against what they promise ----------------------------------------------------------------------------------


def test_slices_are_restored_within_one_step():
    entropy = tiny("tcm").entropy
    y, features = 5 * torch.randn(1, 10, 8, 8), torch.randn(1, 10, 8, 8)
    y_hat, likelihood = entropy(y, features, features)
    assert (y - y_hat).abs().max() < 1.0  # half by rounding about the mean, half by the guessed error
    assert likelihood.shape == y.shape


def test_reference_is_the_same_pattern_seen_before():
    torch.manual_seed(1)
    row = torch.randn(1, 4, 6, 8)
    y_hat = torch.cat([row, row], dim=3)  # the right half repeats the left one
    likelihood = torch.rand(1, 4, 6, 16)
    features, similarity, confidence = GlobalReference(4)(y_hat, likelihood)
    inside = (slice(None), slice(None), slice(1, None), slice(9, 15))
    seen = (slice(None), slice(None), slice(1, None), slice(1, 7))
    assert torch.allclose(similarity[inside], torch.ones(()), atol=1e-5)
    assert torch.allclose(confidence[inside], likelihood.mean(1, keepdim=True)[seen])
    assert features.shape == (1, 8, 6, 16)
    assert similarity[0, 0, 0, 0] == confidence[0, 0, 0, 0] == pytest.approx(1e-8)  # nothing before the first


def test_gsdn_is_gdn_of_what_is_left_after_the_mix():
    norm = GSDN(3)
    x = torch.randn(1, 3, 2, 2)
    beta, gamma = norm.coefficients()
    divisor = torch.sqrt(beta[:, None, None] + torch.einsum("ij,bjhw->bihw", gamma, x * x))
    assert torch.allclose(norm(x), (x - norm.shift(x)) / divisor)
    norm.inverse = True
    assert torch.allclose(norm(x), x * divisor + norm.shift(x))


def test_offsets_within_the_diamond_have_rows_of_their_own():
    offsets = diamond_offsets(9, 9, 7, torch.device("cpu"))
    centre = 4 * 9 + 4
    rows = offsets[centre].reshape(9, 9)
    assert rows[4, 4] == 3 * 7 + 3
    assert rows[1, 4] == 0 * 7 + 3
    assert rows[5, 6] == 4 * 7 + 5
    assert rows[2, 6] == rows[0, 4] == rows[4, 8] == 0  # L1 length four: far
    near = rows[rows > 0]
    assert len(near) == len(near.unique()) == 25


def test_transformer_attends_to_the_highest_scores_only():
    stage = qian2022.TransformerStage(
        qian2022.Qian2022Options(width=16, heads=2, head_dim=8), blocks=1, side=5, top_k=1
    )
    block = stage.blocks[0]
    qkv = torch.randn(1, 3 * 16, 3, 4)
    offsets = diamond_offsets(3, 4, 5, qkv.device)
    out = block.attend(qkv, stage.table, offsets, None).reshape(2, 8, 12, 1)  # heads, head_dim, places
    values = qkv[:, 32:].reshape(2, 8, 1, 12)
    distance = (out - values).abs().amax(dim=1)  # from every place's result to every place's value
    assert (distance.amin(dim=2) < 1e-6).all()


def test_region_kernels_differ_by_region():
    torch.manual_seed(2)
    rat, x = RegionAdaptiveTransform(4), torch.randn(1, 4, 16, 16)
    regions = torch.zeros(1, 4, 4, 4)
    changed = regions.clone()
    changed[:, :, 0, 0] = 3
    with torch.no_grad():
        rat.gate[-2].weight.zero_()  # the gate pools over the image
        differs = (rat(x, regions) != rat(x, changed)).any(dim=1)[0]
    assert differs[:4, :4].all()
    assert not differs[6:, :].any()
    assert not differs[:, 6:].any()


def test_one_gaussian_is_a_mixture_of_equal_ones():
    y, mean, log_sigma = 3 * torch.randn(1, 5, 4, 4), torch.randn(1, 5, 4, 4), torch.randn(1, 5, 4, 4)
    logits = torch.randn(1, 3, 5, 4, 4)
    parameters = torch.stack([logits, *(p[:, None].expand(-1, 3, -1, -1, -1) for p in (mean, log_sigma))], dim=1)
    mixture = mixture_likelihood(y, parameters.reshape(1, 45, 4, 4))
    assert torch.allclose(gaussian_likelihood(y, mean, log_sigma), mixture, rtol=1e-5)
