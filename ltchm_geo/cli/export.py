"""`ltchm export`: checkpoint to weights file."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    short_help="Turn a training checkpoint into a weights file.",
    epilog="""
    \b
    Examples:
      ltchm export run/final.safetensors packs/train-0.tar --tag ltchm-128-v1
      ltchm export run/final.safetensors mine/*.tif --tag mine-v1 --out weights-of-mine
      ltchm export run/final.safetensors packs/*.tar --tag ltchm-128-v2 --blend ltchm-128-v1 0.5
    """,
)
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("data", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--tag", required=True, metavar="NAME", help="Name of the weights, e.g. ltchm-128-v1.")
@click.option(
    "--out",
    default="weights",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Weights folder; made if it is not there.",
)
@click.option(
    "--blend",
    "blended",
    type=(str, click.FloatRange(0, 1)),
    metavar="NAME SHARE",
    help="Mix in so much of the weights that training started from: between both, loss is often less than at either.",
)
@click.option("--status", type=click.Choice(["preview", "stable"]), default="preview", show_default=True)
@click.option("--licence", default="Apache-2.0", show_default=True, metavar="NAME", help="Licence of the weights.")
@click.option("--trained-on", default="", metavar="TEXT", help="What data they were trained on, for the record.")
@click.option("--recipe", default="", metavar="TEXT", help="How they were trained, for the record.")
@click.option("--commit", default="", metavar="HASH", help="Commit they were trained at, for the record.")
@click.option("--notes", default="", metavar="TEXT", help="Anything else, for the record.")
@click.option(
    "--default/--no-default",
    default=True,
    show_default=True,
    help="Make these the folder's default weights, and archive the previews before them.",
)
@click.option(
    "--crops",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    metavar="N",
    help="256-pixel crops used for calibration.",
)
def export(
    checkpoint: Path,
    data: tuple[Path, ...],
    tag: str,
    out: Path,
    blended: tuple[str, float] | None,
    status: str,
    licence: str,
    trained_on: str,
    recipe: str,
    commit: str,
    notes: str,
    default: bool,
    crops: int,
) -> None:
    """Integerise the averaged weights of CHECKPOINT and enter them in a weights folder.

    DATA (training packs or rasters) is used to calibrate the ranges of the integer network, and other crops of it to
    report what exactness costs: bits per pixel of the float network, of the integer one, and of the coded streams.
    Sources that the recipe gives a share have the same one here, those of them that are in DATA.

    Weights that are there are never replaced, as scenes may need them: each export has a tag of its own.
    """
    import torch

    from ltchm_geo._sink import explained
    from ltchm_geo.engine import load_engine
    from ltchm_geo.nn.config import LEVELS_PER_ANCHOR, MAX_LEVEL
    from ltchm_geo.training.blend import blend
    from ltchm_geo.training.data import Sampler, load_pools
    from ltchm_geo.training.dequantise import float_model
    from ltchm_geo.training.export import check_tag, export_weights, sources_of
    from ltchm_geo.training.integerise import rate_report
    from ltchm_geo.training.loop import average_ltchm, read_facts
    from ltchm_geo.weights import load

    check_tag(out, tag)
    facts = read_facts(checkpoint)
    model = average_ltchm(checkpoint)
    if blended is not None:
        blend(model, float_model(load(blended[0])), blended[1])
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)
    pools = load_pools(data, torch.device("cpu"))
    there = {name for pool in pools for name in pool.names}
    sampler = Sampler(pools, {name: share for name, share in facts["recipe"]["weights"].items() if name in there})
    random = torch.Generator().manual_seed(0)
    entry = export_weights(
        model,
        sampler.draw(crops, 256, random),
        out,
        tag=tag,
        status=status,
        licence=licence,
        data="; ".join(filter(None, (trained_on, f"calibrated on {sources_of(data)}"))),
        recipe=recipe or f"step {facts['step']}",
        commit=commit,
        quality=(facts["recipe"]["quality_low"], facts["recipe"]["quality_high"]),
        notes=notes,
        default=default,
    )
    click.echo(f"{out / entry.file}  {entry.bytes / 1e6:.1f} MB  sha256 {entry.sha256}")
    coder = load_engine(str(out / entry.file), "cpu").coder
    levels = range(0, MAX_LEVEL + 1, LEVELS_PER_ANCHOR)
    report = rate_report(model, coder, sampler.draw(crops, 256, random), levels)
    click.echo("level  float bpp  integer bpp    cost  coded bpp    cost")
    for level, bpp in report.items():
        integer, coded = bpp["ideal"] / bpp["float"] - 1, bpp["cost"]
        click.echo(
            f"{level:5d}  {bpp['float']:9.4f}  {bpp['ideal']:11.4f}  {integer:+6.2%}  {bpp['real']:9.4f}  {coded:+6.2%}"
        )
