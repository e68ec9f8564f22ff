"""Compiled loops around products of 8-bit integers: what comes before and after them, and depth-wise convolution.

Sums are kept in float64, where `arithmetic` proves them exact. Kernels hold no lock, write only into arrays given to
them, and trust shapes that `byte_products` has made.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ltchm_geo._numba import compiled

_LIMIT = 32767.0
_LEAKY = 2.0**-7
_HIGH, _LOW = 65536.0, 256.0

Floats = NDArray[np.float64]
Activations = NDArray[np.int16]


@compiled
def split(x: Activations, halves: NDArray[np.int8]) -> None:
    """Rows x (M, K) to halves (2M, K), high ones first: x = 256 * high + low + 128."""
    rows, columns = x.shape
    for m in range(rows):
        for k in range(columns):
            halves[m, k] = x[m, k] >> 8
            halves[rows + m, k] = (x[m, k] & 255) - 128


@compiled
def _finished(value: float, leaky: bool) -> float:
    """Round a scaled accumulator off to an activation, after a LeakyReLU if `leaky`."""
    if leaky and value < 0:
        value *= _LEAKY
    value = np.floor(value + 0.5)
    value = value if value < _LIMIT else _LIMIT
    return value if value > -_LIMIT else -_LIMIT


@compiled
def finish(
    products: NDArray[np.int32],
    constant: Floats,
    scale: Floats,
    residual: Activations,
    residual_scale: float,
    leaky: bool,
    out: Activations,
) -> None:
    """Put products of halves (2M, 2C + 1) together and round them off: out (M, C).

    Columns are those of the weight's high halves, of its low ones, and the sum of the row; `constant` and `scale` are
    (C,). `residual` times its scale is added; it is (M, C), or has no rows.
    """
    rows, columns = out.shape
    for m in range(rows):
        high, low = products[m], products[rows + m]
        row = 128.0 * (_LOW * high[2 * columns] + low[2 * columns])
        for c in range(columns):
            mixed = np.float64(high[columns + c]) + np.float64(low[c])
            value = _HIGH * high[c] + _LOW * mixed + low[columns + c] + row + constant[c]
            value *= scale[c]
            if len(residual):
                value += residual[m, c] * residual_scale
            out[m, c] = np.int16(_finished(value, leaky))


@compiled
def finish_narrow(products: NDArray[np.int32], constant: Floats, scale: Floats, leaky: bool, out: Activations) -> None:
    """As `finish`, of activations that were 8-bit integers as they are: products (M, 2C + 1)."""
    rows, columns = out.shape
    for m in range(rows):
        product = products[m]
        row = 128.0 * product[2 * columns]
        for c in range(columns):
            value = (_LOW * product[c] + product[columns + c] + row + constant[c]) * scale[c]
            out[m, c] = np.int16(_finished(value, leaky))


@compiled
def depthwise(x: Activations, weight: Floats, bias: Floats, leaky: int, out: Activations) -> None:
    """Depth-wise k x k convolution of x (B, H, W, C): weight (k * k, C) and bias (C,) already scaled, rounded off.

    The first `leaky` channels pass through a LeakyReLU.
    """
    maps, height, width, channels = x.shape
    size = int(np.sqrt(len(weight)))
    margin = size // 2
    total = np.empty(channels)
    for b in range(maps):
        for i in range(height):
            for j in range(width):
                total[:] = bias
                for ky in range(max(0, margin - i), min(size, height + margin - i)):
                    for kx in range(max(0, margin - j), min(size, width + margin - j)):
                        tap, inside = weight[ky * size + kx], x[b, i + ky - margin, j + kx - margin]
                        for c in range(channels):
                            total[c] += tap[c] * inside[c]
                for c in range(channels):
                    out[b, i, j, c] = np.int16(_finished(total[c], c < leaky))
