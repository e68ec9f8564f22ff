"""Lossless coding of integer latents: rANS with a 64-bit state, one independent stream per tile.

Stream, all little-endian: the coder's final state (8 bytes), then 32-bit words in the order the decoder reads them.
The coder starts from 2**31 with the CRC-32 of the latents (less its top bit) in its low 31 bits. A decoder must come
back to exactly that state with no word left over, so every stream checks its own latents at almost no cost.

Order of symbols: z channel by channel, row by row; then y in steps of `wavefront`, positions of a step from top to
bottom, channels of a position ascending. The CRC runs over the same order, each latent as a little-endian int32.

rANS: J. Duda, "Asymmetric numeral systems", arXiv:1311.2540.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ltchm_geo.cpu import core_count
from ltchm_geo.entropy import _kernels, tables
from ltchm_geo.errors import CorruptTileError, DesynchronisedError, UsageError
from ltchm_geo.types import Shape2d

__all__ = ["Decoder", "encode", "ideal_bits", "wavefront"]

_Int64s = NDArray[np.int64]
_LATENT = np.dtype("<i4")
_WORD = np.dtype("<u4")
_STATE_BYTES = 8
_SMALL_STEP = 8192  # symbols; below this, handing work to threads costs more than it saves

_FAULT_TEXT = {
    _kernels.MALFORMED: "its stream has an impossible length or first state",
    _kernels.EXHAUSTED: "its stream ends too early",
    _kernels.ESCAPE_RANGE: "its stream holds a value outside int32",
    _kernels.WRONG_END: "its stream does not end in the state that its checksum demands",
    _kernels.LEFTOVER: "its stream has words left over",
}


def wavefront(h: int, w: int, extent: Shape2d | None = None) -> list[NDArray[np.int64]]:
    """Positions that can be decoded together, step by step.

    Step t = 0 .. (w - 1) + 3 * (h - 1) holds the positions with column + 3 * row = t: all that a 5x5 causal context of
    theirs needs was decoded in earlier steps. Each array has flat positions row * w + column, rows ascending; some are
    empty if w < 3. With an extent, only its rows and columns are coded.
    """
    height, width = extent or (h, w)
    if not (1 <= height <= h and 1 <= width <= w):
        raise UsageError(f"no {height} x {width} rows and columns of a latent of {h} x {w}")
    row, column = np.divmod(np.arange(h * w, dtype=np.int64), w)
    step = np.where((row < height) & (column < width), column + 3 * row, -1)
    return [np.flatnonzero(step == t).astype(np.int64) for t in range(width + 3 * (height - 1))]


def encode(
    z: NDArray[np.int32],
    y_ordered: NDArray[np.int32],
    params: NDArray[np.int16],
    z_cdf: NDArray[np.integer],
    threads: int | None = None,
) -> list[bytes]:
    """Code the latents of a batch of tiles, one stream each.

    Parameters
    ----------
    z : (B, Cz, hz, wz) int32, any values.
    y_ordered : (B, P, C) int32, any values, positions in wavefront order.
    params : (B, P, 9, C) int16, any values: logit 0..2 (1/256), mean 0..2 (1/64), log2-sigma 0..2 (1/16), same order.
    z_cdf : (Cz, 2 * Z_MAX + 2), see `tables.check_z_cdf`.
    threads : how many at most; default: one per available core. The streams do not depend on it.

    Raises `UsageError` for wrong shapes or types, `InvalidWeightsError` for a broken z_cdf.
    """
    z, y, params, cdf = _checked(z, y_ordered, params, z_cdf)
    table = tables.load()

    def one(i: int) -> bytes:
        start = _start_state(_crc(y[i], _crc(z[i])))
        words = np.empty(3 * (z[i].size + y[i].size), dtype=np.uint32)
        state, top = _kernels.encode_tile(
            start, z[i], y[i], params[i], cdf, table.exp, table.phi, table.inv_sigma, words
        )
        return int(state).to_bytes(_STATE_BYTES, "little") + words[top:].astype(_WORD, copy=False).tobytes()

    count = min(_thread_count(threads), len(z))
    if count <= 1:
        return [one(i) for i in range(len(z))]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(len(z))))


class Decoder:
    """Decode a batch of streams side by side: `z` once, `y` once per wavefront step, then `finish`.

    A damaged stream never raises here and never disturbs the others: from its first fault on, its latents read as zero,
    and `finish` reports it. Latents are worth using only where `finish` says True.

    Parameters
    ----------
    streams : one bytes object per tile, from anywhere; nothing about them is trusted.
    z_cdf : (Cz, 2 * Z_MAX + 2), see `tables.check_z_cdf`.
    threads : how many at most; default: one per available core.
    """

    def __init__(self, streams: Sequence[bytes], z_cdf: NDArray[np.integer], threads: int | None = None):
        self._z_cdf = tables.check_z_cdf(z_cdf)
        self._tables = tables.load()
        count = len(streams)
        parsed = [_parse(stream) for stream in streams]
        self._states = np.array([state for state, _ in parsed], dtype=np.int64)
        self._faults = np.where(self._states < 0, _kernels.MALFORMED, _kernels.SOUND).astype(np.int64)
        self._words = np.frombuffer(b"".join(words for _, words in parsed), dtype=_WORD).astype(np.uint32)
        self._ends = np.cumsum([len(words) // _WORD.itemsize for _, words in parsed], dtype=np.int64)
        self._cursors = np.concatenate([np.zeros(min(count, 1), dtype=np.int64), self._ends[:-1]])
        self._crcs = [0] * count
        workers = max(1, min(_thread_count(threads), count))
        edges = np.linspace(0, count, workers + 1).astype(int).tolist()
        self._chunks = [slice(a, b) for a, b in pairwise(edges)]
        # A pool of its own: one shared by the process would be dead in a forked child.
        self._pool = ThreadPoolExecutor(workers) if workers > 1 else None

    def z(self, shape: tuple[int, int, int]) -> NDArray[np.int32]:
        """Decode the hyper-latents, `shape` = (Cz, hz, wz); returns (B, Cz, hz, wz) int32."""
        if len(shape) != 3 or min(shape) < 0 or shape[0] != len(self._z_cdf):
            raise UsageError(f"z of shape {shape} does not fit a z_cdf of {len(self._z_cdf)} channels")
        out = np.zeros((len(self._states), shape[0], shape[1] * shape[2]), dtype=np.int32)
        self._run(out, lambda part: _kernels.decode_z(*self._coder(part), self._z_cdf, out[part]))
        return out.reshape(len(self._states), *shape)

    def y(self, params: NDArray[np.int16]) -> NDArray[np.int32]:
        """Decode one wavefront step; params (B, p, 9, C) int16 as for `encode`; returns (B, p, C) int32."""
        batch = len(self._states)
        if params.dtype != np.int16 or params.ndim != 4 or params.shape[0] != batch or params.shape[2] != 9:
            raise UsageError(f"params must be int16 ({batch}, p, 9, C), not {params.dtype} {params.shape}")
        params = np.ascontiguousarray(params)
        t = self._tables
        out = np.zeros((batch, params.shape[1], params.shape[3]), dtype=np.int32)
        self._run(
            out,
            lambda part: _kernels.decode_y(*self._coder(part), params[part], t.exp, t.phi, t.inv_sigma, out[part]),
        )
        return out

    def finish(self) -> NDArray[np.bool_]:
        """Check end state, CRC and exhaustion; returns (B,) bool, True where the tile is sound. Call it last."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        expected = np.array([_start_state(crc) for crc in self._crcs], dtype=np.int64)
        checks = ((self._states != expected, _kernels.WRONG_END), (self._cursors != self._ends, _kernels.LEFTOVER))
        for broken, fault in checks:
            self._faults[(self._faults == _kernels.SOUND) & broken] = fault
        sound: NDArray[np.bool_] = self._faults == _kernels.SOUND
        return sound

    def error(
        self, index: int, *, array: str | None = None, tile: tuple[int, int] | None = None
    ) -> CorruptTileError | None:
        """What `finish` found wrong with tile `index` of the batch, to be raised or reported; None if it is sound.

        `array` and `tile` say what the caller calls that tile.
        """
        fault = int(self._faults[index])
        if fault == _kernels.SOUND:
            return None
        kind = DesynchronisedError if fault in (_kernels.WRONG_END, _kernels.LEFTOVER) else CorruptTileError
        name = f"tile {index} of the batch" if tile is None else f"tile {tile}"
        return kind(f"{name} is damaged: {_FAULT_TEXT[fault]}; restore the file from a copy", array=array, tile=tile)

    def _coder(self, part: slice) -> tuple[_Int64s, _Int64s, _Int64s, NDArray[np.uint32], _Int64s]:
        return self._states[part], self._cursors[part], self._ends[part], self._words, self._faults[part]

    def _run(self, out: NDArray[np.int32], kernel: Callable[[slice], None]) -> None:
        def work(part: slice) -> None:
            kernel(part)
            for i in range(part.start, part.stop):
                self._crcs[i] = _crc(out[i], self._crcs[i])

        mapper: Callable[..., Iterable[None]] = map
        if self._pool is not None and out.size >= _SMALL_STEP:
            mapper = self._pool.map
        for _ in mapper(work, self._chunks):
            pass  # taking each result raises what its thread raised


