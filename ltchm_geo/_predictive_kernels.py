"""Compiled inner loops of the predictive coder: prediction, context model and binary range coder, on int64 only.

One kernel both encodes and decodes, so that the two cannot come to differ. It holds no lock and writes only into arrays
given to it. Whatever bytes it decodes, it ends after as many steps as there are samples: indices into tables are
clamped, arithmetic wraps, and bytes past the end of the data read as zero.

The range coder keeps a range of 2**40 .. 2**48 - 1. Encoding, `low` is the least code value of the current interval;
decoding, `code` is what the data lie above it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ._numba import compiled

Integers = NDArray[np.int64]
Bytes = NDArray[np.uint8]

SHIFT = 12  # fraction bits of predictions and coefficients
BORDER = 2  # samples around a plane that predictions may touch
TAPS, BAND_TAPS = 6, 5  # differences within the plane, and within each of up to two planes before it
ENERGIES, FRACTIONS, EXPONENTS = 32, 5, 65
CONTEXTS = ENERGIES * FRACTIONS + ENERGIES * FRACTIONS + ENERGIES * EXPONENTS + EXPONENTS * 7
LOW, RANGE, POSITION, DECODING = range(4)  # the coder's state

_TOP, _BOTTOM = 1 << 48, 1 << 40
_ONE = 1 << 16
_FAST, _SLOWEST = 4, 255  # a probability moves by 1/16, its slower twin by 1/(1.5 + times seen), at least 1/256.5
_BIAS = 6  # a context's mean error moves by 1/64
_BIASES = 8 * 8


@compiled
def _carry(data: Bytes, position: int) -> None:
    """Add one to the bytes before `position`."""
    at = position - 1
    while at >= 0 and data[at] == 255:
        data[at] = 0
        at -= 1
    if at >= 0:
        data[at] += 1


@compiled
def _settle(state: Integers, data: Bytes) -> None:
    """Bring the range back to 2**40 or more, a byte at a time."""
    while state[RANGE] < _BOTTOM:
        position = state[POSITION]
        if state[DECODING]:
            byte = data[position] if position < len(data) else 0
            state[LOW] = state[LOW] << 8 | byte
        else:
            data[position] = state[LOW] >> 40
            state[LOW] = (state[LOW] & (_BOTTOM - 1)) << 8
        state[POSITION] = position + 1
        state[RANGE] <<= 8


@compiled
def _split(state: Integers, data: Bytes, bound: int, bit: int) -> int:
    """Code one bit whose 1 takes the lowest `bound` of the range; returns it."""
    if state[DECODING]:
        bit = 1 if state[LOW] < bound else 0
    if bit:
        state[RANGE] = bound
    elif state[DECODING]:
        state[LOW] -= bound
        state[RANGE] -= bound
    else:
        state[LOW] += bound
        state[RANGE] -= bound
        if state[LOW] >= _TOP:
            state[LOW] -= _TOP
            _carry(data, state[POSITION])
    _settle(state, data)
    return bit


@compiled
def code_bit(state: Integers, data: Bytes, model: Integers, steps: Integers, context: int, bit: int) -> int:
    """Code one bit with the adaptive probability of `context`; returns it. `model` is (contexts, 3)."""
    fast, slow, seen = model[context, 0], model[context, 1], model[context, 2]
    # Both stay within 1 .. 2**16 - 1, so each side of the split is positive.
    bit = _split(state, data, (state[RANGE] >> 16) * ((fast + slow) >> 1), bit)
    target = _ONE - 1 if bit else 1
    model[context, 0] = fast + ((target - fast) >> _FAST)
    model[context, 1] = slow + ((target - slow) * steps[seen] >> 16)
    if seen < _SLOWEST:
        model[context, 2] = seen + 1
    return bit


@compiled
def code_raw(state: Integers, data: Bytes, bits: int, value: int) -> int:
    """Code the lowest `bits` bits of a number as they are, highest first; returns them."""
    found = 0
    for place in range(bits - 1, -1, -1):
        found = found << 1 | _split(state, data, state[RANGE] >> 1, value >> place & 1)
    return found


@compiled
def _magnitude(state: Integers, data: Bytes, model: Integers, steps: Integers, energy: int, value: int) -> int:
    """Code a number >= 1 in Elias-gamma form, its length and two bits after the first by context; returns it."""
    length = 0
    while length < 63 and value >> (length + 1):  # floor(log2(value)), unsigned; not used when decoding
        length += 1
    base, exponent = ENERGIES * FRACTIONS * 2 + energy * EXPONENTS, 0
    while exponent < 63 and code_bit(state, data, model, steps, base + exponent, 1 if exponent < length else 0):
        exponent += 1
    found, detail = 1, ENERGIES * FRACTIONS * 2 + ENERGIES * EXPONENTS + exponent * 7
    modelled = min(exponent, 2)
    for place in range(modelled):
        found = found << 1 | code_bit(state, data, model, steps, detail + found, value >> (exponent - 1 - place) & 1)
    rest = exponent - modelled
    return found << rest | code_raw(state, data, rest, value)


@compiled
def _code_error(
    state: Integers, data: Bytes, model: Integers, steps: Integers, energy: int, fraction: int, error: int
) -> int:
    """Code a signed prediction error; returns it."""
    context = energy * FRACTIONS + fraction
    if code_bit(state, data, model, steps, context, 1 if error == 0 else 0):
        return 0
    negative = code_bit(state, data, model, steps, ENERGIES * FRACTIONS + context, 1 if error < 0 else 0)
    magnitude = _magnitude(state, data, model, steps, energy, -error if error < 0 else error)
    return -magnitude if negative else magnitude


@compiled
def _energy(total: int) -> int:
    """Class of a sum of error magnitudes: half octaves."""
    if total < 0:  # wrapped
        return ENERGIES - 1
    if total < 4:
        return total
    length = 0
    while total >> length > 1:
        length += 1
    return min(2 * length + (total >> (length - 1) & 1), ENERGIES - 1)


@compiled
def median_edge(west: int, north: int, corner: int) -> int:
    """The median edge detector of JPEG-LS."""
    if corner >= max(west, north):
        return min(west, north)
    if corner <= min(west, north):
        return max(west, north)
    return west + north - corner


@compiled
def _magnitude_of(value: int) -> int:
    return min(-value if value < 0 else value, 1 << 24) if value > -(1 << 62) else 1 << 24


@compiled
def code_plane(
    state: Integers,
    data: Bytes,
    steps: Integers,
    planes: Integers,
    errors: Integers,
    band: int,
    known: NDArray[np.bool_],
    coefficients: Integers,
) -> None:
    """Code plane `band` of `planes`, or decode into it.

    Parameters
    ----------
    state, data : see the module
    steps : (256,) how fast a probability moves by times seen, in 1/65536
    planes : (bands, h + 2, w + 4) int64
        Samples, behind a border of 2 rows above and 2 columns to each side; planes before `band` are finished.
    errors : like `planes`, zeros at first; what was coded
    known : (h, w) bool
        Samples to code; others are left out and take on what is likely there.
    coefficients : (TAPS + 2 BAND_TAPS,) int64, of the differences in 1/4096; no entries: median edge detection alone
    """
    height, width = known.shape
    plane, error = planes[band], errors[band]
    model = np.empty((CONTEXTS, 3), np.int64)
    model[:, 0], model[:, 1], model[:, 2] = _ONE // 2, _ONE // 2, 0
    biases = np.zeros(_BIASES, np.int64)
    before = min(band, 2) if len(coefficients) else 0
    for y in range(BORDER, height + BORDER):
        row, north, far = plane[y], plane[y - 1], plane[y - 2]
        if y > BORDER:
            row[:BORDER] = north[BORDER]
        for x in range(BORDER, width + BORDER):
            first = y == BORDER
            w = row[x - 1]
            n = w if first else north[x]
            if not known[y - BORDER, x - BORDER]:
                row[x] = n
                continue
            nw = w if first else north[x - 1]
            edge = median_edge(w, n, nw)
            total = 2 * (_magnitude_of(error[y, x - 1]) + _magnitude_of(error[y - 1, x]))
            total += _magnitude_of(error[y - 1, x - 1]) + _magnitude_of(error[y - 1, x + 1])
            total += _magnitude_of(error[y, x - 2]) + _magnitude_of(error[y - 2, x])
            texture, guess, fraction = 0, edge, 2
            if len(coefficients):
                sum_ = n << SHIFT
                if first:
                    for back in range(before):
                        other = planes[band - 1 - back, y]
                        sum_ += (other[x] - other[x - 1]) << (SHIFT - before + 1)
                else:
                    ne = north[x + 1]
                    sum_ += coefficients[0] * (w - n) + coefficients[1] * (nw - n) + coefficients[2] * (ne - n)
                    sum_ += coefficients[3] * (row[x - 2] - n) + coefficients[4] * (far[x] - n)
                    sum_ += coefficients[5] * (edge - n)
                    for back in range(before):
                        other, above = planes[band - 1 - back, y], planes[band - 1 - back, y - 1]
                        at = TAPS + back * BAND_TAPS
                        on = above[x]
                        sum_ += coefficients[at] * (other[x] - on) + coefficients[at + 1] * (other[x - 1] - on)
                        sum_ += coefficients[at + 2] * (other[x + 1] - on) + coefficients[at + 3] * (above[x - 1] - on)
                        sum_ += coefficients[at + 4] * (above[x + 1] - on)
                    texture = (w > n) | (nw > n) << 1 | (ne > n) << 2
                texture |= min(_energy(total) >> 1, 7) << 3
                sum_ += biases[texture]
                guess = (sum_ + (1 << (SHIFT - 1))) >> SHIFT
                rest = sum_ - (guess << SHIFT)  # -2048 .. 2047
                fraction = min((rest + (1 << (SHIFT - 1))) * FRACTIONS >> SHIFT, FRACTIONS - 1)
            for back in range(before):
                total += 2 * _magnitude_of(errors[band - 1 - back, y, x])
            found = _code_error(state, data, model, steps, _energy(total), fraction, row[x] - guess)
            row[x] = guess + found
            error[y, x] = found
            if len(coefficients):
                missed = (row[x] << SHIFT) - (sum_ - biases[texture])
                biases[texture] += (missed - biases[texture]) >> _BIAS
        # What lies outside continues the nearest sample.
        row[width + BORDER :] = row[width + BORDER - 1]
        if y == BORDER:
            row[:BORDER] = row[BORDER]
            north[:] = row
