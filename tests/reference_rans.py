"""The entropy coder once more, for one tile, in plain Python integers and as literally as possible.

Slow and short on purpose: it is what the compiled coder is compared with, byte for byte. The stored tables are all that
the two share.
"""

from __future__ import annotations

import zlib
from itertools import product

import numpy as np

from ltchm_geo.entropy import tables

TOTAL = 2**24
LOW = 2**31
TABLES = tables.load()
EXP, PHI, INV_SIGMA = ([int(v) for v in table] for table in (TABLES.exp, TABLES.phi, TABLES.inv_sigma))


def weights(logits):
    top = max(logits)
    e = [EXP[min(top - logit, 11 * 256)] for logit in logits]
    w = [(value << 15) // sum(e) for value in e]
    w[w.index(max(w))] += 2**15 - sum(w)
    return w


def normal_cdf(d, lsig):
    position = d * INV_SIGMA[min(max(lsig, -52), 144) + 52] + (416 << 24)
    cell, fraction = position >> 24, position % 2**24
    if cell < 0:
        return 0
    if cell >= 832:
        return TOTAL
    return PHI[cell] + ((PHI[cell + 1] - PHI[cell]) * fraction >> 24)


def cumulative(b, nine):
    if b == -512:
        return 0
    if b == 512:
        return TOTAL
    nine = [int(v) for v in nine]
    logits, means, lsigs = nine[:3], nine[3:6], nine[6:]
    v = b - 1
    c = sum(w * normal_cdf(64 * v + 32 - m, s) for w, m, s in zip(weights(logits), means, lsigs, strict=True)) >> 15
    return (c * (TOTAL - 1024) >> 24) + (b + 512)


def y_model(nine):
    """(lowest, highest, cumulative function) of one y symbol."""
    return -512, 511, lambda b: cumulative(b, nine)


def z_model(row):
    return -64, 64, lambda b: int(row[b + 64])


def models(z_shape, y_shape, params, z_cdf):
    """The model of every symbol, in coding order."""
    yield from (z_model(z_cdf[c]) for c, _, _ in product(*map(range, z_shape)))
    yield from (y_model(params[p, :, c]) for p, c in product(*map(range, y_shape)))


def start_state(values):
    return LOW | zlib.crc32(np.array(values, dtype="<i4").tobytes()) % LOW


def intervals(value, model):
    """(start, frequency) of everything coded for one value, in the decoder's order."""
    lowest, highest, cum = model
    bucket = min(max(value, lowest), highest)
    yield cum(bucket), cum(bucket + 1) - cum(bucket)
    if bucket in (lowest, highest):
        bits = f"{abs(value - bucket) + 1:b}"
        for bit in "0" * (len(bits) - 1) + bits:
            yield int(bit) * 2**23, 2**23


def encode(z, y, params, z_cdf):
    """z (Cz, hz, wz), y (P, C), params (P, 9, C) of one tile -> bytes."""
    values = [int(v) for v in z.ravel()] + [int(v) for v in y.ravel()]
    symbols = []
    for value, model in zip(values, models(z.shape, y.shape, params, z_cdf), strict=True):
        symbols.extend(intervals(value, model))
    x, words = start_state(values), []
    for start, freq in reversed(symbols):
        if x >= freq << 39:
            words.append(x % 2**32)
            x >>= 32
        x = ((x // freq) << 24) + x % freq + start
    return x.to_bytes(8, "little") + b"".join(word.to_bytes(4, "little") for word in reversed(words))


class DamagedError(Exception):
    pass


class _Reader:
    def __init__(self, stream):
        if len(stream) < 8 or len(stream) % 4:
            raise DamagedError
        self.x = int.from_bytes(stream[:8], "little")
        self.words = [int.from_bytes(stream[i : i + 4], "little") for i in range(8, len(stream), 4)]
        if not LOW <= self.x < 2**63:
            raise DamagedError

    def read(self, lowest, highest, cum):
        slot = self.x % TOTAL
        low, high = lowest, highest + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if cum(middle) <= slot else (low, middle)
        self.x = (cum(low + 1) - cum(low)) * (self.x >> 24) + slot - cum(low)
        if self.x < LOW:
            if not self.words:
                raise DamagedError
            self.x = self.x << 32 | self.words.pop(0)
        return low

    def bit(self):
        return self.read(0, 1, lambda b: b * 2**23)

    def value(self, model):
        lowest, highest, _ = model
        bucket = self.read(*model)
        if lowest < bucket < highest:
            return bucket
        zeros = 0
        while not self.bit():
            zeros += 1
            if zeros > 30:
                raise DamagedError
        number = 1
        for _ in range(zeros):
            number = 2 * number + self.bit()
        value = bucket + (number - 1) * (1 if bucket == highest else -1)
        if not -(2**31) <= value < 2**31:
            raise DamagedError
        return value


def decode(stream, z_shape, y_shape, params, z_cdf):
    """Inverse of `encode`; raises `DamagedError` for anything that `encode` cannot have written."""
    reader = _Reader(stream)
    values = [reader.value(model) for model in models(z_shape, y_shape, params, z_cdf)]
    if reader.x != start_state(values) or reader.words:
        raise DamagedError
    flat = np.array(values, dtype=np.int32)
    count = int(np.prod(z_shape))
    return flat[:count].reshape(z_shape), flat[count:].reshape(y_shape)
