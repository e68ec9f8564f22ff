"""Products out of 8-bit ones against the plain definition, in Python's integers, at the ends of every range."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from exact_cases import only_net, small_exact
from hypothesis import given, settings
from hypothesis import strategies as st

from ltchm_geo.entropy import arithmetic as ar
from ltchm_geo.entropy import byte_products
from ltchm_geo.entropy.byte_products import ByteLinear, byte_depthwise, bytes_are_exact
from ltchm_geo.entropy.integer_net import IntegerNet

pytestmark = pytest.mark.skipif(not bytes_are_exact(), reason="no exact 8-bit products on this processor")

CPU = torch.device("cpu")
EDGES = (-32767, -32641, -32640, -32639, -257, -256, -129, -128, -1, 0, 1, 127, 128, 255, 256, 32639, 32640, 32767)
KINDS = ("random", "edges", "largest", "smallest", "narrow")


def integers(rng, shape, kind, lowest=-32767):
    if kind == "random":
        return rng.integers(lowest, 32767, shape, endpoint=True)
    if kind == "edges":
        return rng.choice([lowest, *EDGES], shape)
    if kind == "narrow":
        return rng.integers(-128, 127, shape, endpoint=True)
    return np.full(shape, 32767 if kind == "largest" else lowest)


def rounded(accumulator, shift, leaky, residual, residual_shift):
    """The definition of docs/exact-network.md, in Python's unbounded integers."""
    bits = 64
    value = accumulator << (bits - shift)
    if residual is not None:
        value += residual << (bits - residual_shift)
    if leaky and value < 0:
        bits += 7
    value = (value + (1 << (bits - 1))) >> bits
    return min(max(value, -32767), 32767)


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    kinds=st.tuples(st.sampled_from(KINDS), st.sampled_from(KINDS)),
    shape=st.tuples(st.integers(1, 9), st.sampled_from([1, 2, 63, 64, 65, 300]), st.integers(1, 20)),
    leaky=st.integers(0, 1),
    residual=st.none() | st.integers(-15, 30),
    byte=st.booleans(),
)
def test_linear_is_the_definition(seed, kinds, shape, leaky, residual, byte):
    rng = np.random.default_rng(seed)
    rows, inner, columns = shape
    x = integers(rng, (rows, inner), "narrow" if byte else kinds[0])
    weight = integers(rng, (inner, columns), kinds[1], lowest=-32768).astype(np.int16)
    shift = rng.integers(0, 40, columns, endpoint=True).astype(np.int8)
    if residual is not None:
        shift = np.clip(shift, residual - 2, residual + 36).clip(0, 40).astype(np.int8)
    bias = rng.integers(-(2**49), 2**49, columns)
    added = integers(rng, (rows, columns), "edges").astype(np.int16)
    sums = x.astype(object) @ weight.astype(object) + bias.astype(object)
    expected = [
        [
            rounded(int(value), int(s), leaky, None if residual is None else int(a), residual)
            for value, s, a in zip(*row, strict=True)
        ]
        for row in zip(sums, np.broadcast_to(shift, sums.shape), added, strict=True)
    ]
    linear = ByteLinear(weight, bias, shift)
    found = linear(
        torch.from_numpy(x.astype(np.int8 if byte else np.int16)),
        leaky=leaky,
        residual=None if residual is None else (torch.from_numpy(added), 2.0**-residual),
    )
    assert found.dtype == torch.int16
    assert found.tolist() == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inner", [1536, 9216, byte_products.MAX_ROWS])
def test_the_longest_sums_do_not_wrap(kind, inner):
    rng = np.random.default_rng(inner)
    x = integers(rng, (3, inner), kind)
    weight = integers(rng, (inner, 2), kind, lowest=-32768).astype(np.int16)
    bias, shift = np.array([2**48, -(2**48)]), np.array([40, 31], np.int8)
    expected = ar.Linear(weight, bias, shift, CPU, "float64")(torch.from_numpy(x).double())
    found = ByteLinear(weight, bias, shift)(torch.from_numpy(x.astype(np.int16)))
    assert torch.equal(found.double(), expected)


def test_rows_in_parts_and_any_leading_shape(monkeypatch):
    monkeypatch.setattr(byte_products, "_MAX_PRODUCTS", 1)  # parts of 64 rows
    rng = np.random.default_rng(1)
    weight, bias = integers(rng, (30, 5), "random").astype(np.int16), np.zeros(5, np.int64)
    linear, plain = (
        kind(weight, bias, np.full(5, 16, np.int8), *rest)
        for kind, rest in ((ByteLinear, ()), (ar.Linear, (CPU, "float64")))
    )
    x = torch.from_numpy(integers(rng, (2, 9, 11, 60), "random").astype(np.int16))[..., ::2]  # not contiguous
    assert torch.equal(linear(x).double(), plain(x.double()))
    assert linear(x[:0]).shape == (0, 9, 11, 5)


@pytest.mark.parametrize("size", [1, 3, 5, 7])
@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (8, 8)])
def test_depthwise_is_that_of_float64(size, shape):
    rng = np.random.default_rng(size)
    x = torch.from_numpy(integers(rng, (2, *shape, 24), "edges").astype(np.int16))[..., 3:20]
    weight, bias = integers(rng, (size * size, 17), "edges", -32768), rng.integers(-(2**45), 2**45, 17)
    scaled = ar.scaled(weight.astype(np.int16), bias, rng.integers(0, 40, 17).astype(np.int8), CPU)[:2]
    expected = ar.depthwise(x.double(), *scaled)
    ar.leaky_relu(expected[..., :11])
    assert torch.equal(byte_depthwise(x, *scaled, 11).double(), ar.requantise(expected))


def test_threads_share_a_layer():
    rng = np.random.default_rng(2)
    linear = ByteLinear(
        integers(rng, (200, 90), "random").astype(np.int16), np.zeros(90, np.int64), np.full(90, 16, np.int8)
    )
    inputs = [torch.from_numpy(integers(rng, (50, 200), "random").astype(np.int16)) for _ in range(8)]
    expected = [linear(x) for x in inputs]
    wrong: list[int] = []

    def work(i):
        for _ in range(20):
            if not torch.equal(linear(inputs[i]), expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_weights_with_too_many_rows_are_multiplied_in_float64(monkeypatch):
    tensors, spec = small_exact()
    assert IntegerNet(only_net(tensors), spec, mode="int8").dtype == torch.int16
    monkeypatch.setattr("ltchm_geo.entropy.integer_layers.MAX_ROWS", 100)
    assert IntegerNet(only_net(tensors), spec, mode="int8").dtype == torch.float64


@pytest.mark.parametrize("fault", ["no VNNI", "saturates"])
def test_a_processor_that_cannot_is_found_out(monkeypatch, fault):
    if fault == "no VNNI":
        monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    else:
        exact = torch._int_mm
        monkeypatch.setattr(torch, "_int_mm", lambda a, b: exact(a, b).clamp(-(2**20), 2**20))
    assert not bytes_are_exact.__wrapped__()
