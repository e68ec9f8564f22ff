"""Curves as SVG by matplotlib, to stand in a page: transparent, in the page's own text colour."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ltchm_geo.benchmark.results import ANCHORS, RdResult
from ltchm_geo.errors import UsageError, installing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["METRIC_AXES", "gain_curves", "is_ours", "line_plot", "rate_curves"]

METRIC_AXES = {"psnr": "PSNR (dB)", "ms_ssim": "MS-SSIM (dB)", "lpips": "LPIPS (lower is better)", "vifp": "VIFp"}

_INK = "#123454"  # stands for the page's text colour, see `_svg`
_OURS = "#e8590c"
_STYLES: dict[str, tuple[str, str]] = {  # colour and line; COGs like the format inside
    "openjpeg53": (_INK, "--"),
    "openjpeg97": (_INK, "-"),
    "jpeg": ("#8f959c", "-"),
    "webp": ("#2f9e44", "-"),
    "avif": ("#e0a800", "-"),
    "avif-best": ("#e0a800", "--"),
    "jxl": ("#4dabf7", "-"),
    "hevc": ("#3b5bdb", "-"),
    "vvc": ("#c2479f", "-"),
    "cog-jpeg": ("#8f959c", ":"),
    "cog-webp": ("#2f9e44", ":"),
    "cog-lerc": ("#7d5ba6", ":"),
}
_OTHERS = ("#0c8599", "#7d5ba6", "#a61e4d", "#5c940d", "#846358")
_LINES = ("-", "--", "-.", ":")
_SIZE = (4.6, 4.1)  # inches
_INKED = ("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color", "grid.color")
_SETTINGS = {
    **dict.fromkeys(_INKED, _INK),
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 8.5,
}


@dataclass(frozen=True)
class _Style:
    colour: str
    line: str
    width: float = 1.2


def is_ours(result: RdResult) -> bool:
    """Whether a result is of this project's codec: it tells the weights."""
    return "model" in result.about


def rate_curves(results: Sequence[RdResult], metric: str = "psnr", image: str | None = None) -> str:
    """Quality against bits per pixel: of one image, or the mean over all; SVG."""
    with _axes(METRIC_AXES[metric]) as (axes, drawn):
        curves = {r.codec: r.averaged(metric) if image is None else r.curve(image, metric) for r in results}
        for result, style in _styled(results):
            if curves[result.codec]:
                _draw(axes, curves[result.codec], result.label, style)
        _log_rates(axes)
        _look_at(axes, [point for anchor in ANCHORS for point in curves.get(anchor, [])])
    return drawn[0]


def gain_curves(results: Sequence[RdResult], anchor: RdResult) -> str:
    """PSNR above the anchor's at equal rate, against bits per pixel, of the mean over all images; SVG."""
    from scipy.interpolate import Akima1DInterpolator

    base = np.array(anchor.averaged())
    at = Akima1DInterpolator(np.log(base[:, 0]), base[:, 1])
    with _axes(f"PSNR above {anchor.label} (dB)") as (axes, drawn):
        axes.axhline(0, color=_INK, linewidth=1.2)
        for result, style in _styled(results):
            gains = [(rate, psnr - float(at(np.log(rate)))) for rate, psnr in result.averaged()]
            known = [(rate, gain) for rate, gain in gains if np.isfinite(gain)]
            if result.codec != anchor.codec and len(known) > 1:
                _draw(axes, known, result.label, style)
        _log_rates(axes)
    return drawn[0]


def line_plot(lines: Sequence[tuple[str, Sequence[tuple[float, float]]]], x: str, y: str) -> str:
    """Named lines of (x, y); SVG."""
    with _axes(y) as (axes, drawn):
        for index, (name, points) in enumerate(lines):
            _draw(axes, points, name, _Style(((_OURS, *_OTHERS)[index % (1 + len(_OTHERS))]), "-"))
        axes.set_xlabel(x)
    return drawn[0]


def _styled(results: Sequence[RdResult]) -> Iterator[tuple[RdResult, _Style]]:
    ours = others = 0
    for result in results:
        if is_ours(result):
            yield result, _Style(_OURS, _LINES[ours % len(_LINES)], 2.4)
            ours += 1
        elif result.codec in _STYLES:
            yield result, _Style(*_STYLES[result.codec])
        else:
            yield result, _Style(_OTHERS[others % len(_OTHERS)], "-.")
            others += 1


def _draw(axes: Axes, points: Sequence[tuple[float, float]], label: str, style: _Style) -> None:
    x, y = zip(*points, strict=True)
    name = label.lstrip("_")  # which would hide the line from the legend
    axes.plot(x, y, style.line, color=style.colour, linewidth=style.width, marker="o", markersize=2.6, label=name)


def _log_rates(axes: Axes) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([2.0**power for power in range(-6, 6)]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:.3g}"))
    axes.set_xlabel("bits per pixel, all bands together")


def _look_at(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """Show the surroundings of some points and not what is far from them; everything if there are none."""
    if points:
        rates, values = zip(*points, strict=True)
        room = 0.06 * (max(values) - min(values))
        axes.set_xlim(min(rates) / 1.3, max(rates) * 1.3)
        axes.set_ylim(min(values) - room, max(values) + room)


@contextmanager
def _axes(ylabel: str) -> Iterator[tuple[Axes, list[str]]]:
    """Axes to draw on; afterwards the list holds the SVG."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(f"plots need matplotlib: {installing('bench')}") from error
    drawn: list[str] = []
    settings: Any = {**_SETTINGS, "svg.hashsalt": ylabel}
    with rc_context(settings):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        axes.grid(True, alpha=0.18, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylabel(ylabel)
        yield axes, drawn
        if axes.get_legend_handles_labels()[0]:
            figure.legend(loc="outside lower center", ncols=3, fontsize=6.5, frameon=False, handlelength=2.6)
        drawn.append(_svg(figure))


def _svg(figure: Any) -> str:
    """Only what a page needs, and names that may occur twice in it left out."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    svg = file.getvalue()[file.getvalue().index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    return svg.replace(_INK, "currentColor").strip()
