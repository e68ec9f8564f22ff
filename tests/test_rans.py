from __future__ import annotations

import os
from math import erf, sqrt
from pathlib import Path

import numba
import numpy as np
import pytest
import reference_rans as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from ltchm_geo._numba import compiled
from ltchm_geo.entropy import _kernels, rans, tables
from ltchm_geo.errors import CorruptTileError, DesynchronisedError, UsageError

VECTORS = Path(__file__).parent / "vectors" / "rans_v0.npz"
INT32 = np.iinfo(np.int32)
INT16 = np.iinfo(np.int16)


# --- inputs ----------------------------------------------------------------------------------------------------------


def make_z_cdf(channels, rng):
    """Rows around geometric distributions of random width; the ends keep a frequency of 1."""
    shape = np.exp(-np.abs(np.arange(-tables.Z_MAX, tables.Z_MAX + 1)) / rng.uniform(0.1, 20, (channels, 1)))
    frequencies = (shape / shape.sum(1, keepdims=True) * (2**24 - 1000)).astype(np.int64) + 1
    frequencies[:, tables.Z_MAX] += 2**24 - frequencies.sum(1)
    return np.concatenate([np.zeros((channels, 1), dtype=np.int64), frequencies.cumsum(1)], axis=1)


def make_params(shape, rng, hostile=False):
    """(B, P, 9, C) int16: plausible mixtures, or any int16 at all."""
    if hostile:
        return rng.integers(INT16.min, INT16.max, shape, np.int16, endpoint=True)
    b, p, _, c = shape
    lsig = rng.normal(-8, 30, (b, p, 3, c)).clip(-52, 144)
    parts = [rng.normal(0, 300, lsig.shape), rng.normal(0, 40, lsig.shape) * 2 ** (lsig / 16), lsig]
    return np.concatenate(parts, axis=2).round().clip(INT16.min, INT16.max).astype(np.int16)


def make_latents(shape, rng, kind):
    if kind == "zeros":
        return np.zeros(shape, dtype=np.int32)
    if kind == "one hot":
        values = np.zeros(shape, dtype=np.int32)
        values.flat[rng.integers(values.size)] = rng.integers(INT32.min, INT32.max, endpoint=True)
        return values
    if kind == "any":
        return rng.integers(INT32.min, INT32.max, shape, np.int32, endpoint=True)
    if kind == "edges":
        edges = [INT32.min, -514, -513, -512, -511, -65, -64, -63, 63, 64, 65, 510, 511, 512, 513, INT32.max]
        return rng.choice(np.array(edges, dtype=np.int32), shape)
    return (rng.standard_t(2, shape) * 3).round().clip(-(2**20), 2**20).astype(np.int32)


def make_case(seed, kind="plausible", hostile=False, batch=2, z_shape=(3, 2, 1), positions=6, channels=4):
    rng = np.random.default_rng(seed)
    z = make_latents((batch, *z_shape), rng, kind)
    y = make_latents((batch, positions, channels), rng, kind)
    return z, y, make_params((batch, positions, 9, channels), rng, hostile), make_z_cdf(z_shape[0], rng)


def batch_of(case, change):
    """The case with `change` applied to all that has a batch axis."""
    return (*map(change, case[:3]), case[3])


def decode(streams, case, threads=1, chunk=4):
    z, _, params, z_cdf = case
    decoder = rans.Decoder(streams, z_cdf, threads=threads)
    z_out = decoder.z(z.shape[1:])
    y_out = [decoder.y(params[:, at : at + chunk]) for at in range(0, params.shape[1], chunk)]
    return z_out, np.concatenate(y_out, axis=1), decoder.finish(), decoder


def assert_round_trip(case, threads=1):
    streams = rans.encode(*case, threads=threads)
    z_out, y_out, sound, _ = decode(streams, case, threads)
    np.testing.assert_array_equal(z_out, case[0])
    np.testing.assert_array_equal(y_out, case[1])
    assert z_out.dtype == y_out.dtype == np.int32
    assert sound.all()
    return streams


