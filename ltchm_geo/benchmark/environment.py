"""Where and with what something was measured: goes into every stored result."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ltchm_geo.cpu import core_count
from ltchm_geo.version import __version__

__all__ = ["cpu_name", "environment", "gpu_name", "versions"]


def environment(packages: Iterable[str] = ()) -> dict[str, Any]:
    """Date, hardware and versions as plain data.

    Parameters
    ----------
    packages : distributions whose versions matter for this result
    """
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "hardware": {
            "cpu": cpu_name(),
            "cores": core_count(),
            "gpu": gpu_name(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": {"python": platform.python_version(), "ltchm_geo": __version__, **versions(packages)},
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of the distributions that are installed; the others are left out."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cpu_name() -> str:
    """The processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def gpu_name() -> str | None:
    """Name of the first CUDA device; None without one or without PyTorch."""
    try:
        import torch
    except ImportError:
        return None
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
