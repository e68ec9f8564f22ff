"""`ltchm bench speed`."""

from __future__ import annotations

from pathlib import Path

import click

from ltchm_geo.cli.options import Reporter, json_option, parse_numbers, quiet_option


@click.command(
    short_help="Encode and decode Mpx/s by stage.",
    epilog="""
    \b
    Examples:
      ltchm bench speed --threads 1,2 --batch 1,4
      ltchm bench speed --channels 128,192,256 --part network
      ltchm bench speed --device cuda --batch 16,64 --side 4096
      ltchm bench speed --part systems --threads 2 --rounds 5
      ltchm bench speed --part memory --side 4096
    """,
)
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=click.Choice(["codec", "network", "systems", "memory"]),
    help="codec: whole files, by stage. network: g_a and g_s beside a plain PyTorch forward pass. systems: the paper's "
    "Tab. 6. memory: peaks for scenes of SIDE, 2 SIDE and 4 SIDE. May be repeated.  [default: codec and network]",
)
@click.option(
    "--scene", type=click.Path(exists=True, path_type=Path), help="Raster to repeat; the bundled one if none."
)
@click.option(
    "--side",
    default=1024,
    show_default=True,
    type=click.IntRange(256),
    metavar="N",
    help="Rows and columns to code.",
)
@click.option("--model", "models", multiple=True, metavar="TAG", help="Weights to measure; may be repeated.")
@click.option("--channels", callback=parse_numbers, metavar="N,...", help="Untrained networks of these widths.")
@click.option(
    "--device", "devices", multiple=True, default=("auto",), show_default=True, metavar="NAME", help="May be repeated."
)
@click.option("--threads", default="1", show_default=True, callback=parse_numbers, metavar="N,...", help="CPU cores.")
@click.option(
    "--batch", "batches", default="1", show_default=True, callback=parse_numbers, metavar="N,...", help="Tiles a pass."
)
@click.option(
    "--quality",
    default=50,
    show_default=True,
    type=click.IntRange(1, 100),
    metavar="Q",
    help="Quality to code at, 1 to 100.",
)
@click.option(
    "--rounds",
    default=3,
    show_default=True,
    type=click.IntRange(1),
    metavar="N",
    help="Runs of each, taken in turns.",
)
@click.option(
    "--against", default="openjpeg", show_default=True, type=click.Choice(["openjpeg", "none"]), help="Codec beside us."
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Keep the result as JSON.")
@click.option("--overwrite", is_flag=True, help="Replace FILE if there is one.")
@json_option
@quiet_option
def speed(
    parts: tuple[str, ...],
    scene: Path | None,
    side: int,
    models: tuple[str, ...],
    channels: tuple[int, ...] | None,
    devices: tuple[str, ...],
    threads: tuple[int, ...],
    batches: tuple[int, ...],
    quality: int,
    rounds: int,
    against: str,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure how fast a scene is compressed and restored, and where the time goes.

    The scene is a real raster, mirrored to SIDE x SIDE. All settings of a model take turns with each other and with
    another codec, which is asked for files of the same size; medians, lowest and highest are shown, and Mpx per second
    of CPU time, which means something on a busy machine too. Figures of a stage are Mpx/s of one thread, and its share.
    The last column is the share of CPU time that is not the network's.
    """
    from ltchm_geo._sink import check_destination
    from ltchm_geo.benchmark.output import save_json
    from ltchm_geo.benchmark.speed_suite import SpeedSettings, measure_speed

    if out is not None:
        check_destination(out, overwrite)
    settings = SpeedSettings(
        parts=parts or ("codec", "network"),
        scene=scene,
        side=side,
        models=models,
        channels=channels or (),
        devices=devices,
        threads=threads,
        batches=batches,
        quality=quality,
        rounds=rounds,
        against=None if against == "none" else against,
    )
    reporter = Reporter(as_json, quiet)
    with reporter.progress("measuring") as progress:
        found = measure_speed(settings, progress)
    if out is not None:
        save_json(out, found.to_dict())
    reporter.result(found.to_dict(), found.markdown())