kinds = st.sampled_from(["zeros", "one hot", "any", "edges", "plausible"])
cases = st.builds(
    make_case,
    seed=st.integers(0, 2**32),
    kind=kinds,
    hostile=st.booleans(),
    z_shape=st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 2)),
    positions=st.integers(1, 6),
    channels=st.integers(1, 4),
)


# --- wavefront -------------------------------------------------------------------------------------------------------


@given(st.integers(1, 9), st.integers(1, 9))
def test_wavefront_visits_each_position_once_after_its_context(h, w):
    steps = rans.wavefront(h, w)
    assert len(steps) == (w - 1) + 3 * (h - 1) + 1
    assert sorted(np.concatenate(steps)) == list(range(h * w))
    when = {int(p): t for t, step in enumerate(steps) for p in step}
    for position, t in when.items():
        row, column = divmod(position, w)
        before = [(row, column - d) for d in (1, 2)] + [(row - u, column + d) for u in (1, 2) for d in range(-2, 3)]
        assert all(when[r * w + c] < t for r, c in before if r >= 0 and 0 <= c < w)
    assert all((np.diff(step) > 0).all() for step in steps)


def test_wavefront_example_and_refusal():
    assert [step.tolist() for step in rans.wavefront(2, 5)] == [[0], [1], [2], [3, 5], [4, 6], [7], [8], [9]]
    with pytest.raises(UsageError):
        rans.wavefront(0, 4)


# --- probabilities ---------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(INT16.min, INT16.max), min_size=9, max_size=9))
def test_every_distribution_is_complete_and_as_in_the_reference(nine):
    table = tables.load()
    params = np.broadcast_to(np.array(nine, dtype=np.int16)[None, :, None], (tables.Y_BUCKETS, 9, 1)).copy()
    every = np.arange(tables.Y_MIN, tables.Y_MAX + 1, dtype=np.int32)[:, None]
    frequencies = np.empty(every.shape, dtype=np.int64)
    _kernels.y_frequencies(every, params, table.exp, table.phi, table.inv_sigma, frequencies)
    assert frequencies.min() >= 1
    assert frequencies.sum() == tables.PROB_TOTAL
    edges = [reference.cumulative(b, nine) for b in range(tables.Y_MIN, tables.Y_MAX + 2)]
    np.testing.assert_array_equal(frequencies[:, 0], np.diff(edges))


@pytest.mark.parametrize(("sigma_16", "tolerance"), [(-52, 2e-4), (-16, 1e-4), (0, 1e-4), (48, 1e-4), (96, 1e-4)])
def test_probabilities_approximate_a_gaussian(sigma_16, tolerance):
    sigma, mean = 2 ** (sigma_16 / 16), 21 / 64
    nine = [0, -20000, -20000, 21, 0, 0, sigma_16, 0, 0]
    for v in range(-20, 21):
        want = (erf((v + 0.5 - mean) / sigma / sqrt(2)) - erf((v - 0.5 - mean) / sigma / sqrt(2))) / 2
        got = (reference.cumulative(v + 1, nine) - reference.cumulative(v, nine)) / 2**24
        assert abs(got - want) < tolerance


def test_weights_are_exact_and_ties_go_to_the_first():
    assert reference.weights([0, 0, 0]) == [10924, 10922, 10922]
    assert reference.weights([5, 7, 7])[1] > reference.weights([5, 7, 7])[2]
    assert reference.weights([-32768, 32767, -32768]) == [0, 2**15, 0]


# --- round trips -----------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(cases)
def test_any_latents_come_back_and_bytes_equal_the_reference(case):
    z, y, params, z_cdf = case
    streams = assert_round_trip(case)
    assert streams == [reference.encode(z[i], y[i], params[i], z_cdf) for i in range(len(z))]
    z_out, y_out = reference.decode(streams[0], z.shape[1:], y.shape[1:], params[0], z_cdf)
    np.testing.assert_array_equal(z_out, z[0])
    np.testing.assert_array_equal(y_out, y[0])


