from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from ltchm_geo.entropy import arithmetic as ar
from ltchm_geo.entropy import tables
from ltchm_geo.entropy.byte_products import bytes_are_exact
from ltchm_geo.errors import InvalidWeightsError, UsageError

CPU = torch.device("cpu")
EXP = torch.from_numpy(tables.load().exp.copy())
MODES = ("float64", "split32")


def extremes(shape, rng, kind):
    if kind == "random":
        return rng.integers(-32767, 32767, shape, endpoint=True)
    if kind == "largest":
        return np.full(shape, 32767)
    return rng.choice([-32767, 32767, -32640, 32640, 127, 128, -128, -129, 0], shape)


def tensor(array):
    return torch.from_numpy(np.asarray(array, dtype=np.float64))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["random", "largest", "edges"])
@pytest.mark.parametrize("rows", [1, 511, 512, 513, 3000])
def test_matmul(mode, kind, rows):
    rng = np.random.default_rng(rows)
    a, b = extremes((2, 3, rows), rng, kind), extremes((2, rows, 5), rng, kind)
    np.testing.assert_array_equal(ar.matmul(tensor(a), tensor(b), mode).numpy(), (a @ b).astype(np.float64))


@pytest.mark.parametrize("value", [32768, -32768, 32767, -32767, 128, 127, -128, -129, 0])
def test_halves(value):
    high, low = (int(h) for h in ar.split(tensor([value])))
    assert value == 256 * high + low
    assert max(abs(high), abs(low)) <= 128


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["random", "largest", "edges"])
def test_linear_is_a_shift_of_integers(mode, kind):
    rng = np.random.default_rng(3)
    x = extremes((7, 600), rng, kind)
    weight = extremes((600, 9), rng, kind).astype(np.int16)
    bias = rng.integers(-(2**45), 2**45, 9)
    shift = np.array([0, 1, 2, 15, 24, 30, 33, 39, 40], np.int8)
    acc = x @ weight.astype(np.int64) + bias
    expected = np.array(
        [[(int(v) * 2 + (1 << int(s))) >> (int(s) + 1) for v, s in zip(r, shift, strict=True)] for r in acc]
    )
    found = ar.Linear(weight, bias, shift, CPU, mode)(tensor(x))
    np.testing.assert_array_equal(found.numpy(), expected.clip(-32767, 32767))


@pytest.mark.parametrize("mode", MODES)
def test_linear_with_residual_and_leaky_relu(mode):
    weight, bias, shift = np.array([[3], [-5]], np.int16), np.array([7]), np.array([4], np.int8)
    linear = ar.Linear(weight, bias, shift, CPU, mode)
    x, residual = tensor([[100, 1], [-4000, 9]]), (tensor([[6], [-3]]), 0.5)
    assert linear(x, residual=residual).tolist() == [[22.0], [-754.0]]  # 302 / 16 + 3, -12038 / 16 - 1.5
    assert linear(x, residual=residual, leaky=1).tolist() == [[22.0], [-6.0]]


def test_sums_out_of_range_are_refused():
    ones = np.ones((4, 2), np.int16)
    zero, shift = np.zeros(2, np.int64), np.zeros(2, np.int8)
    ar.check_sums(ones, zero, shift)
    cases = [
        (ones, zero + (1 << 50), shift),
        (ones, np.full(2, -(2**63)), shift),
        (np.full(((1 << 20) + 64, 2), 32767, np.int16), zero, shift),
        (ones, zero, shift + np.int8(41)),
        (ones, zero, shift - np.int8(16)),
        (ones, zero + (1 << 36), shift - np.int8(15)),
    ]
    for case in cases:
        with pytest.raises(InvalidWeightsError):
            ar.check_sums(*case)


@pytest.mark.parametrize(("shift", "residual"), [(0, 3), (25, -12), (10, 40), (10, -20)])
def test_residuals_out_of_range_are_refused(shift, residual):
    ar.check_residual(np.array([20], np.int8), 0)
    with pytest.raises(InvalidWeightsError):
        ar.check_residual(np.array([shift], np.int8), residual)


def test_leaky_relu_then_rounding():
    x = np.arange(-1000, 1000)
    expected = [v if v >= 0 else (2 * v + 128) >> 8 for v in x.tolist()]
    assert ar.requantise(ar.leaky_relu(tensor(x))).int().tolist() == expected


def test_multiply():
    a, b = tensor([32767, -32767, 3, -3, 1]), tensor([32767, 32767, 1, 1, 0])
    assert ar.multiply(a, b, 15).int().tolist() == [32766, -32766, 0, 0, 0]
    assert ar.multiply(a, b, 1).int().tolist() == [32767, -32767, 2, -1, 0]


def integers(shape, seed, limit=32767):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-limit, limit + 1, shape, generator=generator).double()


def test_neighbourhoods_are_convolutions():
    """float64 convolutions of small integers are exact whatever algorithm PyTorch picks."""
    x = integers((2, 5, 4, 6), 0, 100)
    maps = x.permute(0, 3, 1, 2)
    kernel = integers((9 * 6, 7), 1, 100)
    dense = kernel.reshape(3, 3, 6, 7)
    expected = F.conv2d(maps, dense.permute(3, 2, 0, 1), padding=1)
    assert torch.equal((ar.unfold3x3(x) @ kernel).permute(0, 3, 1, 2), expected.round())
    phases = []
    for py, px in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = torch.cat([dense[ky, kx] for ky, _ in ar.PHASES[py] for kx, _ in ar.PHASES[px]])
        phases.append(ar.unfold_phase(x, py, px) @ weight)
    expected = F.conv_transpose2d(maps, dense.permute(2, 3, 0, 1), stride=2, padding=1, output_padding=1)
    assert torch.equal(ar.interleave(phases).permute(0, 3, 1, 2), expected.round())


