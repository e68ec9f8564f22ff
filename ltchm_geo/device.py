"""Which device computes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ltchm_geo.errors import DeviceError

if TYPE_CHECKING:
    import torch


_CONVOLUTIONS = threading.Lock()


@contextlib.contextmanager
def single_precision() -> Iterator[None]:
    """Let GPUs compute convolutions in true float32 meanwhile: by default they round their inputs to 10 bits (TF32)."""
    import torch

    if not torch.cuda.is_available():
        yield
        return
    with _CONVOLUTIONS:  # the setting is that of the whole process
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32 = before


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware. CPUs that do not are ten to a hundred times slower in it."""
    from ltchm_geo import cpu

    return cpu.has_bfloat16() if device.type == "cpu" else True


def pick_device(name: str = "auto") -> torch.device:
    """Torch device for a name: "auto" (CUDA if there is one, else CPU), "cpu", "cuda", "cuda:1".

    Raises
    ------
    DeviceError
        The name is not a device, or this machine has none of that kind, or scenes cannot be coded on that kind: the
        exact network needs float64.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"scenes cannot be coded on the device {name!r}; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError("no CUDA device is available; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"there is no {name}; this machine has {torch.cuda.device_count()} CUDA device(s)")
    return device
