"""How the inner loops of kernels are compiled: without the interpreter's lock, and kept on disk where possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

__all__ = ["compiled"]

_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(function: _Function) -> _Function:
    """Compile a function when it is first called with arguments of some types."""
    try:
        kernel = numba.njit(function, nogil=True, error_model="numpy", cache=True)
    except RuntimeError:  # numba found no writable folder for its cache: compile anew in each process instead
        kernel = numba.njit(function, nogil=True, error_model="numpy")
    return cast(_Function, kernel)
