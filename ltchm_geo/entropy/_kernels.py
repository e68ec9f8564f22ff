"""Compiled inner loops of the entropy coder: mixture probabilities and rANS, on int64 only.

The stored tables come in as arguments because numba freezes globals into its cache, where a changed table would go
unnoticed. (So would a changed constant of `tables`: touch this file too.) Kernels hold no lock (`nogil`), write only
into arrays given to them, and trust shapes that `rans` has checked. Array bounds are not checked here: each index has
its bound stated beside it.

rANS state x: L = 2**31 <= x < 2**63 between symbols, so signed 64-bit integers hold it. Words are 32 bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ltchm_geo._numba import compiled
from ltchm_geo.entropy.tables import (
    EXP_CLAMP,
    LS_MAX,
    LS_MIN,
    PHI_HALF,
    PROB_BITS,
    PROB_TOTAL,
    WEIGHT_BITS,
    Y_BUCKETS,
    Y_MAX,
    Y_MIN,
    Z_MAX,
)

STATE_LOW = 1 << 31
WORD_BITS = 32
# Each escape has at most 30 prefix zeros: an excess of 2**31 - 1 or more would leave int32.
ESCAPE_ZEROS = 30

# What can be wrong with a stream; a tile keeps the first fault met.
SOUND, MALFORMED, EXHAUSTED, ESCAPE_RANGE, WRONG_END, LEFTOVER = range(6)

Mixture = tuple[int, int, int, int, int, int, int, int, int]
Integers = NDArray[np.int64]
Words = NDArray[np.uint32]

_SLOT_MASK = PROB_TOTAL - 1
_WORD_MASK = (1 << WORD_BITS) - 1
_HALF = PROB_TOTAL // 2
_INT32_MIN, _INT32_MAX = -(1 << 31), (1 << 31) - 1


@compiled
def _wide(value: int) -> int:
    """As int64, whatever integer type an array element had."""
    return np.int64(value)  # type: ignore[return-value]


# --- probabilities ---------------------------------------------------------------------------------------------------


@compiled
def _mixture(params: NDArray[np.int16], p: int, c: int, exp: Integers, inv_sigma: Integers) -> Mixture:
    """Weights, means (1/64) and reciprocal sigmas of one symbol."""
    l0, l1, l2 = _wide(params[p, 0, c]), _wide(params[p, 1, c]), _wide(params[p, 2, c])
    top = max(l0, l1, l2)
    # Differences of int16 lie in 0..65535 and are clamped to the table.
    e0 = exp[min(top - l0, EXP_CLAMP)]
    e1 = exp[min(top - l1, EXP_CLAMP)]
    e2 = exp[min(top - l2, EXP_CLAMP)]
    # 2**24 <= total <= 3 * 2**24, as the largest logit gives 2**24; e << 15 <= 2**39.
    total = e0 + e1 + e2
    # The first largest weight takes what the floors left over; its own quotient is never needed.
    if l0 == top:
        w1, w2 = _weight(e1, total), _weight(e2, total)
        w0 = (1 << WEIGHT_BITS) - w1 - w2
    elif l1 == top:
        w0, w2 = _weight(e0, total), _weight(e2, total)
        w1 = (1 << WEIGHT_BITS) - w0 - w2
    else:
        w0, w1 = _weight(e0, total), _weight(e1, total)
        w2 = (1 << WEIGHT_BITS) - w0 - w1
    m0, m1, m2 = _wide(params[p, 3, c]), _wide(params[p, 4, c]), _wide(params[p, 5, c])
    i0 = inv_sigma[min(max(_wide(params[p, 6, c]), LS_MIN), LS_MAX) - LS_MIN]
    i1 = inv_sigma[min(max(_wide(params[p, 7, c]), LS_MIN), LS_MAX) - LS_MIN]
    i2 = inv_sigma[min(max(_wide(params[p, 8, c]), LS_MIN), LS_MAX) - LS_MIN]
    return w0, m0, i0, w1, m1, i1, w2, m2, i2


@compiled
def _weight(e: int, total: int) -> int:
    # Far components are common; skipping their division changes nothing, since 2**24 <= total.
    return 0 if e << WEIGHT_BITS < PROB_TOTAL else (e << WEIGHT_BITS) // total


@compiled
def _phi(distance: int, inverse: int, phi: Integers) -> int:
    """Normal CDF, 0..2**24, at `distance` (1/64) times `inverse` = 2**24 / sigma."""
    # |distance| <= 64 * 512 + 32 + 2**15 < 2**17 and inverse < 2**28: the product is below 2**45.
    position = distance * inverse
    cell = (position >> PROB_BITS) + PHI_HALF  # floor, also below zero
    if cell < 0:
        return 0
    if cell >= 2 * PHI_HALF:
        return PROB_TOTAL
    below: int = phi[cell]  # 0 <= cell < 2 * PHI_HALF, so cell + 1 is the last entry at most
    # Neighbours differ by less than 2**17 and the fraction is below 2**24: the product is below 2**41.
    rise: int = phi[cell + 1] - below
    return below + ((rise * (position & _SLOT_MASK)) >> PROB_BITS)


@compiled
def _cumulative(bucket: int, mixture: Mixture, phi: Integers) -> int:
    """Cumulative frequency below `bucket`, which lies in Y_MIN..Y_MAX + 1."""
    if bucket <= Y_MIN:
        return 0
    if bucket > Y_MAX:
        return PROB_TOTAL
    w0, m0, i0, w1, m1, i1, w2, m2, i2 = mixture
    edge = 64 * bucket - 32
    # Weights sum to 2**15 and Phi <= 2**24: the sum is at most 2**39. A weight of zero saves its look-up.
    mixed = 0
    if w0 != 0:
        mixed += w0 * _phi(edge - m0, i0, phi)
    if w1 != 0:
        mixed += w1 * _phi(edge - m1, i1, phi)
    if w2 != 0:
        mixed += w2 * _phi(edge - m2, i2, phi)
    # At most 2**24 * 2**24 = 2**48.
    return (((mixed >> WEIGHT_BITS) * (PROB_TOTAL - Y_BUCKETS)) >> PROB_BITS) + (bucket - Y_MIN)


@compiled
def _find_bucket(slot: int, mixture: Mixture, phi: Integers) -> tuple[int, int, int]:
    """The only bucket with start <= slot < start + frequency; returns (bucket, start, frequency).

    Gallops away from the dominant mean, then bisects. Cumulative frequencies increase strictly from 0 at Y_MIN to
    2**24 > slot at Y_MAX + 1, so both loops end and the answer does not depend on where they began.
    """
    w0, m0, i0, w1, m1, i1, w2, m2, i2 = mixture
    mean, inverse = m0, i0
    if w1 > w0 and w1 >= w2:
        mean, inverse = m1, i1
    elif w2 > w0:
        mean, inverse = m2, i2
    start = min(max((mean + 32) >> 6, Y_MIN), Y_MAX)
    step = 1 + (PROB_TOTAL // 2) // inverse  # about half a sigma
    low = high = start
    low_value = high_value = _cumulative(start, mixture, phi)
    if low_value <= slot:
        high = min(low + 1, Y_MAX + 1)
        high_value = _cumulative(high, mixture, phi)
        while high_value <= slot:
            low, low_value = high, high_value
            high = min(low + step, Y_MAX + 1)
            high_value = _cumulative(high, mixture, phi)
            step *= 2
    else:
        low = max(high - 1, Y_MIN)
        low_value = _cumulative(low, mixture, phi)
        while low_value > slot:
            high, high_value = low, low_value
            low = max(high - step, Y_MIN)
            low_value = _cumulative(low, mixture, phi)
            step *= 2
    while high - low > 1:
        middle = (low + high) >> 1
        value = _cumulative(middle, mixture, phi)
        if value <= slot:
            low, low_value = middle, value
        else:
            high, high_value = middle, value
    return low, low_value, high_value - low_value


@compiled
def y_frequencies(
    y: NDArray[np.int32],
    params: NDArray[np.int16],
    exp: Integers,
    phi: Integers,
    inv_sigma: Integers,
    frequencies: Integers,
) -> None:
    """Frequency of the bucket of each symbol of one tile: y and frequencies (P, C), params (P, 9, C)."""
    for p in range(y.shape[0]):
        for c in range(y.shape[1]):
            mixture = _mixture(params, p, c, exp, inv_sigma)
            bucket = min(max(_wide(y[p, c]), Y_MIN), Y_MAX)
            frequencies[p, c] = _cumulative(bucket + 1, mixture, phi) - _cumulative(bucket, mixture, phi)


# --- encoder ---------------------------------------------------------------------------------------------------------


@compiled
def _push(state: int, start: int, frequency: int, words: Words, top: int) -> tuple[int, int]:
    """Push one interval; words grow downwards from `top`."""
    # 1 <= frequency < 2**24, so frequency << 39 < 2**63. If a word leaves, x was at least frequency << 39 and below
    # 2**63, so frequency << 7 <= x < 2**31 after it; if none does, L <= x, and L > frequency << 7 as well.
    # Then x // frequency is in 2**7 .. 2**39 - 1, and the new state at least 2**31 and below 2**39 * 2**24 = 2**63.
    if state >= frequency << 39:
        top -= 1
        words[top] = np.uint32(state & _WORD_MASK)
        state >>= WORD_BITS
    quotient = state // frequency
    return (quotient << PROB_BITS) + (state - quotient * frequency) + start, top


@compiled
def _push_excess(state: int, excess: int, words: Words, top: int) -> tuple[int, int]:
    """Elias-gamma code of excess + 1 < 2**31, last bit first: the decoder reads zeros, then the value from its top."""
    value = excess + 1
    zeros = 0
    while value >> zeros > 1:
        state, top = _push(state, ((value >> zeros) & 1) * _HALF, _HALF, words, top)
        zeros += 1
    state, top = _push(state, _HALF, _HALF, words, top)
    for _ in range(zeros):
        state, top = _push(state, 0, _HALF, words, top)
    return state, top


@compiled
def encode_tile(
    state: int,
    z: NDArray[np.int32],
    y: NDArray[np.int32],
    params: NDArray[np.int16],
    z_cdf: Integers,
    exp: Integers,
    phi: Integers,
    inv_sigma: Integers,
    words: Words,
) -> tuple[int, int]:
    """Push one tile backwards, so that the decoder reads it forwards.

    z (N, S), y (P, C), params (P, 9, C), z_cdf (N, 2 * Z_MAX + 2). Fills `words` from its end and returns the final
    state and the index of the first word. `words` must hold 3 words per symbol: one symbol costs at most 24 bits of
    bucket and 61 of escape, and each of its at most 62 pushes grows the state by a factor of at most
    (2**24 / frequency) * (1 + 2**-7), as x >= frequency << 7. That is below 86 bits in all. Each word that leaves takes
    at least 32 bits along, and the state ends no smaller than half of where it began.
    """
    top = len(words)
    for p in range(y.shape[0] - 1, -1, -1):
        for c in range(y.shape[1] - 1, -1, -1):
            value = _wide(y[p, c])
            bucket = min(max(value, Y_MIN), Y_MAX)
            if bucket in (Y_MIN, Y_MAX):
                state, top = _push_excess(state, abs(value - bucket), words, top)
            mixture = _mixture(params, p, c, exp, inv_sigma)
            start = _cumulative(bucket, mixture, phi)
            state, top = _push(state, start, _cumulative(bucket + 1, mixture, phi) - start, words, top)
    for c in range(z.shape[0] - 1, -1, -1):
        for s in range(z.shape[1] - 1, -1, -1):
            value = _wide(z[c, s])
            bucket = min(max(value, -Z_MAX), Z_MAX)
            if bucket in (-Z_MAX, Z_MAX):
                state, top = _push_excess(state, abs(value - bucket), words, top)
            start = z_cdf[c, bucket + Z_MAX]  # 0 <= bucket + Z_MAX <= 2 * Z_MAX, one below the last entry
            state, top = _push(state, start, z_cdf[c, bucket + Z_MAX + 1] - start, words, top)
    return state, top


# --- decoder ---------------------------------------------------------------------------------------------------------


@compiled
def _pop(state: int, start: int, frequency: int, words: Words, at: int, end: int) -> tuple[int, int, int]:
    """Take the interval found at the state's low bits off; returns (state, next word, fault)."""
    # state < 2**63 gives state >> 24 < 2**39, and slot - start < frequency: the result is below
    # frequency << 39 < 2**63.
    # It is at least 2**7 as state >= 2**31, so one word always brings it back to L or more, whatever the stream says.
    state = frequency * (state >> PROB_BITS) + (state & _SLOT_MASK) - start
    if state >= STATE_LOW:
        return state, at, SOUND
    if at >= end:
        return state, at, EXHAUSTED
    return (state << WORD_BITS) | _wide(words[at]), at + 1, SOUND


