"""The report's parts about rate and distortion: who needs how many bytes, curves, image by image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ltchm_geo.benchmark.report_document import Block, Folded, Heading, Paragraph, Plots, Section, Table, number
from ltchm_geo.benchmark.report_plots import METRIC_AXES, gain_curves, is_ours, rate_curves
from ltchm_geo.benchmark.results import ANCHORS, RdResult, SummaryRow, bd_rate_of_image, summarise

__all__ = ["Comparison", "compare", "curves_section", "images_section", "summary_section"]

_SHORT = {"openjpeg53": "5/3", "openjpeg97": "9/7"}
_READ_ME = (
    "Real files, every byte counted. Rate at equal quality in percent of the anchor's, negative is better: first of "
    "the curves averaged over the images, then the mean of the images' own (BD-rate, Akima splines). The anchors are "
    "JPEG 2000 by OpenJPEG with the reversible 5/3 wavelet, which is its default and the paper's anchor, and with the "
    "9/7 wavelet."
)


@dataclass(frozen=True)
class Comparison:
    """The codecs on one data set.

    Attributes
    ----------
    results : from the best to the worst by the mean of the images' BD-rates against the last anchor there is; those
        that have it for fewer images come later
    rows : per anchor that was measured, one row per result, in the same order
    """

    dataset: str
    results: Sequence[RdResult]
    rows: Mapping[str, Sequence[SummaryRow]]

    @property
    def same_images(self) -> bool:
        """Whether all codecs coded the same images, so that means can be compared."""
        return len({result.images for result in self.results}) == 1


def compare(results: Sequence[RdResult]) -> list[Comparison]:
    """The results by data set, each compared with both anchors."""
    found = []
    for dataset in dict.fromkeys(result.dataset for result in results):
        group = [result for result in results if result.dataset == dataset]
        tables = {anchor: rows for anchor in ANCHORS if (rows := summarise(group, anchor))}
        order = list(range(len(group)))
        if tables:
            last = list(tables.values())[-1]
            order.sort(key=lambda index: _rank(last[index]))
        sorted_tables = {anchor: [table[index] for index in order] for anchor, table in tables.items()}
        found.append(Comparison(dataset, [group[index] for index in order], sorted_tables))
    return found


def summary_section(comparisons: Sequence[Comparison]) -> Section:
    """Who needs how many bytes, per data set."""
    blocks: list[Block] = [Paragraph(_READ_ME)]
    for comparison in comparisons:
        blocks += [Heading(comparison.dataset), Paragraph(_in_words(comparison))]
        blocks += [summary_table(comparison)] if comparison.rows else []
        blocks += [Paragraph(text) for result in comparison.results if (text := _lossless(result))]
    return Section("Summary", blocks)


def summary_table(comparison: Comparison) -> Table:
    """A row per codec: BD-rates "averaged curve / mean of images" against each anchor, and of how many images.

    Where the anchors can be compared with for different numbers of images, there is a number for each of them.
    """
    anchors = list(comparison.rows)
    header = [
        "codec",
        *(f"PSNR, to {_SHORT[anchor]} (%)" for anchor in anchors),
        *(f"MS-SSIM, to {_SHORT[anchor]} (%)" for anchor in anchors),
        *(f"BD-PSNR, to {_SHORT[anchor]} (dB)" for anchor in anchors),
        "images",
    ]
    rows = []
    for found in zip(*comparison.rows.values(), strict=True):
        first = found[0]
        rows.append(
            [
                first.label,
                *(_pair(row.bd_rate, row.bd_rate_per_image) for row in found),
                *(_pair(row.bd_rate_ms_ssim, row.bd_rate_ms_ssim_per_image) for row in found),
                *(number(row.bd_psnr, 2, sign=True) for row in found),
                " / ".join(dict.fromkeys(str(row.images) for row in found)),
            ]
        )
    return Table(header, rows, strong=_ours(comparison))


def curves_section(comparisons: Sequence[Comparison]) -> Section:
    """Plots per data set: means over the images, or one per image where some codecs could not code all."""
    blocks: list[Block] = []
    for comparison in comparisons:
        results = comparison.results
        blocks.append(Heading(comparison.dataset))
        if not comparison.same_images:
            images = dict.fromkeys(image for result in results for image in result.images)
            plots = [(rate_curves(results, "psnr", image), f"PSNR of {image}") for image in images]
            blocks.append(Plots(plots))
            continue
        anchor = next((result for result in results if result.codec == ANCHORS[-1]), None)
        plots = [
            (rate_curves(results, metric), f"{axis}, mean over the images")
            for metric, axis in METRIC_AXES.items()
            if any(result.averaged(metric) for result in results)
        ]
        if anchor is not None:
            plots.insert(1, (gain_curves(results, anchor), f"The same, above {anchor.label} at equal rate"))
        blocks.append(Plots(plots))
    return Section("Curves", blocks)


def images_section(comparisons: Sequence[Comparison]) -> Section:
    """BD-rates of every image."""
    folded: list[Block] = [
        Folded(f"{comparison.dataset}, BD-rate (PSNR, %) against {anchor}", [_images_table(comparison, anchor)])
        for comparison in comparisons
        for anchor in comparison.rows
    ]
    return Section("Image by image", folded)


def _images_table(comparison: Comparison, anchor: str) -> Table:
    base = next(result for result in comparison.results if result.codec == anchor)
    others = [result for result in comparison.results if result.codec != anchor]
    rows = [
        [image, *(number(bd_rate_of_image(base, other, image), 1, sign=True) for other in others)]
        for image in base.images
    ]
    return Table(["image", *(other.label for other in others)], rows)


def _in_words(comparison: Comparison) -> str:
    """The best codec and ours."""
    if not comparison.rows:
        return "No result of JPEG 2000 to compare with."
    if not comparison.same_images:
        return "Not every codec could code every image: compare only rows with the same number of images."
    anchor, rows = list(comparison.rows.items())[-1]
    ranked = [(row, result) for row, result in zip(rows, comparison.results, strict=True) if row.images]
    ours = [index for index, (_, result) in enumerate(ranked) if is_ours(result)]
    where = f"than JPEG 2000 {_SHORT[anchor]} at equal PSNR (mean of the images)"
    best = ranked[0][0]
    text = f"{best.label} needs {_less(best.bd_rate_per_image)} {where}"
    for index in ours if ours != [0] else []:
        row = ranked[index][0]
        text += f"; {row.label} {_less(row.bd_rate_per_image)}, place {index + 1} of {len(ranked)}"
    return f"{text}." if ours else f"{text}. LTCHM has no result here."


def _less(percent: float) -> str:
    return f"{abs(percent):.1f} % {'less' if percent < 0 else 'more'}"


def _lossless(result: RdResult) -> str:
    """What a codec without loss needs; nothing for the others."""
    if any(math.isfinite(point.psnr) for point in result.points):
        return ""
    size, pixels = sum(point.bytes for point in result.points), sum(point.pixels for point in result.points)
    return f"{result.label} loses nothing and has no curve: {8 * size / pixels:.2f} bits per pixel."


def _ours(comparison: Comparison) -> frozenset[int]:
    return frozenset(index for index, result in enumerate(comparison.results) if is_ours(result))


def _pair(averaged: float, per_image: float) -> str:
    return f"{number(averaged, 1, sign=True)} / {number(per_image, 1, sign=True)}"


def _rank(row: SummaryRow) -> tuple[int, float]:
    """Codecs that could code more images first, and then the better ones; those without a figure last."""
    return -row.images, math.inf if math.isnan(row.bd_rate_per_image) else row.bd_rate_per_image
