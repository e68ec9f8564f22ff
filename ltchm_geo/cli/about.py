"""`ltchm about`."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from ltchm_geo.cli import text
from ltchm_geo.cli.options import PROTOCOL, Reporter, device_option, json_option

_PACKAGES = ("torch", "numpy", "rasterio", "zarr", "dask", "numba")


@click.command(
    short_help="Show versions, device and weights.",
    epilog="""
    \b
    Examples:
      ltchm about
      ltchm about --device cuda --json
    """,
)
@device_option
@json_option
def about(device: str, as_json: bool) -> None:
    """Show which versions are installed, what would compute, and which weights are there.

    For bug reports, and for programs that drive this one: "protocol" changes when the JSON events do.
    """
    from ltchm_geo.version import __version__

    data: dict[str, Any] = {
        "version": __version__,
        "protocol": PROTOCOL,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _installed(name) for name in _PACKAGES},
        **_device(device),
        "weights": _weights(),
    }
    Reporter(as_json).result(data, _describe(data))


def _device(name: str) -> dict[str, str]:
    from ltchm_geo.device import pick_device

    device = pick_device(name)
    if device.type == "cuda":
        import torch

        return {"device": str(device), "device_name": torch.cuda.get_device_name(device)}
    return {"device": str(device), "device_name": platform.processor() or platform.machine()}


def _weights() -> list[dict[str, str]]:
    from ltchm_geo.weights import available

    return [{"tag": entry.tag, "status": entry.status, "path": str(path)} for entry, path in available()]


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _describe(data: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {found}" for name, found in data["packages"].items() if found)
    weights = ", ".join(f"{entry['tag']} ({entry['status']})" for entry in data["weights"])
    rows: list[tuple[str, str | None]] = [
        ("python", f"{data['python']} on {data['platform']}"),
        ("packages", packages),
        ("device", f"{data['device']} ({data['device_name']})"),
        ("weights", weights or "none"),
        ("protocol", str(data["protocol"])),
    ]
    return f"ltchm {data['version']}\n{text.facts(rows)}"