@compiled
def _pop_excess(state: int, words: Words, at: int, end: int) -> tuple[int, int, int, int]:
    """Elias-gamma code; returns (excess, state, next word, fault). At most 2 * ESCAPE_ZEROS + 1 bits are read."""
    zeros = 0
    while True:
        bit = (state & _SLOT_MASK) >> (PROB_BITS - 1)
        state, at, fault = _pop(state, bit * _HALF, _HALF, words, at, end)
        if fault != SOUND or bit == 1:
            break
        zeros += 1
        if zeros > ESCAPE_ZEROS:
            fault = ESCAPE_RANGE
            break
    value = 1
    for _ in range(zeros):
        if fault != SOUND:
            break
        bit = (state & _SLOT_MASK) >> (PROB_BITS - 1)
        state, at, fault = _pop(state, bit * _HALF, _HALF, words, at, end)
        value = value << 1 | bit  # below 2**31, as there are at most 30 bits after the first
    return value - 1, state, at, fault


@compiled
def _pop_value(
    bucket: int, lowest: int, highest: int, state: int, words: Words, at: int, end: int
) -> tuple[int, int, int, int]:
    """Complete a bucket to its value, reading an escape at either end; returns (value, state, next word, fault)."""
    if lowest < bucket < highest:
        return bucket, state, at, SOUND
    excess, state, at, fault = _pop_excess(state, words, at, end)
    value = bucket - excess if bucket == lowest else bucket + excess
    if fault == SOUND and not _INT32_MIN <= value <= _INT32_MAX:
        fault = ESCAPE_RANGE
    return value, state, at, fault


