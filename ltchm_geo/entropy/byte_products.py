"""Exact products out of 8-bit ones: what processors with VNNI instructions do twelve times faster than float64.

A 16-bit integer is 256 * high + low + 128, with both halves in [-128, 127]. So for activations x and weights w

    sum(x w) = 65536 sum(xh wh) + 256 (sum(xh wl) + sum(xl wh)) + sum(xl wl) + 128 (256 sum(xh) + sum(xl)) + 128 sum(w)

One product of 8-bit matrices, with 32-bit sums, gives all of these at once; a column of ones gives sum(xh) and sum(xl).
Activations in these layers are int16 tensors, or int8 where all of them are that small, which saves half the work.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltchm_geo.entropy import _byte_kernels as kernels
from ltchm_geo.entropy import arithmetic as ar

__all__ = ["MAX_ROWS", "ByteLinear", "byte_depthwise", "bytes_are_exact"]

#: Rows of a weight: 32-bit sums of this many products below 2**15, as they are where one factor is made unsigned, hold.
MAX_ROWS = 1 << 16
_MAX_PRODUCTS = 1 << 21  # 32-bit sums at once: what comes next finds them in the cache


@cache
def bytes_are_exact() -> bool:
    """Whether this processor multiplies 8-bit matrices fast, and this build of PyTorch exactly.

    Without VNNI, libraries add pairs of products in 16 bits, which saturate: the trial would show it.
    """
    vnni = getattr(torch.cpu, "_is_vnni_supported", lambda: False)
    if not vnni() or not hasattr(torch, "_int_mm"):
        return False
    for rows, inner, columns in ((1, 2, 3), (16, 1536, 513), (33, 129, 17)):
        for a in (127, -128):
            for b in (127, -128):
                left = torch.full((rows, inner), a, dtype=torch.int8)
                right = torch.full((inner, columns), b, dtype=torch.int8)
                if not (torch._int_mm(left, right) == a * b * inner).all():
                    return False
    return True


class ByteLinear:
    """`arithmetic.Linear` by products of 8-bit halves: the same arguments, `MAX_ROWS` rows of the weight at most."""

    def __init__(self, weight: NDArray[np.int16], bias: NDArray[np.int64], shift: NDArray[np.int8]):
        ar.check_sums(weight, bias, shift)
        ones = np.ones((len(weight), 1), np.int16)
        halves = np.concatenate([weight >> 8, (weight & 255) - 128, ones], axis=1)
        self._halves = torch.from_numpy(np.ascontiguousarray(halves, np.int8))
        self._bias = bias.astype(np.float64)
        self._constant = self._bias + 128.0 * weight.sum(axis=0, dtype=np.int64)
        self._scale = 2.0 ** -shift.astype(np.float64)
        self._rows = max(64, _MAX_PRODUCTS // self._halves.shape[1] // 2)

    @property
    def columns(self) -> int:
        """Output channels C."""
        return len(self._scale)

    def __call__(self, x: Tensor, *, leaky: int = 0, residual: tuple[Tensor, float] | None = None) -> Tensor:
        """(..., K) int16 or int8 -> (..., C) int16, rounded off; see `arithmetic.Linear`."""
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        out = np.empty((len(rows), self.columns), np.int16)
        added, scale = np.empty((0, self.columns), np.int16), 1.0
        if residual is not None:
            added, scale = residual[0].reshape(-1, self.columns).contiguous().numpy(), residual[1]
        for start in range(0, len(rows), self._rows):
            part = slice(start, start + self._rows)
            if x.dtype == torch.int8 and residual is None:
                products = torch._int_mm(rows[part], self._halves).numpy()
                kernels.finish_narrow(products, self._bias, self._scale, bool(leaky), out[part])
            else:
                products = torch._int_mm(_halves(rows[part]), self._halves).numpy()
                kernels.finish(products, self._constant, self._scale, added[part], scale, bool(leaky), out[part])
        return torch.from_numpy(out).reshape(*x.shape[:-1], self.columns)


def byte_depthwise(x: Tensor, weight: Tensor, bias: Tensor, leaky: int) -> Tensor:
    """Depth-wise k x k convolution of (B, H, W, C) int16, rounded off; weight (k * k, C) and bias (C,) are scaled.

    The first `leaky` channels pass through a LeakyReLU.
    """
    out = np.empty(x.shape, np.int16)
    kernels.depthwise(x.contiguous().numpy(), weight.numpy(), bias.numpy(), leaky, out)
    return torch.from_numpy(out)


def _halves(rows: Tensor) -> Tensor:
    """Rows (M, K) as (2M, K) int8: high halves, then low ones."""
    halves = np.empty((2 * rows.shape[0], rows.shape[1]), np.int8)
    kernels.split(rows.to(torch.int16).numpy(), halves)
    return torch.from_numpy(halves)