@pytest.mark.parametrize("kind", ["plausible", "any"])
def test_batch_threads_and_step_size_do_not_matter(kind, monkeypatch):
    monkeypatch.setattr(rans, "_SMALL_STEP", 0)
    case = make_case(7, kind, batch=5, positions=20, channels=16)
    streams = assert_round_trip(case)
    for threads in (2, 3, 16, None):
        assert assert_round_trip(case, threads) == streams
    z, y, params, z_cdf = case
    assert [rans.encode(z[i : i + 1], y[i : i + 1], params[i : i + 1], z_cdf)[0] for i in range(5)] == streams
    for chunk in (1, 7, 20):
        assert decode(streams, case, chunk=chunk)[2].all()


def test_layout_of_the_arrays_does_not_matter():
    z, y, params, z_cdf = make_case(8)
    read_only = np.asfortranarray(params)
    read_only.flags.writeable = False
    strided = (np.repeat(z, 2, axis=3)[..., ::2], np.asfortranarray(y), read_only, z_cdf.astype(np.uint32))
    assert rans.encode(*strided) == rans.encode(z, y, params, z_cdf)
    assert decode(rans.encode(z, y, params, z_cdf), strided)[2].all()


def test_empty_batches_and_empty_steps():
    case = batch_of(make_case(9), lambda a: a[:0])
    assert rans.encode(*case) == []
    z_out, y_out, sound, _ = decode([], case)
    assert (z_out.shape, y_out.shape, sound.shape) == (case[0].shape, case[1].shape, (0,))
    decoder = rans.Decoder(rans.encode(*make_case(9)), make_case(9)[3])
    assert decoder.y(np.zeros((2, 0, 9, 4), dtype=np.int16)).shape == (2, 0, 4)


def test_worst_streams_fit_their_buffer():
    """Escapes of full length in the least likely bucket: the most bits that a symbol can cost."""
    z, y, params, z_cdf = make_case(10, positions=64, channels=8)
    z[:], y[:] = INT32.min, INT32.min
    params[:, :, 3:6], params[:, :, 6:] = 511 * 64, -52
    streams = assert_round_trip((z, y, params, z_cdf))
    assert len(streams[0]) > 10 * y[0].size


# --- sizes -----------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(cases)
def test_ideal_bits_is_what_the_coder_spends(case):
    bits = rans.ideal_bits(*case)
    spent = np.array([8 * len(stream) for stream in rans.encode(*case)])
    assert (spent - bits > 30).all()  # the 31 bits of check are in the stream
    assert (spent - bits < 65 + 0.001 * bits).all()


def test_overhead_on_a_small_tile():
    """About 800 bytes, 192 channels: less than one per cent on average over the batch."""
    rng = np.random.default_rng(11)
    params = np.zeros((32, 256, 9, 24), dtype=np.int16)
    params[:, :, 6:] = rng.integers(-40, 10, (32, 256, 1, 24))
    sigma = 2.0 ** (params[:, :, 6] / 16)
    y = (rng.normal(size=sigma.shape) * sigma).round().astype(np.int32)
    z, z_cdf = np.zeros((32, 1, 1, 1), dtype=np.int32), make_z_cdf(1, rng)
    bits = rans.ideal_bits(z, y, params, z_cdf)
    spent = sum(8 * len(stream) for stream in rans.encode(z, y, params, z_cdf))
    assert 600 < bits.mean() / 8 < 1000
    assert spent / bits.sum() < 1.01


# --- damage ----------------------------------------------------------------------------------------------------------


def agrees_with_reference(stream, case):
    z, y, params, z_cdf = case
    *_, sound, _ = decode([stream], batch_of(case, lambda a: a[:1]))
    try:
        reference.decode(stream, z.shape[1:], y.shape[1:], params[0], z_cdf)
    except reference.DamagedError:
        return not sound[0]
    return bool(sound[0])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.booleans(), st.integers(0, 3))
