"""Every fast form of a layer equals its plain definition, written here as slowly and directly as possible."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from ltchm_geo.errors import InvalidWeightsError
from ltchm_geo.nn.attention import DAM, GCA, HPHAM, MSBFFN, IDConv, WindowAttention, from_windows, to_windows
from ltchm_geo.nn.config import QUALITY_ANCHORS, ModelConfig, level_to_lambda
from ltchm_geo.nn.hyperprior import MaskedContext, ParameterNetwork
from ltchm_geo.nn.layers import (
    DownBlock,
    QualityAffine,
    QualityScale,
    UpBlock,
    interpolate_anchors,
    leaky_relu,
    lower_bound,
)
from ltchm_geo.nn.model import LTCHM, round_through
from ltchm_geo.nn.transforms import Analysis, Synthesis, fold_quality

TINY = ModelConfig(channels=32, parameter_width=32)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def shake(module, amount=0.3):
    """Random parameters: many start at zeros or ones, where mistakes hide."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += amount * torch.randn_like(parameter) / max(1, parameter[0].numel()) ** 0.5
    return module


# --- dynamic attention ------------------------------------------------------------------------------------------------


def dynamic_kernels(conv, image):
    """Eq. 5 written out for one image (C, H, W): kernels (C, K, K) and biases (C,)."""

    def weights(pooled):
        hidden = F.gelu(conv.squeeze.weight[:, :, 0, 0] @ pooled + conv.squeeze.bias)
        logits = conv.expand.weight[:, :, 0, 0] @ hidden + conv.expand.bias
        e = torch.exp(logits.reshape(conv.groups, conv.channels))
        return e / e.sum(0)

    k = conv.kernel
    _, h, w = image.shape
    kernels = torch.zeros(conv.channels, k, k)
    for i in range(k):
        for j in range(k):
            rows = slice(i * h // k, math.ceil((i + 1) * h / k))
            columns = slice(j * w // k, math.ceil((j + 1) * w / k))
            f = weights(image[:, rows, columns].mean((1, 2)))
            kernels[:, i, j] = (f * conv.weight[:, :, i, j]).sum(0)
    return kernels, (weights(image.mean((1, 2))) * conv.bias).sum(0)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("groups", [2, 3])
@torch.no_grad()
def test_idconv_is_equation_5(kernel, groups):
    conv = shake(IDConv(8, kernel, reduction=2, groups=groups), 1.0)
    x = torch.randn(3, 8, 8, 10)
    out = conv(x)
    pad = kernel // 2
    for b, image in enumerate(x):
        kernels, biases = dynamic_kernels(conv, image)
        padded = F.pad(image, (pad, pad, pad, pad))
        plain = biases[:, None, None].expand(8, 8, 10).clone()
        for i in range(kernel):
            for j in range(kernel):
                plain += kernels[:, i, j, None, None] * padded[:, i : i + 8, j : j + 10]
        torch.testing.assert_close(out[b], plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", [1, 3])
@torch.no_grad()
def test_idconv_is_one_grouped_convolution_over_batch_and_channels(kernel):
    conv = shake(IDConv(8, kernel), 1.0)
    x = torch.randn(3, 8, 8, 8)
    kernels, biases = conv.kernels(x)
    grouped = F.conv2d(
        x.reshape(1, 24, 8, 8),
        kernels.reshape(24, 1, kernel, kernel),
        biases.reshape(24),
        padding=kernel // 2,
        groups=24,
    )
    torch.testing.assert_close(conv(x), grouped.reshape(3, 8, 8, 8), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(conv._all_images(x, kernels, biases), conv(x), rtol=1e-5, atol=1e-5)  # on GPUs


@torch.no_grad()
def test_dam_is_trunk_times_mask_and_images_do_not_mix():
    dam = shake(DAM(8))
    x = torch.randn(2, 8, 8, 8)
    both = dam(x)
    torch.testing.assert_close(both, x + dam.trunk(x) * torch.sigmoid(dam.mask(x)))
    torch.testing.assert_close(both, torch.cat([dam(x[:1]), dam(x[1:])]), rtol=1e-5, atol=1e-6)


def test_a_dam_with_gain_starts_as_the_identity_and_learns() -> None:
    dam, x = DAM(8, gain=True), torch.randn(1, 8, 8, 8)
    torch.testing.assert_close(dam(x), x)
    dam(x).square().sum().backward()
    assert dam.gain is not None
    assert dam.gain.grad is not None
    assert (dam.gain.grad != 0).all()
    shake(dam)
    torch.testing.assert_close(dam(x), x + dam.trunk(x) * torch.sigmoid(dam.mask(x)) * dam.gain)


# --- hybrid attention -------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_gca_is_the_papers_text():
    gca = shake(GCA(16), 1.0)
    x = torch.randn(2, 16, 5, 3)
    for image, out in zip(x, gca(x), strict=True):
        pooled, gated = image.mean((1, 2)), []
        for i, branch in enumerate(gca.branches):
            value, gate = (branch.weight[:, :, 0, 0] @ pooled[4 * i : 4 * i + 4] + branch.bias).chunk(2)
            gated.append(value / (1 + torch.exp(-gate)))
        factors = gca.merge.weight[:, :, 0, 0] @ torch.cat(gated) + gca.merge.bias
        torch.testing.assert_close(out, image * factors[:, None, None], rtol=1e-4, atol=1e-5)


def direct_attention(module, image):
    """Window attention of one image (C, H, W), head by head, window by window, pixel by pixel."""
    w, d = module.window, module.head_dim
    _, height, width = image.shape
    shift = w // 2 if module.shifted and min(height, width) > w else 0
    qkv = torch.einsum("oc,chw->ohw", module.qkv.weight[:, :, 0, 0], image) + module.qkv.bias[:, None, None]
    q, k, v = qkv.reshape(3, module.heads, d, height, width)
    out = torch.zeros(module.heads, d, height, width)

    def neighbours(y, x):
        """Pixels of the same window of the shifted grid; windows end at the border of the map."""
        top, left = (y - shift) // w * w + shift, (x - shift) // w * w + shift
        return [
            (r, c) for r in range(max(top, 0), min(top + w, height)) for c in range(max(left, 0), min(left + w, width))
        ]

    for head in range(module.heads):
        for y in range(height):
            for x in range(width):
                others = neighbours(y, x)
                scores = []
                for r, c in others:
                    bias = module.position_bias[head, (y - r + w - 1) * (2 * w - 1) + x - c + w - 1]
                    scores.append(q[head, :, y, x] @ k[head, :, r, c] / d**0.5 + bias)
                weights = torch.softmax(torch.stack(scores), 0)
                out[head, :, y, x] = sum(a * v[head, :, r, c] for a, (r, c) in zip(weights, others, strict=True))
    merged = out.reshape(-1, height, width)
    return torch.einsum("oc,chw->ohw", module.project.weight[:, :, 0, 0], merged) + module.project.bias[:, None, None]


@pytest.mark.parametrize(("shifted", "size"), [(False, (8, 8)), (True, (8, 8)), (True, (4, 4)), (True, (8, 12))])
@torch.no_grad()
def test_window_attention_is_its_definition(shifted, size):
    attention = shake(WindowAttention(8, head_dim=4, window=4, shifted=shifted), 1.0)
    x = torch.randn(2, 8, *size)
    plain = torch.stack([direct_attention(attention, image) for image in x])
    torch.testing.assert_close(attention(x), plain, rtol=1e-4, atol=1e-5)


def test_windows_go_there_and_back():
    x = torch.arange(2 * 6 * 8 * 12.0).reshape(2, 6, 8, 12)
    windows = to_windows(x, 4, 3)
    assert windows.shape == (2, 6, 2, 16, 3)
    assert windows[0, 1, 1, 5].tolist() == x[0, 3:, 1, 5].tolist()  # second window, second head, its pixel (1, 1)
    assert torch.equal(from_windows(windows, 8, 12), x)


@torch.no_grad()
def test_msbffn_hands_half_of_each_scale_to_the_next():
    ffn = shake(MSBFFN(8), 1.0)
    x = torch.randn(2, 8, 9, 9)
    first, second, third, fourth = leaky_relu(ffn.expand(x)).chunk(4, dim=1)
    conv1, conv3, conv5, conv7 = ffn.depthwise
    assert [conv.in_channels for conv in ffn.depthwise] == [8, 12, 14, 15]
    a = conv1(first)
    b = conv3(torch.cat([second, a[:, 4:]], 1))
    c = conv5(torch.cat([third, b[:, 6:]], 1))
    d = conv7(torch.cat([fourth, c[:, 7:]], 1))
    plain = ffn.reduce(leaky_relu(torch.cat([a[:, :4], b[:, :6], c[:, :7], d], 1)))
    torch.testing.assert_close(ffn(x), plain)


@torch.no_grad()
def test_hpham_stages_are_equation_6():
    hpham = shake(HPHAM(16, head_dim=4, window=4))
    assert [stage.attention.shifted for stage in hpham] == [False, True]
    x = torch.randn(1, 16, 8, 8)
    plain = x
    for stage in hpham:
        mean, var = plain.mean(1, keepdim=True), plain.var(1, unbiased=False, keepdim=True)
        norm = stage.norm1
        normed = (plain - mean) / torch.sqrt(var + norm.eps) * norm.weight[:, None, None] + norm.bias[:, None, None]
        x_cha, x_trans = stage.split(normed).split(8, dim=1)
        mid = stage.join(torch.cat([stage.channel(x_cha), stage.attention(x_trans)], 1)) + plain
        plain = stage.ffn(stage.norm2(mid)) + mid
    torch.testing.assert_close(hpham(x), plain, rtol=1e-4, atol=1e-5)


# --- context and parameters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [(0, 0), (3, 4), (5, 7)])
@torch.no_grad()
def test_context_sees_only_latents_above_and_to_the_left(position):
    context, quality = shake(MaskedContext(TINY)), torch.tensor([2.3])
    y = torch.randint(-5, 6, (1, 32, 6, 8)).float()
    changed = y.clone()
    changed[:, :, *position] += 3
    differs = (context(changed, quality) != context(y, quality)).any(1)[0]
    for iy in range(6):
        for ix in range(8):
            dy, dx = iy - position[0], ix - position[1]
            sees = (0 < dy <= 2 and abs(dx) <= 2) or (dy == 0 and 0 < dx <= 2)
            assert bool(differs[iy, ix]) == sees, (iy, ix)


@torch.no_grad()
def test_parameter_network_looks_at_one_position_at_a_time():
    network = shake(ParameterNetwork(TINY))
    hyper, context = torch.randn(2, 1, 64, 4, 4)
    one = network(hyper[..., 1:2, 2:3], context[..., 1:2, 2:3])
    torch.testing.assert_close(network(hyper, context)[..., 1:2, 2:3], one, rtol=1e-4, atol=1e-5)


# --- variable rate ----------------------------------------------------------------------------------------------------


def test_anchors_are_hit_exactly_and_interpolated_between():
    anchors = torch.randn(QUALITY_ANCHORS, 5)
    at = interpolate_anchors(anchors, torch.arange(float(QUALITY_ANCHORS)))
    torch.testing.assert_close(at, anchors, rtol=0, atol=0)
    between = interpolate_anchors(anchors, torch.tensor([0.25, 6.5]))
    torch.testing.assert_close(between[0], 0.75 * anchors[0] + 0.25 * anchors[1])
    torch.testing.assert_close(between[1], (anchors[6] + anchors[7]) / 2)


@torch.no_grad()
def test_quality_layers_scale_and_shift_by_the_anchors():
    scale, affine = QualityScale(4, exponent=0.5), shake(QualityAffine(4), 1.0)
    x, quality = torch.randn(2, 4, 3, 3), torch.tensor([2.0, 7.0])
    torch.testing.assert_close(scale(x, quality)[1], x[1] * 2**1.75)
    assert (scale.vectors(torch.tensor([3.5])) > 0).all()
    torch.testing.assert_close(
        affine(x, quality)[0], x[0] * affine.scale[2][:, None, None] + affine.shift[2][:, None, None]
    )


@torch.no_grad()
def test_geometric_scales_cancel_at_every_quality():
    """What one multiplies by before the quantiser, its inverse divides by after it; linear ones only at the anchors."""
    quality = torch.tensor([0.0, 2.0, 3.3125, 4.5, 7.0])
    products = {}
    for scales in ("linear", "geometric"):
        before, after = QualityScale(4, scales, exponent=0.45), QualityScale(4, scales, exponent=-0.45)
        before.log2_scale += 1.5
        after.log2_scale -= 1.5
        products[scales] = before.vectors(quality) * after.vectors(quality)
    torch.testing.assert_close(products["geometric"], torch.ones(5, 4))
    torch.testing.assert_close(products["linear"][[0, 1, 4]], torch.ones(3, 4))
    assert products["linear"][3, 0] == pytest.approx(1.0245, abs=1e-4)


@pytest.mark.parametrize("kind", [Analysis, Synthesis])
@pytest.mark.parametrize("quality", [0.0, 3.3125, 7.0])
@pytest.mark.parametrize(
    "variant", [{}, {"skip": "2x2", "latent_channels": 48, "deep_channels": 40, "scales": "geometric"}]
)
@torch.no_grad()
def test_folded_scales_are_the_same_function(kind, quality, variant):
    config = replace(TINY, **variant)
    transform = shake(kind(config)).double()  # GDN amplifies rounding; in double precision equality shows
    x = (torch.rand(2, 3, 64, 64) if kind is Analysis else torch.randint(-9, 10, (2, config.latent, 4, 4))).double()
    plain = transform(x, torch.full((2,), quality))
    folded = copy.deepcopy(transform)
    fold_quality(folded, quality)
    assert not torch.equal(folded.scale2.log2_scale, transform.scale2.log2_scale)
    torch.testing.assert_close(folded(x, torch.full((2,), quality)), plain, rtol=1e-6, atol=1e-6)


# --- residual blocks --------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_down_block_skip_is_a_strided_convolution():
    block, x = shake(DownBlock(3, 8)), torch.randn(2, 3, 8, 8)
    skip = F.conv2d(x, block.skip.weight, block.skip.bias, stride=2)
    plain = block.norm(block.conv2(leaky_relu(block.conv1(x)))) + skip
    torch.testing.assert_close(block(x), plain)


@torch.no_grad()
def test_wide_skips_lose_nothing_at_first():
    """Four pixels of three bands are twelve numbers: through the skips alone, twelve channels hold them all."""
    down, up, x = DownBlock(3, 12, "2x2"), UpBlock(12, 3, "2x2"), torch.randn(2, 3, 8, 8)
    up.skip.weight.copy_(down.skip.weight)  # (12, 3, 2, 2), both: a rotation and its inverse
    for block in (down, up):
        block.skip.bias.zero_()
        block.conv2.weight.zero_()
        block.conv2.bias.zero_()
    torch.testing.assert_close(up(down(x)), x)


@torch.no_grad()
def test_up_block_skip_holds_its_value_over_each_cell():
    block, x = shake(UpBlock(8, 4)), torch.randn(1, 8, 3, 3)
    rest = block(x) - block.norm(block.conv2(leaky_relu(block.deconv1(x))))
    value = F.conv2d(x, block.skip.weight, block.skip.bias)
    for i in range(2):
        for j in range(2):
            torch.testing.assert_close(rest[..., i::2, j::2], value, rtol=1e-4, atol=1e-5)


# --- gradients --------------------------------------------------------------------------------------------------------


def test_lower_bound_lets_values_grow_from_below():
    x = torch.tensor([-2.0, 0.5, 3.0], requires_grad=True)
    lower_bound(x, 1.0).backward(torch.tensor([-1.0, 1.0, 1.0]))
    assert x.grad is not None
    assert x.grad.tolist() == [-1.0, 0.0, 1.0]  # a negative gradient would raise x: let it pass
    assert lower_bound(x, 1.0).tolist() == [1.0, 1.0, 3.0]


def test_round_through_rounds_half_to_even_with_the_identitys_gradient():
    x = torch.tensor([-1.5, 0.5, 2.5, 0.7], requires_grad=True)
    out = round_through(x)
    out.sum().backward()
    assert out.tolist() == [-2.0, 0.0, 2.0, 1.0]
    assert x.grad is not None
    assert x.grad.tolist() == [1.0] * 4


@pytest.mark.parametrize("extreme", [False, True])
def test_every_parameter_gets_a_finite_gradient(extreme):
    model = LTCHM(TINY)
    x = torch.rand(2, 3, 128, 128)
    if extreme:  # constant tiles: pooled values, norms and variances are all at their limits
        x = torch.stack([torch.zeros(3, 128, 128), torch.ones(3, 128, 128)])
    out = model(x, torch.tensor([0.0, 7.0]))
    ((out.bits_y + out.bits_z).mean() / 128**2 + 1000 * ((out.x_hat - x) ** 2).mean()).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert not missing
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters())


@torch.no_grad()
def test_coding_path_repeats_the_training_path():
    model, quality = shake(LTCHM(TINY), 0.05).eval(), torch.tensor([1.5, 6.0])
    x = torch.rand(2, 3, 128, 128)
    y, z = model.analyse(x, quality)
    estimate = model(x, quality)
    torch.testing.assert_close(model.synthesise(y, quality), estimate.x_hat)
    assert model.parameters_of(y.float(), z.float(), quality).shape == (2, 9 * 32, 8, 8)
    assert (estimate.bits_y > 0).all()
    assert (estimate.bits_z > 0).all()


# --- configuration ----------------------------------------------------------------------------------------------------


def test_latent_channels_are_as_many_as_the_network_is_wide_unless_named():
    assert ModelConfig(channels=192).latent == 192
    model = LTCHM(ModelConfig(channels=32, latent_channels=72, parameter_width=32))
    y, z = model.analyse(torch.rand(1, 3, 128, 128), torch.tensor([3.0]))
    assert (y.shape, z.shape) == ((1, 72, 8, 8), (1, 32, 2, 2))
    assert model(torch.rand(1, 3, 128, 128), torch.tensor([3.0])).x_hat.shape == (1, 3, 128, 128)


@pytest.mark.parametrize("dam", ["latent", "table1"])
def test_deep_channels_are_those_at_an_eighth(dam):
    assert ModelConfig(channels=192).deep == 192
    model = LTCHM(ModelConfig(channels=32, latent_channels=72, deep_channels=48, parameter_width=32, dam=dam))
    layers = (model.g_a.down2.conv2, model.g_a.down3.conv2, model.g_s.up3.conv2, model.g_s.up2.conv2)
    assert [layer.out_channels for layer in layers] == [32, 48, 48, 32]
    assert model(torch.rand(1, 3, 128, 128), torch.tensor([3.0])).x_hat.shape == (1, 3, 128, 128)


def test_config_round_trips_and_rejects_what_it_does_not_know():
    config = ModelConfig(channels=192, dam="table1")
    assert ModelConfig.from_dict(config.to_dict()) == config
    with pytest.raises(InvalidWeightsError, match="unknown keys"):
        ModelConfig.from_dict({"channels": 128, "depth": 3})


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": 100},
        {"channels": 0},
        {"latent_channels": 100},
        {"latent_channels": -8},
        {"latent_channels": 4104},
        {"latent_channels": "192"},
        {"latent_channels": 8, "reduction": 16},
        {"deep_channels": 100},
        {"deep_channels": True},
        {"deep_channels": 8, "reduction": 16},
        {"window": "4"},
        {"dam": "none"},
        {"hpham": "4x4"},
        {"skip": "3x3"},
        {"scales": "cubic"},
    ],
)
def test_config_rejects_impossible_networks(wrong):
    with pytest.raises(InvalidWeightsError, match="model config"):
        ModelConfig(**wrong)


def test_levels_are_sixteenths_of_an_octave_of_lambda():
    assert [level_to_lambda(level) for level in (0, 16, 48, 112)] == [128, 256, 1024, 16384]
