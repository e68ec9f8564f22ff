"""The fast forms of g_a and g_s: the same functions within the precision they promise."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ltchm_geo.nn.config import ModelConfig
from ltchm_geo.nn.inference import Doubling, Lowered, prepare
from ltchm_geo.nn.layers import deconv3x3
from ltchm_geo.nn.transforms import Analysis, Synthesis, fold_quality
from ltchm_geo.nn.winograd import MIN_CHANNELS, WinogradConv, suits

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(1)
    with torch.inference_mode():
        yield


def relative_error(found, expected):
    return ((found.float() - expected).square().mean() / expected.square().mean()).sqrt().item()


def channels_last(*shape):
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


# --- Winograd ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(2, 2), (4, 10), (18, 6), (22, 34)])
@pytest.mark.parametrize(("c_in", "c_out"), [(8, 8), (5, 17), (96, 128)])
def test_winograd_is_the_convolution(height, width, c_in, c_out):
    conv = nn.Conv2d(c_in, c_out, 3, padding=1)
    x = channels_last(1, c_in, height, width)
    found = WinogradConv(conv)(x)
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=torch.channels_last)
    # Inputs, weights and products each lose up to 2**-9 of themselves.
    assert relative_error(found, conv(x)) < 2.0**-7


def test_winograd_is_exact_where_bfloat16_is():
    conv = nn.Conv2d(4, 4, 3, padding=1)
    conv.weight.copy_(torch.randint(-1, 2, conv.weight.shape) * 4)
    conv.bias.copy_(torch.tensor([0.0, 1.0, -2.0, 8.0]))
    x = torch.randint(-1, 2, (3, 4, 10, 12)).float().contiguous(memory_format=torch.channels_last)
    expected = conv(x)
    assert expected.abs().max() < 256  # whole numbers that bfloat16 holds
    assert (WinogradConv(conv)(x).float() == expected).all()
    assert (WinogradConv(conv)(x.bfloat16()).float() == expected).all()


def test_winograd_treats_images_alike():
    winograd, x = WinogradConv(nn.Conv2d(6, 6, 3, padding=1)), channels_last(3, 6, 12, 8)
    alone = torch.cat([winograd(image) for image in x.split(1)])
    assert (winograd(x) == alone).all()


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(128, 128, 3, padding=1, stride=2),
        nn.Conv2d(128, 128, 3, padding=0),
        nn.Conv2d(128, 128, 3, padding=1, groups=128),
        nn.Conv2d(128, 128, 1),
        nn.Conv2d(MIN_CHANNELS - 1, 128, 3, padding=1),
        deconv3x3(128, 128),
    ],
)
def test_winograd_only_where_it_applies(conv):
    assert not suits(conv)
    assert suits(nn.Conv2d(MIN_CHANNELS, 128, 3, padding=1))


# --- transforms -------------------------------------------------------------------------------------------------------


def test_doubling_is_the_transposed_convolution():
    deconv = deconv3x3(5, 3)
    x = channels_last(2, 5, 6, 9)
    assert torch.allclose(Doubling(deconv)(x), deconv(x), atol=1e-6)


@pytest.fixture(params=[Analysis, Synthesis])
def transform(request):
    module = request.param(ModelConfig(channels=128)).eval()
    fold_quality(module, 3.0)
    return module


def fast(transform, precision):
    module = copy.deepcopy(transform)
    prepare(module, precision, CPU)
    return module.to(memory_format=torch.channels_last)


def test_precisions_agree(transform):
    quality = torch.tensor([3.0])
    x = torch.rand(1, 3, 128, 128) if isinstance(transform, Analysis) else torch.randn(1, 128, 8, 8).mul(3).round()
    plain = transform(x, quality)
    single, half = (fast(transform, precision)(x, quality) for precision in ("float32", "bfloat16"))
    assert single.dtype == half.dtype == torch.float32
    assert relative_error(single, plain) < 1e-5
    assert 1e-5 < relative_error(half, plain) < 0.01


def test_what_is_sensitive_stays_in_single_precision(transform):
    module = fast(transform, "bfloat16")
    lowered = {name for name, m in module.named_modules() if isinstance(m, Lowered | WinogradConv)}
    assert {"stage1.conv1", "stage1.1.conv1"} & lowered
    assert "down1.conv1" not in lowered
    assert not any(word in name for name in lowered for word in ("skip", "up0", "up3", "stage4", "down4"))
    assert not any(isinstance(m, Lowered | WinogradConv) for m in fast(transform, "float32").modules())


def test_narrow_networks_use_plain_convolutions():
    module = Synthesis(ModelConfig(channels=32)).eval()
    fold_quality(module, 3.0)
    prepare(module, "bfloat16", CPU)
    assert any(isinstance(m, Lowered) for m in module.modules())
    assert not any(isinstance(m, WinogradConv) for m in module.modules())


def test_lowered_convolution_takes_any_precision():
    conv, x = nn.Conv2d(3, 4, 3), torch.randn(1, 3, 8, 8)
    expected = F.conv2d(x, conv.weight, conv.bias)
    lowered = Lowered(copy.deepcopy(conv))
    for found in (lowered(x), lowered(x.bfloat16())):
        assert found.dtype == torch.bfloat16
        assert relative_error(found, expected) < 0.01