def test_garbage_is_refused_as_the_reference_refuses_it(stream, trim, seed):
    stream = stream[: len(stream) // 4 * 4] if trim else stream
    assert agrees_with_reference(stream, make_case(seed, hostile=seed == 3))


def test_each_truncation_and_each_flipped_bit_is_noticed():
    case = make_case(12, batch=1, positions=8)
    (stream,) = rans.encode(*case)
    damaged = [stream[:n] for n in range(len(stream))]
    damaged += [stream + b"\0" * n for n in (1, 2, 3, 4, 8)]
    for bit in range(8 * len(stream)):
        flipped = bytearray(stream)
        flipped[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(flipped))
    batch = batch_of(case, lambda a: np.repeat(a, len(damaged), axis=0))
    assert not decode(damaged, batch)[2].any()


def test_thousands_of_garbage_streams_leave_sound_neighbours_alone():
    rng = np.random.default_rng(13)
    z, y, params, z_cdf = make_case(13, "edges", batch=1, positions=24, channels=8)
    (good,) = rans.encode(z, y, params, z_cdf)
    for hostile in (False, True):
        streams, repeat = [], 1500
        for i in range(repeat):
            size = 4 * int(rng.integers(2, 60)) if i % 4 else int(rng.integers(0, 60))
            body = bytearray(rng.bytes(size)) if i % 2 else bytearray(size)
            if len(body) >= 8:
                body[7] &= 0x7F
            streams += [good, bytes(body)]
        many = np.repeat(params, 2 * repeat, axis=0)
        if hostile:
            many[1::2] = make_params(many[1::2].shape, rng, hostile=True)
        case = (np.repeat(z, 2 * repeat, axis=0), np.repeat(y, 2 * repeat, axis=0), many, z_cdf)
        z_out, y_out, sound, _ = decode(streams, case, threads=2, chunk=24)
        np.testing.assert_array_equal(sound, np.arange(2 * repeat) % 2 == 0)
        np.testing.assert_array_equal(z_out[sound], case[0][sound])
        np.testing.assert_array_equal(y_out[sound], case[1][sound])


def test_wrong_probabilities_are_noticed_and_named():
    z, y, params, z_cdf = make_case(14, batch=2, positions=32)
    streams = rans.encode(z, y, params, z_cdf)
    changed = params.copy()
    changed[1, 0, 3:6] += 64
    *_, sound, decoder = decode(streams, (z, y, changed, z_cdf))
    assert sound.tolist() == [True, False]
    assert decoder.error(0) is None
    error = decoder.error(1, array="0/bands", tile=(3, 4))
    assert isinstance(error, CorruptTileError)
    assert (error.array, error.tile) == ("0/bands", (3, 4))


@pytest.mark.parametrize(
    ("spoil", "kind", "text"),
    [
        (lambda s: b"", CorruptTileError, "impossible"),
        (lambda s: s[:-1], CorruptTileError, "impossible"),
        (lambda s: b"\xff" * 8 + s[8:], CorruptTileError, "impossible"),
        (lambda s: b"\0" * 8 + s[8:], CorruptTileError, "impossible"),
        (lambda s: s[:-4], CorruptTileError, "too early"),
        (lambda s: s + b"\0" * 4, DesynchronisedError, "left over"),
        (lambda s: s[:-4] + bytes([s[-4] ^ 1]) + s[-3:], DesynchronisedError, "checksum"),
    ],
)
def test_errors_say_what_is_wrong(spoil, kind, text):
    z = np.full((1, 1, 1, 1), 3, dtype=np.int32)
    y = np.full((1, 1, 1), 2000, dtype=np.int32)
    params = np.zeros((1, 1, 9, 1), dtype=np.int16)
    z_cdf = make_z_cdf(1, np.random.default_rng(0))
    (stream,) = rans.encode(z, y, params, z_cdf)
    *_, sound, decoder = decode([spoil(stream)], (z, y, params, z_cdf))
    assert not sound[0]
    with pytest.raises(kind, match=text):
        raise decoder.error(0)


def escape_stream(bits):
    """A stream whose only y symbol is the upper end bucket followed by `bits`."""
    nine = [0] * 9
    _, highest, cum = reference.y_model(nine)
    symbols = [(cum(highest), 2**24 - cum(highest))] + [(int(bit) * 2**23, 2**23) for bit in bits]
    x, words = reference.LOW, []
    for start, freq in reversed(symbols):
        if x >= freq << 39:
            words.append(x % 2**32)
            x >>= 32
        x = ((x // freq) << 24) + x % freq + start
    return x.to_bytes(8, "little") + b"".join(word.to_bytes(4, "little") for word in reversed(words))


@pytest.mark.parametrize("bits", ["0" * 31 + "1" * 32, "0" * 200, "0" * 30 + "1" * 31])
def test_escapes_beyond_int32_are_refused(bits):
    """Too many zeros, zeros without end, and a code of legal length whose value is too large."""
    decoder = rans.Decoder([escape_stream(bits)], make_z_cdf(1, np.random.default_rng(0)))
    decoder.z((1, 0, 0))
    assert decoder.y(np.zeros((1, 1, 9, 1), dtype=np.int16)).item() == 0
    decoder.finish()
    assert "outside int32" in str(decoder.error(0))


# --- misuse ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda z, y, p, c: (z.astype(np.int64), y, p, c), id="z type"),
        pytest.param(lambda z, y, p, c: (z, y.astype(np.float32), p, c), id="y type"),
        pytest.param(lambda z, y, p, c: (z, y, p.astype(np.int32), c), id="params type"),
        pytest.param(lambda z, y, p, c: (z[0], y, p, c), id="z rank"),
        pytest.param(lambda z, y, p, c: (z[:1], y, p, c), id="batch"),
        pytest.param(lambda z, y, p, c: (z, y, p[:, :, :8], c), id="eight parameters"),
        pytest.param(lambda z, y, p, c: (z, y, p[:, 1:], c), id="positions"),
        pytest.param(lambda z, y, p, c: (z, y, p, c[1:]), id="z channels"),
        pytest.param(lambda z, y, p, c: (z, y, p, c, 0), id="no threads"),
    ],
)
def test_encode_refuses_wrong_arrays(spoil):
    with pytest.raises(UsageError):
        rans.encode(*spoil(*make_case(15)))


def test_decoder_refuses_wrong_shapes():
    case = make_case(16)
    decoder = rans.Decoder(rans.encode(*case), case[3])
    for shape in ((2, 2, 1), (3, -1, 1), (3, 2)):
        with pytest.raises(UsageError):
            decoder.z(shape)
    for params in (case[2].astype(np.int32), case[2][:1], case[2][:, :, :8], case[2][0]):
        with pytest.raises(UsageError):
            decoder.y(params)


def test_kernels_do_without_a_cache_folder(monkeypatch):
    def refuse_cache(function, *, cache=False, **_):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return function

    monkeypatch.setattr(numba, "njit", refuse_cache)
    assert compiled(len) is len


# --- frozen vectors --------------------------------------------------------------------------------------------------


def test_frozen_vectors():
    """Streams written once must be written and read the same for ever."""
    if os.environ.get("LTCHM_REGEN") == "1":
        arrays = {}
        for kind in ("plausible", "edges"):
            z, y, params, z_cdf = make_case(17, kind, positions=8, channels=6)
            streams = rans.encode(z, y, params, z_cdf)
            named = {"z": z, "y": y, "params": params, "z_cdf": z_cdf, "sizes": [len(stream) for stream in streams]}
            named["streams"] = np.frombuffer(b"".join(streams), dtype=np.uint8)
            arrays |= {f"{kind}_{name}": value for name, value in named.items()}
        VECTORS.parent.mkdir(exist_ok=True)
        np.savez_compressed(VECTORS, **arrays)
    with np.load(VECTORS, allow_pickle=False) as stored:
        for kind in ("plausible", "edges"):
            case = tuple(stored[f"{kind}_{name}"] for name in ("z", "y", "params", "z_cdf"))
            whole, ends = stored[f"{kind}_streams"].tobytes(), np.cumsum(stored[f"{kind}_sizes"])
            frozen = [whole[end - size : end] for end, size in zip(ends, stored[f"{kind}_sizes"], strict=True)]
            assert assert_round_trip(case) == frozen
