"""Which device computes, how exactly, and when it is done."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ltchm_geo.errors import DeviceError

if TYPE_CHECKING:
    import torch


class _SinglePrecision:
    """PyTorch's settings of how GPUs multiply float32, kept exact while anybody needs that: they are the process's."""

    def __init__(self) -> None:
        self._lock, self._users = threading.Lock(), 0
        self._restore = contextlib.ExitStack()

    def begin(self) -> None:
        """One user more."""
        with self._lock:
            if not self._users:
                for settings, name, exact in _multipliers():
                    with contextlib.suppress(RuntimeError):  # the older kind, where the application has used the newer
                        self._restore.callback(setattr, settings, name, getattr(settings, name))
                        setattr(settings, name, exact)
            self._users += 1

    def end(self) -> None:
        """One user less; the last one puts back what was set."""
        with self._lock:
            self._users -= 1
            if not self._users:
                self._restore.close()


_SINGLE = _SinglePrecision()


def _multipliers() -> list[tuple[Any, str, Any]]:
    """Object, attribute and value for true float32, of convolutions and matrix products on GPUs."""
    from torch.backends import cuda, cudnn

    older: list[tuple[Any, str, Any]] = [(cudnn, "allow_tf32", False)]
    if not hasattr(cudnn, "conv"):  # PyTorch before 2.9
        return older
    # The older as well: whoever asks for it while it says something else gets an exception.
    return [*older, (cudnn.conv, "fp32_precision", "ieee"), (cuda.matmul, "fp32_precision", "ieee")]


@contextlib.contextmanager
def single_precision(device: torch.device) -> Iterator[None]:
    """Let a GPU compute in true float32 meanwhile: by default, it rounds inputs of convolutions to 10 bits (TF32)."""
    if device.type != "cuda":
        yield
        return
    _SINGLE.begin()
    try:
        yield
    finally:
        _SINGLE.end()


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware. CPUs that do not are ten to a hundred times slower in it."""
    import torch

    from ltchm_geo import cpu

    if device.type == "cpu":
        return cpu.has_bfloat16()
    # Before 8.0, NVIDIA's emulate it, and PyTorch does not say so; AMD's have other numbers.
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was asked to do: it is asked for more meanwhile, and clocks run on."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
