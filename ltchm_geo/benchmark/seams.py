"""Can one see where tiles meet? Every image coded with tiles that see their neighbours, and with tiles that do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltchm_geo.errors import UsageError
from ltchm_geo.metrics import psnr, seam_step, seam_visibility
from ltchm_geo.picture import Stretch, write_png
from ltchm_geo.schedule import Progress, Ticker
from ltchm_geo.tiles import DEFAULT_TILE

from .codecs import code
from .codecs_ltchm import Ltchm
from .dataset import Dataset
from .environment import environment
from .output import markdown_table

__all__ = ["SeamPoint", "SeamResult", "measure_seams"]

_SHOWN, _ENLARGED = 96, 2  # pixels on either side of the place where four tiles meet

Pixels = NDArray[Any]


@dataclass(frozen=True)
class SeamPoint:
    """One image at one quality.

    Attributes
    ----------
    image, quality
    seamless : whether tiles saw their neighbours
    bpp : bits per pixel of the file
    psnr : dB
    visibility : see `seam_visibility`
    step, inside : see `seam_step`
    """

    image: str
    quality: int
    seamless: bool
    bpp: float
    psnr: float
    visibility: float
    step: float
    inside: float


@dataclass(frozen=True)
class SeamResult:
    """All points, and what they were measured with."""

    points: tuple[SeamPoint, ...]
    about: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {"points": [asdict(point) for point in self.points], "about": self.about}

    def markdown(self) -> str:
        """Means over the images, a row per quality; "a -> b" is without and with sight of the neighbours."""
        rows = []
        for quality in dict.fromkeys(point.quality for point in self.points):
            apart, joined = (self._means(quality, seamless) for seamless in (False, True))
            texts = [f"{before:.3f} -> {after:.3f}" for before, after in zip(apart, joined, strict=True)]
            rows.append([str(quality), *texts])
        return markdown_table(("quality", "bpp", "PSNR (dB)", "seam visibility", "step / step inside"), rows)

    def _means(self, quality: int, seamless: bool) -> list[float]:
        chosen = [p for p in self.points if (p.quality, p.seamless) == (quality, seamless)]
        return [
            float(np.mean([p.bpp for p in chosen])),
            float(np.mean([p.psnr for p in chosen])),
            float(np.mean([p.visibility for p in chosen])),
            float(np.mean([p.step for p in chosen]) / np.mean([p.inside for p in chosen])),
        ]


def measure_seams(
    dataset: Dataset,
    qualities: Sequence[int],
    *,
    model: str | None = None,
    device: str = "auto",
    pictures: Path | None = None,
    progress: Progress | None = None,
) -> SeamResult:
    """Measure seams on real files of whole images.

    Parameters
    ----------
    dataset : see `dataset.open_dataset`
    qualities : 1 to 100
    model, device : see `compress_raster`
    pictures : folder for ``<image>-q<quality>.png``: original, without, with, where the first four tiles meet; none of
        an image in which no four do
    progress : called with (files done, files in all)

    Raises
    ------
    UsageError
        If an image is no larger than one tile.
    """
    if small := [image.name for image in dataset.images if max(image.load().shape[1:]) <= DEFAULT_TILE]:
        raise UsageError(
            f"no tiles meet in {', '.join(small)}: leave out what is within {DEFAULT_TILE} x {DEFAULT_TILE} pixels"
        )
    ticker, points = Ticker(2 * len(qualities) * len(dataset.images), progress), []
    codec = Ltchm.of(model, device)
    for image in dataset.images:
        original = image.load()
        for quality in qualities:
            shown = [original]
            for seamless in (False, True):
                coded = code(replace(codec, seamless=seamless), original, str(quality))
                bpp = 8 * coded.bytes / (original.shape[1] * original.shape[2])
                points.append(_point(image.name, quality, seamless, bpp, original, coded.pixels))
                shown.append(coded.pixels)
                ticker.add(1)
            if pictures is not None and min(original.shape[1:]) > DEFAULT_TILE:
                write_png(pictures / f"{image.name}-q{quality}.png", _picture(shown))
    about = {**environment(), "dataset": dataset.name, **codec.about()}
    return SeamResult(tuple(points), about)


def _point(name: str, quality: int, seamless: bool, bpp: float, original: Pixels, restored: Pixels) -> SeamPoint:
    peak = 255.0 if original.dtype == np.uint8 else float(original.max()) - float(original.min())
    step, inside = seam_step(original, restored, DEFAULT_TILE)
    return SeamPoint(
        image=name,
        quality=quality,
        seamless=seamless,
        bpp=bpp,
        psnr=psnr(original, restored, peak),
        visibility=seam_visibility(original, restored, DEFAULT_TILE),
        step=step,
        inside=inside,
    )


def _picture(shown: Sequence[Pixels]) -> NDArray[np.uint8]:
    """Side by side, all with the contrast that shows most of the first."""
    rows = columns = slice(DEFAULT_TILE - _SHOWN, DEFAULT_TILE + _SHOWN)
    parts = [pixels[: 3 if len(pixels) >= 3 else 1, rows, columns].astype(np.float32) for pixels in shown]
    stretch = Stretch.of(parts[0])
    enlarged = [stretch.apply(part).repeat(_ENLARGED, 1).repeat(_ENLARGED, 2) for part in parts]
    gap = np.full((3, enlarged[0].shape[1], 8), 255, np.uint8)
    return np.concatenate([piece for part in enlarged for piece in (part, gap)][:-1], axis=2)
