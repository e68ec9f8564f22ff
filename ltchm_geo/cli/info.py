"""`ltchm info`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ltchm_geo.cli import text
from ltchm_geo.cli.options import Reporter, json_option

if TYPE_CHECKING:
    from ltchm_geo.guarantee import Guarantee
    from ltchm_geo.inspection import SceneInfo
    from ltchm_geo.scene_meta import SceneMeta


@click.command(
    short_help="Describe a compressed scene.",
    epilog="""
    \b
    Examples:
      ltchm info scene.ltchm
      ltchm info scene.ltchm --json
    """,
)
@click.argument("src")
@json_option
def info(src: str, as_json: bool) -> None:
    """Describe the compressed scene SRC: size, bands, georeferencing, quality, weights.

    Reads the description only; `ltchm verify` checks the pixels.
    """
    from ltchm_geo import info as describe

    found = describe(src)
    Reporter(as_json).result(found.to_dict(), _describe(found))


def _describe(found: SceneInfo) -> str:
    meta = found.meta
    smaller = f"{found.ratio:.1f} times smaller than its pixels ({text.size(found.raw_bytes)})"
    shape = meta.grid.shape
    rows: list[tuple[str, str | None]] = [
        ("raster", f"{meta.shape.x} x {meta.shape.y} pixels, {text.counted(len(meta.bands), 'band')}, {meta.dtype}"),
        ("size", f"{text.size(found.bytes)}, {smaller}"),
        ("rate", f"{found.bpp:.3f} bits per pixel"),
        ("quality", f"{found.quality} of 100 (level {meta.level})" if meta.guarantee is None else None),
        ("promise", None if meta.guarantee is None else _promise(meta.guarantee)),
        ("weights", f"{meta.weights_tag or 'unnamed'} (SHA-256 {meta.weights[:16]}...)" if meta.weights else "none"),
        ("components", _components(meta)),
        ("tiles", f"{shape.x} x {shape.y} of {meta.tile} pixels, in shards of {meta.shard} x {meta.shard}"),
        ("overviews", _overviews(found)),
        ("CRS", text.crs_name(meta.georef.crs) or "none"),
        ("pixel size", _pixel_size(meta.georef.transform)),
        ("origin", _origin(meta.georef.transform)),
        ("bounds", None if found.bounds is None else " ".join(f"{number:.12g}" for number in found.bounds)),
        ("control", text.counted(len(meta.georef.gcps), "ground control point") if meta.georef.gcps else None),
        ("sensor", "rational polynomial coefficients" if meta.georef.rpcs else None),
        ("holes", _holes(found)),
        ("source", _source(found)),
        ("made by", meta.software),
    ]
    return "\n".join([str(found.path), text.facts(rows), "", _band_table(found)])


def _components(meta: SceneMeta) -> str | None:
    mixed = [group for group in meta.groups if group.transform is not None]
    passes = sum(len(group.transform.passes) for group in mixed if group.transform is not None)
    bands = sum(len(group.bands) for group in mixed)
    return f"{bands} bands in {passes} passes of the network" if mixed else None


def _promise(guarantee: Guarantee) -> str:
    if guarantee.lossless:
        return "every pixel exact" + (", overviews by most frequent class" if guarantee.classes else "")
    bounds = sorted(set(guarantee.max_error))
    if len(bounds) == 1:
        return f"no pixel off by more than {text.exact(bounds[0])}"
    return f"no pixel off by more than {', '.join(map(text.exact, guarantee.max_error))} (by band)"


def _band_table(found: SceneInfo) -> str:
    meta = found.meta
    home = {band: group.name for group in meta.groups for band in group.bands}
    rows = [
        (
            str(number + 1),
            text.shorten(band.description or "-", 28),
            band.colorinterp,
            "-" if band.nodata is None else text.exact(band.nodata),
            text.shorten(band.unit or "-", 10),
            home.get(number, "alpha"),
        )
        for number, band in enumerate(meta.bands)
    ]
    parts = [name for name in found.sizes if name not in ("overviews", "total")]
    sizes = [(name, text.size(found.sizes[name])) for name in parts]
    levels = [(f"overview {n}", text.size(size)) for n, size in enumerate(found.overview_sizes, start=1)]
    sizes[len(meta.arrays) : len(meta.arrays)] = levels
    bands = text.table(("band", "name", "colour", "nodata", "unit", "stored in"), rows, left=(1, 2, 4, 5))
    return f"{bands}\n\n{text.table(('part', 'size'), sizes)}"


def _overviews(found: SceneInfo) -> str | None:
    levels = [(number, found.level(number)) for number in found.meta.pyramid[1:]]
    return ", ".join(f"{n}: {v['shape'][1]} x {v['shape'][0]} (quality {v['quality']})" for n, v in levels) or None


def _pixel_size(transform: tuple[float, ...] | None) -> str | None:
    if transform is None:
        return None
    a, b, _, d, e, _ = transform
    if b == d == 0:
        return f"{a:.10g}, {e:.10g}"
    return f"{(a * a + d * d) ** 0.5:.10g}, {(b * b + e * e) ** 0.5:.10g} (rotated or sheared)"


def _origin(transform: tuple[float, ...] | None) -> str | None:
    return None if transform is None else f"{transform[2]:.12g}, {transform[5]:.12g} (upper left corner)"


def _holes(found: SceneInfo) -> str | None:
    meta = found.meta
    kinds = ["mask band"] * meta.mask + ["alpha band"] * (meta.alpha is not None)
    kinds += ["nodata"] * any(band.nodata is not None for band in meta.bands)
    return ", ".join(kinds) or None


def _source(found: SceneInfo) -> str | None:
    name, size = found.meta.source.get("name"), found.meta.source.get("bytes")
    if not isinstance(name, str):
        return None
    return f"{text.shorten(name, 60)} ({text.size(size)})" if isinstance(size, int) else text.shorten(name, 60)
