"""Rate-distortion results: what is stored, and the tables made of it.

One JSON file per codec and data set, ``<folder>/<dataset>/<codec>.json``. A file under that name is complete.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ltchm_geo._json import decode_number, encode_number, loads, require_keys
from ltchm_geo._sink import write_file
from ltchm_geo.errors import UsageError

__all__ = [
    "ANCHORS",
    "RdPoint",
    "RdResult",
    "SummaryRow",
    "bd_rate_of_image",
    "load_results",
    "result_path",
    "summarise",
]

ANCHORS = ("openjpeg53", "openjpeg97")

_TEXTS = ("image", "setting")

Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class RdPoint:
    """One image at one setting of one codec.

    Attributes
    ----------
    image : name in the data set
    setting : the codec's own quality parameter
    bytes : every byte that a file would have
    bpp : bits per pixel, all bands together
    psnr : dB over all bands together, on the data's range; inf where nothing was lost
    ms_ssim : mean over the bands; None where the image is too small or it was not asked for
    lpips, vifp : None where not asked for, or not defined for this image
    max_error : largest absolute error, in units of the data
    encode_s, decode_s : wall seconds
    """

    image: str
    setting: str
    bytes: int
    bpp: float
    psnr: float
    ms_ssim: float | None
    lpips: float | None
    vifp: float | None
    max_error: float
    encode_s: float
    decode_s: float

    @property
    def pixels(self) -> float:
        """Rows times columns."""
        return 8 * self.bytes / self.bpp

    def quality(self, metric: str) -> float | None:
        """The value on the scale that curves are drawn in: ``ms_ssim`` in dB, the others as they are."""
        value: float | None = getattr(self, metric)
        if metric != "ms_ssim" or value is None:
            return value
        from ltchm_geo.metrics import ms_ssim_db

        return ms_ssim_db(value)


@dataclass(frozen=True)
class RdResult:
    """All points of one codec on one data set.

    Attributes
    ----------
    codec : name on the command line, and of the file
    label : name for people
    dataset : name of the data set
    points : grouped by image, in the order of the settings
    about : versions, commands, hardware and date
    """

    codec: str
    label: str
    dataset: str
    points: tuple[RdPoint, ...]
    about: dict[str, Any]

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the images, in the data set's order."""
        return tuple(dict.fromkeys(point.image for point in self.points))

    @property
    def settings(self) -> tuple[str, ...]:
        """Settings, in the codec's order."""
        return tuple(dict.fromkeys(point.setting for point in self.points))

    def curve(self, image: str, metric: str = "psnr") -> Curve:
        """(bits per pixel, quality) of one image by rising rate; lossless and unmeasured points are left out."""
        found = ((point.bpp, point.quality(metric)) for point in self.points if point.image == image)
        return sorted((rate, value) for rate, value in found if value is not None and math.isfinite(value))

    def averaged(self, metric: str = "psnr", images: Collection[str] | None = None) -> Curve:
        """Mean rate and mean quality over the images (all unless given), setting by setting, by rising rate.

        MS-SSIM is averaged before it is turned into dB, as CompressAI does. Settings in which an image has no value,
        or is lossless, are left out.
        """
        images = self.images if images is None else images
        found = []
        for setting in self.settings:
            points = [point for point in self.points if point.setting == setting and point.image in images]
            values = [getattr(point, metric) for point in points]
            if len(points) < len(images) or any(value is None or not math.isfinite(value) for value in values):
                continue
            rate, value = _mean([point.bpp for point in points]), _mean(values)
            if metric == "ms_ssim":
                from ltchm_geo.metrics import ms_ssim_db

                value = ms_ssim_db(value)
            if math.isfinite(value):
                found.append((rate, value))
        return sorted(found)

    def speed(self) -> tuple[float, float]:
        """Encoding and decoding in Mpx/s over all points."""
        pixels = sum(point.pixels for point in self.points) / 1e6
        seconds = (sum(point.encode_s for point in self.points), sum(point.decode_s for point in self.points))
        return tuple(pixels / value if value else math.nan for value in seconds)  # type: ignore[return-value]

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``<folder>/<dataset>/<codec>.json``, replacing what is there only once all is written."""
        path = result_path(folder, self.dataset, self.codec)
        path.parent.mkdir(parents=True, exist_ok=True)
        points = [{k: v if k in _TEXTS else encode_number(v) for k, v in asdict(p).items()} for p in self.points]
        head = {"codec": self.codec, "label": self.label, "dataset": self.dataset, "about": self.about}
        body = ",\n".join("  " + json.dumps(point, allow_nan=False) for point in points)
        text = json.dumps(head, indent=1, allow_nan=False, ensure_ascii=False).removesuffix("\n}")
        write_file(path, f'{text},\n "points": [\n{body}\n ]\n}}\n'.encode(), overwrite=True)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RdResult:
        """Read one file.

        Raises
        ------
        UsageError
            If it is not such a file.
        """
        try:
            data = require_keys(loads(Path(path).read_bytes()), {f.name for f in fields(cls)}, what="the result")
            return cls(**{**data, "points": tuple(_point(point) for point in data["points"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UsageError(f"{path} is not a rate-distortion result: {error}") from error


def result_path(folder: str | os.PathLike[str], dataset: str, codec: str) -> Path:
    """Where the result of a codec on a data set is kept."""
    return Path(folder) / dataset / f"{codec}.json"


def load_results(folder: str | os.PathLike[str]) -> list[RdResult]:
    """Every result in a folder and those below it, by data set and codec."""
    found = [RdResult.load(path) for path in Path(folder).rglob("*.json")]
    return sorted(found, key=lambda result: (result.dataset, result.codec))


def _point(data: Any) -> RdPoint:
    names = {f.name for f in fields(RdPoint)}
    found = require_keys(data, names, what="a point")
    values: dict[str, Any] = {k: v if k in _TEXTS else decode_number(v) for k, v in found.items()}
    return RdPoint(**values)


# --- tables ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SummaryRow:
    """A codec against an anchor: BD-rates in percent (negative is better), NaN where curves do not overlap.

    Points that cost more than another of the same curve and are no better do not count.

    Attributes
    ----------
    bd_rate, bd_rate_ms_ssim : of the curves averaged over the images
    bd_rate_per_image, bd_rate_ms_ssim_per_image : mean of the images' own BD-rates, over `images` of them
    bd_psnr : dB at equal rate, of the averaged curves
    images : how many images' curves overlap the anchor's enough to be compared (by PSNR)
    encode_mpx_s, decode_mpx_s : Mpx/s over all settings
    """

    codec: str
    label: str
    dataset: str
    anchor: str
    bd_rate: float
    bd_rate_per_image: float
    bd_psnr: float
    bd_rate_ms_ssim: float
    bd_rate_ms_ssim_per_image: float
    images: int
    encode_mpx_s: float
    decode_mpx_s: float


def summarise(results: Iterable[RdResult], anchor: str) -> list[SummaryRow]:
    """Compare codecs with an anchor measured on the same data set.

    Parameters
    ----------
    results : of any data sets; those without the anchor's result are left out
    anchor : codec name, such as ``openjpeg53``

    Returns
    -------
    One row per result, the anchor's own (all 0) included, in the order given.
    """
    results = list(results)
    anchors = {result.dataset: result for result in results if result.codec == anchor}
    return [_row(anchors[result.dataset], result) for result in results if result.dataset in anchors]


def _row(anchor: RdResult, result: RdResult) -> SummaryRow:
    from ltchm_geo.metrics import bd_psnr, bd_rate

    images = [image for image in anchor.images if image in result.images]

    def averaged(measure: Callable[[Curve, Curve], float], metric: str) -> float:
        return measure(*(_useful(one.averaged(metric, images)) for one in (anchor, result)))

    def per_image(metric: str) -> list[float]:
        found = [bd_rate_of_image(anchor, result, image, metric) for image in images]
        return [value for value in found if math.isfinite(value)]

    by_psnr, by_ms_ssim = per_image("psnr"), per_image("ms_ssim")
    encode, decode = result.speed()
    return SummaryRow(
        codec=result.codec,
        label=result.label,
        dataset=result.dataset,
        anchor=anchor.codec,
        bd_rate=averaged(bd_rate, "psnr"),
        bd_rate_per_image=_mean(by_psnr),
        bd_psnr=averaged(bd_psnr, "psnr"),
        bd_rate_ms_ssim=averaged(bd_rate, "ms_ssim"),
        bd_rate_ms_ssim_per_image=_mean(by_ms_ssim),
        images=len(by_psnr),
        encode_mpx_s=encode,
        decode_mpx_s=decode,
    )


def bd_rate_of_image(anchor: RdResult, result: RdResult, image: str, metric: str = "psnr") -> float:
    """BD-rate in percent of one image, over the points that count; NaN where the curves do not overlap."""
    from ltchm_geo.metrics import bd_rate

    return bd_rate(*(_useful(one.curve(image, metric)) for one in (anchor, result)))


def _useful(curve: Curve) -> Curve:
    """Without the points that cost more than another and are no better: nobody would choose such a setting."""
    found: Curve = []
    for rate, quality in sorted(curve, key=lambda point: (point[0], -point[1])):
        if not found or quality > found[-1][1]:
            found.append((rate, quality))
    return found


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
