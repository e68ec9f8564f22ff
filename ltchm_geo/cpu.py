"""The CPU cores that networks run on: how many, the threads on them, their memory, and what they compute fast.

PyTorch is imported where it is needed: who only counts cores does without.
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

__all__ = ["core_count", "has_bfloat16", "keep_memory", "pool"]

# Parameters of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT = 512 << 20
_LARGEST_KEPT = 32 << 20  # more than a layer's output; the most that every glibc takes


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; emulated, it is ten times slower than float32."""
    import torch

    # PyTorch's own answer: not public, so releases that do not give it get float32.
    checks = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return any(bool(check()) for check in checks if check is not None)


@cache
def pool(threads: int) -> ThreadPoolExecutor:
    """One thread per core to use, shared by all engines; inside, PyTorch computes on that thread alone.

    Tiles side by side use the cores better than several threads on one tile, and on a busy machine far better: there,
    threads of one operation spend their time waiting for each other. And a tile comes out the same, to the last bit,
    however many threads its caller has.
    """
    keep_memory()
    return ThreadPoolExecutor(threads, "ltchm", initializer=_start_thread)


if hasattr(os, "register_at_fork"):
    # A child inherits the pool without its threads, and would wait for them for ever.
    os.register_at_fork(after_in_child=pool.cache_clear)


def _start_thread() -> None:
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # a denormal costs a hundred times a normal number, and no pixel can show it


def keep_memory() -> None:
    """Let the C library keep what is freed for what is allocated next, up to `_KEPT`.

    By default it returns every activation's pages to the system, which clears and maps them anew for the next layer:
    5 to 10 % of a tile's time. Other C libraries than glibc do as they did.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None and mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT):
        mallopt(_TRIM_THRESHOLD, _KEPT)
