"""`ltchm train`: train weights from a recipe."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from ltchm_geo.errors import UsageError

if TYPE_CHECKING:
    from ltchm_geo.nn.model import LTCHM


@click.command(
    short_help="Train weights from a recipe (needs the extra `train`).",
    epilog="""
    \b
    Examples:
      ltchm train my.toml mine/*.tif --out run --start-from ltchm-64-preview10 --decay-steps 1500
      ltchm train weights/recipes/ltchm-128.toml packs/*.tar --out run --minutes 60
      ltchm train weights/recipes/ltchm-128.toml packs/*.tar --out run --decay-steps 2000

    my.toml may be weights/recipes/ltchm-64-preview10.toml without its table `[weights]`.
    """,
)
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("data", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder of checkpoints.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=None,
    metavar="M",
    help="Stop after this time; resume by the same command.",
)
@click.option(
    "--steps", type=click.IntRange(min=1), default=None, metavar="N", help="Stop after this many steps in all."
)
@click.option(
    "--decay-steps",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="Branch off: decay the learning rate to the end, then stop.",
)
@click.option(
    "--save-minutes",
    type=click.FloatRange(min=0),
    metavar="M",
    default=5.0,
    show_default=True,
    help="Time between checkpoints.",
)
@click.option("--start-from", metavar="WEIGHTS", default=None, help="Tag, hash or path of weights, or a checkpoint.")
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda, cuda:1, ...")
@click.option("--threads", type=click.IntRange(min=1), default=None, metavar="N", help="CPU threads.")
def train(
    recipe: Path,
    data: tuple[Path, ...],
    out: Path,
    minutes: float | None,
    steps: int | None,
    decay_steps: int | None,
    save_minutes: float,
    start_from: str | None,
    device: str,
    threads: int | None,
) -> None:
    """Train weights as RECIPE (a TOML file) says, on DATA (packs of images as .tar, or rasters).

    The constant phase continues from OUT/trunk.safetensors if it exists, so a run can be stopped (Ctrl-C, --minutes)
    and resumed at will. --decay-steps branches off from it and leaves OUT/final.safetensors, ready for `ltchm export`.
    A branch that was stopped, OUT/branch.safetensors, is resumed instead of the trunk; with another number of steps it
    takes that many from its first one on.

    --start-from begins a new run with released weights, or with a finished run's, instead of random ones: to adapt them
    to your imagery, or to go on from them with more channels in y or at 1/8 of the resolution, or wider skips. A run
    that has a checkpoint in OUT goes on from that.

    A source of DATA is a folder inside a pack, or a raster without its suffix; the recipe's table [weights] gives
    shares to sources by name.
    """
    import torch

    from ltchm_geo.cpu import keep_memory
    from ltchm_geo.device import pick_device
    from ltchm_geo.training.data import Sampler, load_pools
    from ltchm_geo.training.loop import StepReport, Trainer
    from ltchm_geo.training.recipe import Recipe
    from ltchm_geo.training.throughput import Throughput

    if threads:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # gradients fade into denormals, which are a hundred times slower on CPUs
    keep_memory()
    plan, where = Recipe.load(recipe), pick_device(device)
    if where.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    throughput = Throughput.measure(plan, where)
    click.echo(
        f"{plan.architecture}: {throughput.macs_per_tile / 1e9:.2f} GMAC per 256 x 256 pixels; "
        f"{where} does {throughput.matrix_rate / 1e12:.3g} TMAC/s in matrix products"
    )
    out.mkdir(parents=True, exist_ok=True)
    trunk, branch = out / "trunk.safetensors", out / "branch.safetensors"
    trainer = Trainer(plan, Sampler(load_pools(data, where), plan.weights, plan.halved), where)
    start = branch if decay_steps and branch.exists() else trunk
    if start.exists():
        trainer.load(start)
        click.echo(f"resumed {start.name} at step {trainer.step}")
    elif start_from:
        trainer.start_from(_trained(start_from))
        click.echo(f"started from {start_from}")
    elif decay_steps:
        raise UsageError(f"nothing to branch off: {trunk} does not exist; train without --decay-steps first")
    elif plan.start == "klt":
        trainer.start_as_klt()
        click.echo("started as the Karhunen-Loeve transform of the data")
    elif plan.predict:
        raise UsageError('recipe: predict needs start = "klt", or weights to --start-from')
    if decay_steps:
        before = trainer.decay
        trainer.begin_decay(decay_steps)
        if before and before != trainer.decay:
            click.echo(f"the branch from step {before[0]} takes {decay_steps} steps instead of {before[1]}")
    target = branch if decay_steps else trunk
    began, saved, interrupted = time.monotonic(), time.monotonic(), False

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)

    def stop() -> bool:
        nonlocal saved
        if time.monotonic() - saved > save_minutes * 60:
            trainer.save(target)
            saved = time.monotonic()
        over = minutes is not None and time.monotonic() - began > minutes * 60
        return interrupted or over or (steps is not None and trainer.step >= steps)

    with (out / "log.jsonl").open("a", encoding="utf-8") as log:

        def report(line: StepReport) -> None:
            share = throughput.share(line.tiles_per_second)
            log.write(json.dumps(line.__dict__ | {"matrix_share": share}) + "\n")
            log.flush()
            click.echo(
                f"step {line.step:7d}  loss {line.loss:7.4f}  bpp {line.bpp:6.3f}  PSNR {line.psnr:5.2f} dB  "
                f"{line.steps_per_second:5.2f} steps/s  {line.tiles_per_second:.3g} tiles/s "
                f"({share:.1%} of matrix rate)  lr x{line.lr_factor:.3f}  "
                f"norm {line.usual_norm:.3g}  skipped {line.skipped}"
            )

        trainer.run(stop, report)
    trainer.save(target)
    if trainer.decayed:
        target.replace(out / "final.safetensors")
        click.echo(f"finished: {out / 'final.safetensors'}")


def _trained(source: str) -> LTCHM:
    """The network of a checkpoint, or of weights by tag, hash or path."""
    from ltchm_geo.training.dequantise import float_model
    from ltchm_geo.training.loop import average_ltchm, is_checkpoint
    from ltchm_geo.weights import load

    return average_ltchm(Path(source)) if is_checkpoint(Path(source)) else float_model(load(source))
