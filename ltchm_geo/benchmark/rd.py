"""Rate and distortion: every image of a data set, at every setting of a codec, as one result."""

from __future__ import annotations

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltchm_geo.errors import UsageError
from ltchm_geo.schedule import Progress, Ticker

from .codecs import Codec, code
from .dataset import Dataset, Image
from .environment import environment
from .results import RdPoint, RdResult, result_path

__all__ = ["METRICS", "CannotRunError", "distortion", "measure_codec"]

METRICS = ("psnr", "ms-ssim", "lpips", "vifp")  # PSNR and the largest error are always measured

Pixels = NDArray[Any]


class CannotRunError(UsageError):
    """A codec has no encoder here, or cannot code any image of the data set."""


def measure_codec(
    codec: Codec,
    dataset: Dataset,
    out: str | os.PathLike[str],
    *,
    metrics: Collection[str] = ("psnr", "ms-ssim"),
    overwrite: bool = False,
    jobs: int = 1,
    progress: Progress | None = None,
) -> RdResult:
    """Measure one codec and store the result; a stored one is only read, unless `overwrite`.

    Parameters
    ----------
    codec : see `codecs.codec`
    dataset : see `dataset.open_dataset`
    out : folder of the results; this one becomes ``<out>/<dataset>/<codec>.json``
    metrics : of `METRICS`
    jobs : images in work at once; more than one makes the times worthless
    progress : called with (points done, points in all)

    Raises
    ------
    CannotRunError
        If nothing can be measured; says why.
    """
    if unknown := set(metrics) - set(METRICS):
        raise UsageError(f"unknown metrics {', '.join(sorted(unknown))}; choose from {', '.join(METRICS)}")
    path = result_path(out, dataset.name, codec.name)
    if path.exists() and not overwrite:
        return RdResult.load(path)
    if reason := codec.missing():
        raise CannotRunError(f"{codec.name} {reason}")
    images, refused = _accepted(codec, dataset)
    ticker = Ticker(sum(len(codec.settings(pixels.dtype)) for _, pixels in images), progress)

    def measure(item: tuple[Image, Pixels]) -> list[RdPoint]:
        image, pixels = item
        points = []
        for setting in codec.settings(pixels.dtype):
            points.append(_measure(codec, image.name, pixels, setting, metrics))
            ticker.add(1)
        return points

    with ThreadPoolExecutor(jobs) as pool:
        points = [point for found in pool.map(measure, images) for point in found]
    result = RdResult(codec.name, codec.label, dataset.name, tuple(points), _about(codec, metrics, refused, jobs))
    result.save(Path(out))
    return result


def distortion(reference: Pixels, test: Pixels, metrics: Collection[str] = METRICS) -> dict[str, float | None]:
    """The quality fields of an `RdPoint`, None where a metric was not asked for or does not apply.

    Parameters
    ----------
    reference, test : (bands, h, w). The range of the data is 255 for 8 bits; otherwise what the reference spans, over
        all bands together for PSNR and band by band for MS-SSIM. LPIPS is defined for three bands of 8 bits, VIFp is
        measured with 8 bits only.
    """
    from ltchm_geo.metrics import ErrorStats, vifp

    stats = ErrorStats()
    stats.add(reference, test)
    eight_bits = reference.dtype == np.uint8
    return {
        "psnr": stats.psnr(255.0 if eight_bits else None),
        "ms_ssim": _ms_ssim(reference, test) if "ms-ssim" in metrics else None,
        "lpips": _lpips(reference, test) if "lpips" in metrics and eight_bits and len(reference) == 3 else None,
        "vifp": vifp(reference, test) if "vifp" in metrics and eight_bits else None,
        "max_error": stats.max_abs,
    }


def _ms_ssim(reference: Pixels, test: Pixels) -> float | None:
    from ltchm_geo.metrics import ms_ssim

    values = []
    for before, after in zip(reference, test, strict=True):
        low, high = (0.0, 255.0) if before.dtype == np.uint8 else (float(before.min()), float(before.max()))
        values.append(ms_ssim(before, after, high - low, low))
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _lpips(reference: Pixels, test: Pixels) -> float:
    from ltchm_geo.metrics import lpips

    return lpips(reference, test)


def _measure(codec: Codec, name: str, pixels: Pixels, setting: str, metrics: Collection[str]) -> RdPoint:
    coded = code(codec, pixels, setting)
    found = distortion(pixels, coded.pixels, metrics)
    quality: dict[str, Any] = {key: value if value is None else round(float(value), 6) for key, value in found.items()}
    return RdPoint(
        image=name,
        setting=setting,
        bytes=coded.bytes,
        bpp=8 * coded.bytes / (pixels.shape[1] * pixels.shape[2]),
        encode_s=round(coded.encode_s, 4),
        decode_s=round(coded.decode_s, 4),
        **quality,
    )


def _accepted(codec: Codec, dataset: Dataset) -> tuple[list[tuple[Image, Pixels]], dict[str, str]]:
    """The images that the codec can code, with their pixels; why it cannot code the others."""
    accepted, refused = [], {}
    for image in dataset.images:
        pixels = image.load()
        if reason := codec.refuses(pixels.dtype, len(pixels)):
            refused[image.name] = reason
        else:
            accepted.append((image, pixels))
    if not accepted:
        raise CannotRunError(f"{codec.name} can code no image of {dataset.name}: {next(iter(refused.values()))}")
    return accepted, refused


def _about(codec: Codec, metrics: Collection[str], refused: dict[str, str], jobs: int) -> dict[str, Any]:
    about = codec.about()
    here = environment()
    found = {**about, **here, "versions": {**here["versions"], **about["versions"]}}
    found |= {"metrics": [name for name in METRICS if name in metrics], "jobs": jobs}
    return found | ({"refused": refused} if refused else {})
