"""`ltchm compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ltchm_geo.cli import text
from ltchm_geo.cli.options import Reporter, device_option, json_option, quiet_option

if TYPE_CHECKING:
    from ltchm_geo.compare import Comparison


@click.command(
    short_help="Measure how a raster differs from a reference.",
    epilog="""
    \b
    Examples:
      ltchm compare scene.tif scene.ltchm
      ltchm compare scene.tif restored.tif --fail-on-metadata

    The exit code is 1 if the sizes differ, or, with --fail-on-metadata, if
    metadata or the holes differ; differing pixel values are no failure.
    """,
)
@click.argument("a")
@click.argument("b")
@click.option("--fail-on-metadata", is_flag=True, help="Fail if metadata or the pixels without data differ.")
@device_option
@json_option
@quiet_option
@click.pass_context
def compare(
    ctx: click.Context, a: str, b: str, fail_on_metadata: bool, device: str, as_json: bool, quiet: bool
) -> None:
    """Compare the raster or compressed scene B with the reference A.

    Reports per band PSNR, MS-SSIM and errors in units of the data, and the angle between spectra, over pixels that
    hold data in both; at how many pixels only one of them holds data; and what else differs: size, CRS, transform,
    tags, nodata, colours and so on.
    """
    from ltchm_geo import compare_rasters

    reporter = Reporter(as_json, quiet)
    with reporter.progress("comparing") as progress:
        found = compare_rasters(a, b, device=device, progress=progress)
    reporter.result(found.to_dict(), _describe(found))
    if not found.same_size or (fail_on_metadata and not (found.same_metadata and found.same_validity)):
        ctx.exit(1)


def _describe(found: Comparison) -> str:
    parts = [f"{found.test}, compared with {found.reference}"]
    if found.same_size:
        holes = "identical" if found.same_validity else f"different at {text.counted(found.validity_changed, 'pixel')}"
        rows = [
            ("PSNR", "inf (identical)" if found.same_pixels else f"{text.number(found.psnr)} dB"),
            ("MS-SSIM", None if found.ms_ssim is None else f"{found.ms_ssim:.5f} ({text.number(found.ms_ssim_db)} dB)"),
            ("spectral angle", None if found.spectral_angle is None else f"{found.spectral_angle:.4g} degrees"),
            ("holes", holes),
            (
                "metadata",
                "identical" if found.same_metadata else f"{text.counted(len(found.metadata), 'difference')}, see below",
            ),
        ]
        parts += [text.facts(rows), "", _band_table(found)]
    if found.metadata:
        rows_changed = [(d.field, _value(d.field, d.reference), _value(d.field, d.test)) for d in found.metadata]
        parts += ["", text.table(("metadata", "reference", "test"), rows_changed, left=(0, 1, 2))]
    return "\n".join([*parts, *(["", *found.notes] if found.notes else [])])


def _value(field: str, value: str | None) -> str:
    name = text.crs_name(value) if field.endswith("CRS") else value
    return "-" if name is None else text.shorten(name, 30)


def _band_table(found: Comparison) -> str:
    header = ("band", "name", "PSNR (dB)", "MS-SSIM", "MSE", "mean error", "max error")
    rows = [
        (
            str(band.band),
            text.shorten(band.name or "-", 20),
            text.number(band.psnr),
            text.number(band.ms_ssim, 5),
            f"{band.mse:.4g}",
            f"{band.mean_error:.3g}",
            f"{band.max_error:.6g}",
        )
        for band in found.bands
    ]
    return text.table(header, rows, left=(1,))
