"""Crops side by side: images coded now by several codecs at nearly the same rate."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltchm_geo.benchmark.codecs import Codec, Coded, code
from ltchm_geo.benchmark.dataset import Dataset
from ltchm_geo.benchmark.report_document import Picture, Pictures
from ltchm_geo.benchmark.results import RdResult
from ltchm_geo.errors import UsageError
from ltchm_geo.schedule import Progress, Ticker

__all__ = ["make_crops", "match_rate"]

Pixels = NDArray[Any]

_CLOSE = 0.02  # relative difference of rates that is close enough
_TRIES = 7


@dataclass(frozen=True)
class Matched:
    """A setting of a codec, the image coded with it, and its bits per pixel."""

    setting: str
    coded: Coded
    bpp: float


def match_rate(codec: Codec, pixels: Pixels, bpp: float, known: Mapping[str, float] | None = None) -> Matched:
    """Code an image at the setting whose rate comes nearest to `bpp`.

    Parameters
    ----------
    pixels : (bands, h, w)
    bpp : wanted bits per pixel
    known : bits per pixel by setting that were measured before, to start from
    """
    settings = codec.settings(pixels.dtype)
    # OpenJPEG's ratios are written as whole numbers but need not be; the other codecs' settings must.
    whole = all(setting.isdigit() for setting in settings) and not codec.name.startswith("openjpeg")
    rates = {float(setting): rate for setting, rate in (known or {}).items()}
    found: list[Matched] = []

    def measure(setting: float) -> None:
        text = str(round(setting)) if whole else f"{setting:.5g}"
        coded = code(codec, pixels, text)
        found.append(Matched(text, coded, 8 * coded.bytes / (pixels.shape[1] * pixels.shape[2])))
        rates[setting] = found[-1].bpp

    if len(rates) < 2:
        for setting in (settings[0], settings[-1]):
            measure(float(setting))
    for _ in range(_TRIES):
        guess = _interpolate(rates, bpp)
        guess = float(round(guess)) if whole else guess
        if any(float(match.setting) == guess for match in found):
            break
        measure(guess)
        if abs(found[-1].bpp / bpp - 1) < _CLOSE:
            break
    return min(found, key=lambda match: abs(math.log(match.bpp / bpp)))


def _interpolate(rates: Mapping[float, float], bpp: float) -> float:
    """The setting for a rate, between the settings whose rates enclose it, linear in the logarithm of the rate."""
    log_rate, setting = zip(*sorted((math.log(rate), setting) for setting, rate in rates.items()), strict=True)
    return float(np.interp(math.log(bpp), log_rate, setting))


def make_crops(
    dataset: Dataset,
    codecs: Sequence[Codec],
    *,
    bpp: float = 0.5,
    side: int = 192,
    stored: Sequence[RdResult] = (),
    progress: Progress | None = None,
) -> list[Pictures]:
    """Per image the original and what each codec makes of it at `bpp`, the most detailed square of `side` pixels.

    Parameters
    ----------
    dataset : images of 3 bands of 8 bits
    codecs : that can run here
    stored : earlier results, which spare a search for the setting
    progress : called with (pictures done, pictures in all)

    Raises
    ------
    UsageError
        If an image is not 8-bit RGB, or a codec has no setting that changes its rate.
    """
    if fixed := [codec.name for codec in codecs if len(codec.settings(np.dtype(np.uint8))) < 2]:
        raise UsageError(f"{', '.join(fixed)} has no setting for its rate: leave it out of the codecs")
    ticker = Ticker(len(dataset.images) * len(codecs), progress)
    found = []
    for image in dataset.images:
        pixels = image.load()
        if pixels.dtype != np.uint8 or len(pixels) != 3:
            raise UsageError(f"{image.name} is {len(pixels)} bands of {pixels.dtype}; crops show 8-bit RGB")
        row, column = _most_detailed(pixels, side)
        view = np.s_[:, row : row + side, column : column + side]
        pictures = [_picture(pixels[view], "original", "24 bpp")]
        for codec in codecs:
            match = match_rate(codec, pixels, bpp, _known(stored, dataset.name, codec.name, image.name))
            pictures.append(_picture(match.coded.pixels[view], codec.label, _caption(match, pixels)))
            ticker.add(1)
        title = f"{dataset.name}, {image.name}: {side} x {side} pixels at row {row}, column {column}, near {bpp:g} bpp"
        found.append(Pictures(title, pictures))
    return found


def _caption(match: Matched, pixels: Pixels) -> str:
    from ltchm_geo.metrics import psnr

    return f"{match.bpp:.3f} bpp, {psnr(pixels, match.coded.pixels, 255.0):.2f} dB (whole image)"


def _known(stored: Sequence[RdResult], dataset: str, codec: str, image: str) -> dict[str, float]:
    return {
        point.setting: point.bpp
        for result in stored
        if (result.dataset, result.codec) == (dataset, codec)
        for point in result.points
        if point.image == image
    }


def _most_detailed(pixels: Pixels, side: int) -> tuple[int, int]:
    """Row and column of the square whose brightness changes most from pixel to pixel, on a grid of half a side."""
    grey = pixels.mean(axis=0)
    height, width = grey.shape
    step = max(side // 2, 1)
    corners = [
        (row, column)
        for row in range(0, max(height - side, 0) + 1, step)
        for column in range(0, max(width - side, 0) + 1, step)
    ]

    def detail(corner: tuple[int, int]) -> float:
        square = grey[corner[0] : corner[0] + side, corner[1] : corner[1] + side]
        return float(sum(np.abs(np.diff(square, axis=axis)).sum() for axis in (0, 1)))

    return max(corners, key=detail)


def _picture(pixels: Pixels, title: str, caption: str) -> Picture:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(file, "WEBP", lossless=True)
    return Picture(file.getvalue(), "image/webp", title, caption)