@compiled
def decode_z(
    states: Integers,
    cursors: Integers,
    ends: Integers,
    words: Words,
    faults: Integers,
    z_cdf: Integers,
    z: NDArray[np.int32],
) -> None:
    """Decode z (B, N, S) of a batch; states, cursors and faults, each (B,), are updated.

    From its first fault on, a tile reads as zero and its words are not touched.
    """
    for i in range(z.shape[0]):
        state, at, end, fault = states[i], cursors[i], ends[i], faults[i]
        for c in range(z.shape[1]):
            for s in range(z.shape[2]):
                value = 0
                if fault == SOUND:
                    # slot is in 0..2**24 - 1 and the row rises from 0 to 2**24, so a bucket in -Z_MAX..Z_MAX is found.
                    index = int(np.searchsorted(z_cdf[c], state & _SLOT_MASK, side="right")) - 1
                    start = z_cdf[c, index]
                    state, at, fault = _pop(state, start, z_cdf[c, index + 1] - start, words, at, end)
                    if fault == SOUND:
                        value, state, at, fault = _pop_value(index - Z_MAX, -Z_MAX, Z_MAX, state, words, at, end)
                z[i, c, s] = value if fault == SOUND else 0
        states[i], cursors[i], faults[i] = state, at, fault


@compiled
def decode_y(
    states: Integers,
    cursors: Integers,
    ends: Integers,
    words: Words,
    faults: Integers,
    params: NDArray[np.int16],
    exp: Integers,
    phi: Integers,
    inv_sigma: Integers,
    y: NDArray[np.int32],
) -> None:
    """Decode y (B, p, C) of one wavefront step with params (B, p, 9, C); otherwise as `decode_z`."""
    for i in range(y.shape[0]):
        state, at, end, fault = states[i], cursors[i], ends[i], faults[i]
        tile_params = params[i]
        for p in range(y.shape[1]):
            for c in range(y.shape[2]):
                value = 0
                if fault == SOUND:
                    mixture = _mixture(tile_params, p, c, exp, inv_sigma)
                    bucket, start, frequency = _find_bucket(state & _SLOT_MASK, mixture, phi)
                    state, at, fault = _pop(state, start, frequency, words, at, end)
                    if fault == SOUND:
                        value, state, at, fault = _pop_value(bucket, Y_MIN, Y_MAX, state, words, at, end)
                y[i, p, c] = value if fault == SOUND else 0
        states[i], cursors[i], faults[i] = state, at, fault