def ideal_bits(
    z: NDArray[np.int32], y_ordered: NDArray[np.int32], params: NDArray[np.int16], z_cdf: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Code length in bits, (B,) float64, that the integer probabilities promise; arguments as for `encode`.

    For tests and reports only: nothing that is decoded depends on it.
    """
    z, y, params, cdf = _checked(z, y_ordered, params, z_cdf)
    table = tables.load()
    channel = np.arange(len(cdf))[:, None]
    bits = np.empty(len(z))
    for i in range(len(z)):
        bucket = np.clip(z[i], -tables.Z_MAX, tables.Z_MAX) + tables.Z_MAX
        z_frequencies = cdf[channel, bucket + 1] - cdf[channel, bucket]
        y_frequencies = np.empty(y[i].shape, dtype=np.int64)
        _kernels.y_frequencies(y[i], params[i], table.exp, table.phi, table.inv_sigma, y_frequencies)
        bits[i] = sum(float((tables.PROB_BITS - np.log2(f)).sum()) for f in (z_frequencies, y_frequencies))
        bits[i] += _escape_bits(z[i], -tables.Z_MAX, tables.Z_MAX) + _escape_bits(y[i], tables.Y_MIN, tables.Y_MAX)
    return bits


def _escape_bits(values: NDArray[np.int32], lowest: int, highest: int) -> int:
    wide = values[(values <= lowest) | (values >= highest)].astype(np.int64)
    plus_one = np.maximum(lowest - wide, wide - highest) + 1
    return int((2 * np.floor(np.log2(plus_one)) + 1).sum())


def _checked(
    z: NDArray[np.int32], y: NDArray[np.int32], params: NDArray[np.int16], z_cdf: NDArray[np.integer]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int16], NDArray[np.int64]]:
    """Everything C-contiguous and of agreeing shape; z comes back as (B, Cz, hz * wz)."""
    cdf = tables.check_z_cdf(z_cdf)
    if z.dtype != np.dtype(np.int32) or y.dtype != np.dtype(np.int32) or params.dtype != np.dtype(np.int16):
        raise UsageError(f"z, y and params must be int32, int32 and int16, not {z.dtype}, {y.dtype}, {params.dtype}")
    if z.ndim != 4 or y.ndim != 3 or len(z) != len(y) or z.shape[1] != len(cdf):
        raise UsageError(f"z {z.shape} and y {y.shape} must be (B, {len(cdf)}, hz, wz) and (B, P, C)")
    if params.shape != (*y.shape[:2], 9, y.shape[2]):
        raise UsageError(f"params {params.shape} must be (B, P, 9, C) for y {y.shape}")
    flat = np.ascontiguousarray(z).reshape(z.shape[0], z.shape[1], z.shape[2] * z.shape[3])
    return flat, np.ascontiguousarray(y), np.ascontiguousarray(params), cdf


def _parse(stream: bytes) -> tuple[int, bytes]:
    """Split a stream into state and words; (-1, nothing) if it cannot be one."""
    if len(stream) < _STATE_BYTES or len(stream) % _WORD.itemsize:
        return -1, b""
    state = int.from_bytes(stream[:_STATE_BYTES], "little")
    return (state, stream[_STATE_BYTES:]) if _kernels.STATE_LOW <= state < 1 << 63 else (-1, b"")


def _start_state(crc: int) -> int:
    return _kernels.STATE_LOW | (crc & (_kernels.STATE_LOW - 1))


def _crc(latents: NDArray[np.int32], crc: int = 0) -> int:
    return zlib.crc32(latents.astype(_LATENT, copy=False).data, crc) if latents.size else crc


def _thread_count(threads: int | None) -> int:
    if threads is None:
        return core_count()
    if threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}")
    return threads