@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_depthwise(size):
    x, kernel, bias = integers((2, 5, 8, 6), 2, 100), integers((size * size, 6), 3, 100), integers((6,), 4)
    weight = kernel.T.reshape(6, 1, size, size)
    expected = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=size // 2, groups=6)
    assert torch.equal(ar.depthwise(x, kernel, bias).permute(0, 3, 1, 2), expected.round())


def test_causal_taps():
    h, w = 4, 5
    canvas = np.zeros((h + 2, w + 4), int)
    canvas[2:, 2:-2] = np.arange(1, h * w + 1).reshape(h, w)
    taps = canvas.reshape(-1)[ar.causal_taps(w, np.arange(h * w))]
    assert taps[0].tolist() == [0] * 12
    assert taps[2 * w + 3].tolist() == [2, 3, 4, 5, 0, 7, 8, 9, 10, 0, 12, 13]


@settings(deadline=None)
@given(st.integers(-(2**44), 2**44), st.integers(1, 2**44))
def test_divide(a, b):
    assert int(ar.divide(torch.tensor(a), torch.tensor(b))) == (2 * a + b) // (2 * b)


@settings(deadline=None)
@given(st.one_of(st.integers(0, 2**26).map(lambda v: v * v), st.integers(0, 2**53 - 1)), st.integers(-1, 1))
def test_isqrt(value, step):
    value = min(max(value + step, 0), 2**53 - 1)
    assert int(ar.isqrt(torch.tensor(value))) == math.isqrt(value)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([2, 48, 1024]), st.sampled_from([0, 1, 30, 32767]))
def test_channel_norm(seed, channels, limit):
    x = integers((3, channels), seed, limit)
    epsilon, bits = 1 + channels * channels, 11
    expected = []
    for row in x.long().tolist():
        root = math.isqrt(channels * sum(v * v for v in row) - sum(row) ** 2 + epsilon)
        expected.append([(2 * ((channels * v - sum(row)) << bits) + root) // (2 * root) for v in row])
    found = ar.channel_norm(x, epsilon, bits)
    assert found.long().tolist() == np.clip(expected, -32767, 32767).tolist()
    if limit > 1000 and channels > 2:  # else the whole-numbered root is coarse: two numbers may be close to each other
        floats = F.layer_norm(x, (channels,), eps=epsilon / channels**2) * 2**bits
        torch.testing.assert_close(found, floats.clamp(-32767, 32767), atol=1.0, rtol=0.001)


def test_channel_norm_at_its_bounds():
    x = torch.full((1, 1024), 32767.0, dtype=torch.float64)
    x[:, ::2] = -32767
    assert ar.channel_norm(x, 1 << 50, 14).abs().max() <= 32767
    assert ar.channel_norm(x.abs(), 1, 14).abs().max() == 0
    x[:] = 0
    x[0, 0] = 32767
    assert int(ar.channel_norm(x, 1, 10)[0, 0]) == 32752  # sqrt(1023) * 1024


def test_mean():
    x = torch.tensor([1.0, 2, 2, -9]).double().reshape(1, 2, 2, 1)
    assert ar.mean(x, 0).item() == -1  # -1 exactly
    assert ar.mean(x[:, :1], 0).item() == 2  # 1.5 goes up
    assert ar.mean(-x[:, :1], 0).item() == -1
    assert ar.mean(x[:, :1], 1).item() == 3
    assert ar.mean(torch.full((1, 2, 2, 1), 32767.0).double(), 14).item() == 32767


def test_softmax():
    logits = integers((50, 16), 5, 2000)
    found = ar.softmax(logits, EXP, None)
    expected = torch.softmax(logits / 256, dim=-1) * 2**15
    torch.testing.assert_close(found, expected, atol=6.0, rtol=0.002)  # what lies 11 nats below counts as 11 nats
    rows = []
    for row in logits.int().tolist():
        e = [int(EXP[min(max(row) - v, 2816)]) for v in row]
        rows.append([((v << 16) + sum(e)) // (2 * sum(e)) for v in e])
    assert found.int().tolist() == rows


def test_softmax_mask_is_absolute():
    logits = torch.tensor([[-32767.0, 32767.0, -32767.0]]).double()
    allowed = torch.tensor([[True, False, True]])
    assert ar.softmax(logits, EXP, allowed).tolist() == [[2.0**14, 0.0, 2.0**14]]
    assert ar.softmax(logits[:, :1], EXP, None).tolist() == [[2.0**15]]


def test_sigmoid():
    x = tensor([-32767, -2816, -300, -1, 0, 1, 300, 2816, 32767])
    found = ar.sigmoid(x, EXP)
    torch.testing.assert_close(found, torch.sigmoid(x / 256) * 2**15, atol=1.1, rtol=0)
    assert torch.equal(found + ar.sigmoid(-x, EXP), torch.full_like(x, 2.0**15))
    assert found[4] == 2**14


def test_modes():
    assert ar.pick_mode(CPU) == ("int8" if bytes_are_exact() else "float64")
    assert ar.pick_mode(torch.device("meta")) == "float64"
    with pytest.raises(UsageError):
        ar.check_mode("bfloat16", CPU)
    with pytest.raises(UsageError):
        ar.check_mode("int8", torch.device("meta"))
