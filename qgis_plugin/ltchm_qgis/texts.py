"""Figures and facts as people read them."""

from __future__ import annotations

import html
from typing import Any

from .translation import tr

__all__ = ["figure", "mean", "psnr_text", "size_text", "table"]


def size_text(count: float) -> str:
    """Bytes for people: 512 bytes, 1.23 MB, 45.6 GB."""
    if count < 1000:
        return tr("{count} bytes").format(count=int(count))
    value, units = count / 1000, ["kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        del units[0]
    return f"{value:.3g} {units[0]}" if value < 99.95 else f"{value:.0f} {units[0]}"


def figure(value: Any) -> float:
    """A number from JSON, where infinities and NaN are words."""
    return float(value)


def mean(values: list[Any] | None) -> float | None:
    """Mean of the finite figures; None without any."""
    finite = [v for v in map(figure, values or []) if v - v == 0]
    return sum(finite) / len(finite) if finite else None


def psnr_text(values: list[Any] | None) -> str:
    """Mean PSNR over bands; "exact" where no pixel differs; "" if not measured."""
    average = mean(values)
    if average is not None:
        return tr("PSNR {value} dB").format(value=f"{average:.1f}")
    return tr("exact") if values and all(figure(v) > 0 for v in values) else ""


def table(lines: list[tuple[str, str]]) -> str:
    """Labelled lines as an HTML table."""
    rows = "".join(f"<tr><th align='left'>{html.escape(a)}</th><td>{html.escape(b)}</td></tr>" for a, b in lines)
    return f"<table>{rows}</table>"
