from __future__ import annotations

import itertools
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from exact_cases import CONFIG, LEVELS, WIDE, latents, only_net, small_exact
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_net import Net

from ltchm_geo import cancellation
from ltchm_geo.entropy import rans
from ltchm_geo.entropy.byte_products import bytes_are_exact
from ltchm_geo.entropy.integer_net import ExactCoder, IntegerNet, Stepper
from ltchm_geo.errors import InvalidWeightsError, LtchmError, UsageError

#: Frozen vectors, by the version of the network's description.
VECTORS = Path(__file__).parent / "vectors"
VERSIONS = {"exact_v0.npz": CONFIG, "exact_v1.npz": WIDE}
MODES = ("float64", "split32", *(["int8"] if bytes_are_exact() else []))


def make_coder(device="cpu", mode="float64", config=CONFIG):
    return ExactCoder.from_tensors(*small_exact(config), device, mode)


def all_parameters(net, y, z, level):
    return net.parameters(net.hyper_features(z, level), y, level)


def outliers(y, z):
    """Latents with values far outside anything calibrated, up to the ends of int32."""
    for i, value in enumerate((2**31 - 1, -(2**31), 32768, -32767, 600, -513)):
        y.view(-1)[i * 97] = value
        z.view(-1)[i * 7] = value
    return y, z


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wild", [False, True])
@pytest.mark.parametrize(("level", "config"), [(0, CONFIG), (37, CONFIG), (112, CONFIG), (37, WIDE)])
def test_equals_the_integer_reference(level, config, wild, mode):
    y, z = latents(1, seed=level, config=config)
    if wild:
        y, z = outliers(y * 50, z * 50)
    reference = Net(*small_exact(config))
    net = make_coder(mode=mode, config=config).net
    hyper = net.hyper_features(z, level)
    expected = reference.hyper(z[0].numpy(), level)
    np.testing.assert_array_equal(hyper[0].permute(1, 2, 0).numpy(), expected)
    np.testing.assert_array_equal(
        net.parameters(hyper, y, level)[0], reference.parameters(expected, y[0].numpy(), level)
    )


def test_equals_the_reference_on_one_window():
    _, z = latents(1, seed=1, side=8)  # the map in the attention is no larger than a window: no shift
    tensors, spec = small_exact()
    net, reference = make_coder().net, Net(tensors, spec)
    expected = reference.hyper(z[0].numpy(), 20)
    np.testing.assert_array_equal(net.hyper_features(z, 20)[0].permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("wild", [False, True])
def test_all_modes_give_the_same(wild):
    y, z = latents(3, seed=2)
    if wild:
        y, z = outliers(y, z)
    for level in LEVELS:
        first, *others = (all_parameters(make_coder(mode=mode).net, y, z, level) for mode in MODES)
        for other in others:
            np.testing.assert_array_equal(first, other)


def test_batch_and_threads_do_not_matter():
    y, z = outliers(*latents(19, seed=3))
    net = make_coder().net
    together = all_parameters(net, y, z, 60)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            alone = [all_parameters(net, y[i : i + 1], z[i : i + 1], 60) for i in (0, 8, 18)]
            np.testing.assert_array_equal(together[[0, 8, 18]], np.concatenate(alone))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wild", [False, True])
@pytest.mark.parametrize(("shape", "config"), [((16, 16), CONFIG), ((8, 16), CONFIG), ((8, 8), WIDE)])
def test_steps_equal_one_pass(shape, config, wild, mode):
    y, z = latents(2, seed=4, config=config)
    if wild:
        y, z = outliers(y, z)
    h, w = shape
    y, z = y[:, :, :h, :w].contiguous(), z[:, :, : h // 4, : w // 4].contiguous()
    net = make_coder(mode=mode, config=config).net
    hyper = net.hyper_features(z, 5)
    expected = net.parameters(hyper, y, 5)
    stepper = net.begin(hyper, 5)
    rows = y.flatten(2).transpose(1, 2).numpy()
    found = []
    for t, positions in enumerate(rans.wavefront(h, w)):
        found.append(stepper.step(t))
        stepper.put(t, np.ascontiguousarray(rows[:, positions]))
    assert len(stepper) == len(found)
    np.testing.assert_array_equal(np.concatenate(found, axis=1), expected)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.4, 4.0, 300.0, 1e6, 1e9]), st.integers(0, 112), st.integers(1, 3))
def test_round_trip(seed, scale, level, count):
    config = (CONFIG, WIDE)[seed // 7 % 2]
    y, z = latents(count, seed, side=8, scale=scale, config=config)
    coder = make_coder(mode=MODES[seed % len(MODES)], config=config)
    streams = coder.encode(y, z, level)
    y_hat, z_hat, ok = coder.decode(streams, level, (8, 8))
    assert ok.all()
    assert torch.equal(y, y_hat)
    assert torch.equal(z, z_hat)
    assert y_hat.dtype == z_hat.dtype == torch.int32


def test_modes_read_each_others_streams():
    y, z = outliers(*latents(2, seed=6))
    for writer, reader in itertools.permutations(MODES, 2):
        streams = make_coder(mode=writer).encode(y, z, 80)
        y_hat, z_hat, ok = make_coder(mode=reader).decode(streams, 80, (16, 16), threads=1)
        assert ok.all()
        assert torch.equal(y, y_hat)
        assert torch.equal(z, z_hat)


def test_a_damaged_stream_disturbs_no_other():
    y, z = latents(4, seed=7)
    coder = make_coder()
    streams = coder.encode(y, z, 50)
    streams[1] = b""
    streams[2] = streams[2][:100] + bytes([streams[2][100] ^ 4]) + streams[2][101:]
    y_hat, z_hat, ok = coder.decode(streams, 50, (16, 16))
    assert ok.tolist() == [True, False, False, True]
    for i in (0, 3):
        assert torch.equal(y[i], y_hat[i])
        assert torch.equal(z[i], z_hat[i])


def test_decoding_stops_between_steps(monkeypatch):
    y, z = latents(2, seed=3)
    coder, stop, steps = make_coder(), threading.Event(), []
    streams = coder.encode(y, z, 50)
    put = Stepper.put

    def put_and_stop(self, t, found):
        put(self, t, found)
        steps.append(t)
        if t == 5:
            stop.set()

    monkeypatch.setattr(Stepper, "put", put_and_stop)
    with cancellation.watched(stop):
        with pytest.raises(cancellation.Stopped):
            coder.decode(streams, 50, (16, 16))
        assert steps == list(range(6))
        with pytest.raises(cancellation.Stopped):
            coder.encode(y, z, 50)


def test_more_tiles_than_a_chunk(monkeypatch):
    monkeypatch.setattr("ltchm_geo.entropy.integer_net._CHUNK_TILES", 2)
    y, z = latents(5, seed=8, side=8)
    coder = make_coder()
    streams = coder.encode(y, z, 10)
    assert streams == [s for i in range(5) for s in coder.encode(y[i : i + 1], z[i : i + 1], 10)]
    y_hat, _, ok = coder.decode(streams, 10, (8, 8))
    assert ok.all()
    assert torch.equal(y, y_hat)


# --- weights that must be refused ------------------------------------------------------------------------------------


def hostile_cases():
    def change(name, edit):
        def apply(tensors, _spec):
            tensors[name] = edit(tensors[name].copy())

        return apply

    def fill(value):
        return lambda array: np.full_like(array, value)

    def describe(index, key, value):
        return lambda _tensors, spec: spec["hyper"][index].__setitem__(key, value)

    yield "missing", lambda t, _s: t.pop("mlp.1.bias")
    yield "unknown", lambda t, _s: t.update(extra=np.zeros(1, np.int8))
    yield "dtype", change("mlp.1.weight", lambda a: a.astype(np.int32))
    yield "shape", change("mlp.1.weight", lambda a: a[1:])
    yield "empty", change("mlp.0.weight", lambda a: a[:, :0])
    yield "scalar", change("hyper.0.weight", lambda a: a[0, 0])
    yield "large bias", change("context.bias", fill(1 << 50))
    yield "smallest bias", change("mlp.2.bias", fill(-(2**63)))
    yield "large shift", change("hyper.2.split.shift", fill(41))
    yield "negative shift", change("hyper.1.shift", fill(-16))
    yield "affine offset", change("hyper_affine.offset", fill(2**62))
    yield "affine shift", change("context_affine.shift", fill(38))
    yield "depthwise bias", change("hyper.2.depthwise.3.bias", fill(1 << 51))
    yield "version", lambda _t, s: s.update(version=2)
    yield "version's type", lambda _t, s: s.update(version=False)
    yield "key of a later version", lambda _t, s: s.update(latent_channels=16)
    yield "key missing", lambda _t, s: s.update(version=1)
    yield "latent channels", lambda _t, s: s.update(version=1, latent_channels=24)
    yield "too many latent channels", lambda _t, s: s.update(version=1, latent_channels=1 << 20)
    yield "extra key", lambda _t, s: s.update(more=1)
    yield "no layers", lambda _t, s: s.update(hyper=[])
    yield "too few layers", lambda _t, s: s.update(hyper=s["hyper"][:2])
    yield "operation", describe(0, "op", "pickle")
    yield "operation type", describe(0, "op", ["conv"])
    yield "epsilon", describe(2, "epsilon1", 0)
    yield "bits", describe(2, "bits1", 60)
    yield "residual", describe(2, "skip1", 30)
    yield "boolean", describe(2, "skip1", True)
    yield "float", describe(2, "mix_shift", 1.5)
    yield "window", describe(2, "window", 0)
    yield "head", describe(2, "head_dim", 3)
    yield "channels", lambda _t, s: s.update(channels=1 << 20)
    yield "z_cdf", change("z_cdf", fill(1))
    yield "z_cdf rows", change("z_cdf", lambda a: a[1:])


@pytest.mark.parametrize(("name", "apply"), [pytest.param(n, a, id=n) for n, a in hostile_cases()])
def test_hostile_weights(name, apply):
    tensors, spec = small_exact()
    tensors, spec = dict(tensors), json.loads(json.dumps(spec))
    apply(tensors, spec)
    with pytest.raises(InvalidWeightsError):
        ExactCoder.from_tensors(tensors, spec)


def test_extreme_weights_within_the_bounds_stay_exact():
    """Whatever the checks let through must be computed exactly: all weights at their ends."""
    tensors, spec = small_exact()
    rng = np.random.default_rng(1)
    wild = {
        name: rng.choice(np.array([-32768, 32767], np.int16), array.shape) if array.dtype == np.int16 else array
        for name, array in only_net(tensors).items()
    }
    y, z = outliers(*latents(1, seed=9))
    hyper = Net(wild, spec).hyper(z[0].numpy(), 3)
    for mode in MODES:
        net = IntegerNet(wild, spec, mode=mode)
        np.testing.assert_array_equal(net.hyper_features(z, 3)[0].permute(1, 2, 0).numpy(), hyper)
        found = net.parameters(net.hyper_features(z, 3), y, 3)[0]
        np.testing.assert_array_equal(found, Net(wild, spec).parameters(hyper, y[0].numpy(), 3))


def test_bad_arguments():
    coder = make_coder()
    y, z = latents(1, side=8)
    for call in (
        lambda: coder.encode(y, z, 113),
        lambda: coder.encode(y, z, -1),
        lambda: coder.encode(y, z[:, :4], 0),
        lambda: coder.encode(y[:, :, :4], z, 0),
        lambda: coder.decode([b""], 0, (6, 8)),
        lambda: coder.decode([b""], 0, (12, 12)),
        lambda: coder.decode([], 0, (8, 8)),
        lambda: ExactCoder.from_tensors(*small_exact(), mode="float16"),
    ):
        with pytest.raises(UsageError):
            call()
    assert issubclass(UsageError, LtchmError)


# --- streams for ever ------------------------------------------------------------------------------------------------


def _write_vectors(path, config):
    tensors, spec = small_exact(config)
    y, z = outliers(*latents(2, seed=11, config=config))
    arrays = {f"tensor.{name}": array for name, array in tensors.items()}
    arrays |= {"spec": np.frombuffer(json.dumps(spec).encode(), np.uint8), "y": y.numpy(), "z": z.numpy()}
    for level in LEVELS:
        for i, stream in enumerate(make_coder(config=config).encode(y, z, level)):
            arrays[f"stream.{level}.{i}"] = np.frombuffer(stream, np.uint8)
    np.savez_compressed(path, **arrays)


def _check_vectors(path, device, mode):
    with np.load(path, allow_pickle=False) as stored:
        tensors = {name.removeprefix("tensor."): stored[name] for name in stored if name.startswith("tensor.")}
        coder = ExactCoder.from_tensors(tensors, json.loads(stored["spec"].tobytes()), device, mode)
        y, z = torch.from_numpy(stored["y"]), torch.from_numpy(stored["z"])
        for level in LEVELS:
            streams = [stored[f"stream.{level}.{i}"].tobytes() for i in range(2)]
            assert coder.encode(y, z, level) == streams
            y_hat, z_hat, ok = coder.decode(streams, level, (16, 16))
            assert ok.all()
            assert torch.equal(y, y_hat)
            assert torch.equal(z, z_hat)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", VERSIONS)
def test_frozen_vectors(name, mode):
    """Streams written once, with stored integer weights, must be written and read the same for ever."""
    if os.environ.get("LTCHM_REGEN") == name:
        _write_vectors(VECTORS / name, VERSIONS[name])
    _check_vectors(VECTORS / name, "cpu", mode)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("mode", ["float64", "split32"])
@pytest.mark.parametrize("tf32", [False, True])
def test_graphics_card_gives_the_same(mode, tf32):
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        for name in VERSIONS:
            _check_vectors(VECTORS / name, "cuda", mode)
        y, z = outliers(*latents(20, seed=12))
        for level in LEVELS:
            expected = all_parameters(make_coder().net, y, z, level)
            np.testing.assert_array_equal(all_parameters(make_coder("cuda", mode).net, y, z, level), expected)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
