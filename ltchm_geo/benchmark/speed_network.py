"""Speed of networks alone: ours beside a plain PyTorch forward pass, and the systems of the paper's Tab. 6."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ltchm_geo import weights
from ltchm_geo.baselines import registry
from ltchm_geo.baselines.segpic import SegPIC
from ltchm_geo.benchmark.output import markdown_table
from ltchm_geo.benchmark.speed import Case, configured
from ltchm_geo.benchmark.timing import Pair, Seconds, Tick, take_turns, timed
from ltchm_geo.device import pick_device, wait
from ltchm_geo.engine import default_precision, load_engine, load_transforms
from ltchm_geo.nn.config import LEVELS_PER_ANCHOR
from ltchm_geo.nn.inference import Precision
from ltchm_geo.nn.model import LTCHM

__all__ = [
    "NetworkSpeed",
    "SystemSpeed",
    "measure_network",
    "measure_systems",
    "network_markdown",
    "precisions",
    "systems_markdown",
]

_SIDE = 256
_MIDDLE = 3.5  # a quality in the middle; time does not depend on it

Array = NDArray[np.float32]
_Transform = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class NetworkSpeed:
    """The engine's transforms beside the same network run plainly: float32, eager, NCHW, scales not folded.

    Attributes
    ----------
    case : both run with its threads and batch; the plain one uses the threads inside each operation
    precision : of the engine's large convolutions
    channels, pixels : N of the network; pixels of a run
    analyse, synthesise : g_a with h_a, and g_s
    equal_latents : share of latents y that both round alike
    max_difference : largest difference of the pixels that both make of the same latents, in the model's range
    """

    case: Case
    precision: Precision
    channels: int
    pixels: int
    analyse: Pair
    synthesise: Pair
    equal_latents: float
    max_difference: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        pairs = {"analyse": self.analyse.to_dict(), "synthesise": self.synthesise.to_dict()}
        return {**vars(self), "case": dict(vars(self.case)), **pairs}


def measure_network(
    tiles: Array,
    case: Case,
    *,
    precision: Precision | None = None,
    level: int = 56,
    rounds: int = 3,
    tick: Tick = lambda: None,
) -> NetworkSpeed:
    """Time the engine and the plain network in turn.

    Parameters
    ----------
    tiles : (B, 3, 256, 256) in [0, 1]
    case : what runs
    precision : of the engine's large convolutions; by default what the engine takes by itself
    level : quality level
    tick : called after every run, `rounds` x 4 times
    """
    engine, plain = load_engine(case.model, case.device, precision), _Plain(case, level)
    with configured(engine, case), plain.threads():
        y, _ = engine.analyse(tiles, level)  # these also warm up
        plain_y, plain_pixels = plain.analyse(tiles), plain.synthesise(y)
        difference = float(np.abs(engine.synthesise(y, level) - plain_pixels).max())
        tasks: list[Callable[[], object]] = [
            partial(plain.analyse, tiles),
            partial(engine.analyse, tiles, level),
            partial(plain.synthesise, y),
            partial(engine.synthesise, y, level),
        ]
        turns = take_turns([partial(timed, task) for task in tasks], rounds, tick)
    runs = [Seconds(tuple(sample for _, sample in found)) for found in turns]
    return NetworkSpeed(
        case,
        engine.precision,
        engine.config.channels,
        tiles.shape[0] * tiles.shape[2] * tiles.shape[3],
        Pair(runs[0], runs[1]),
        Pair(runs[2], runs[3]),
        float((y.cpu() == plain_y).float().mean()),
        difference,
    )


def precisions(device: str) -> list[Precision]:
    """Those worth timing on a device."""
    return ["float32", "bfloat16"] if default_precision(pick_device(device)) == "bfloat16" else ["float32"]


class _Plain:
    """What one would write first: the trained modules called as they are."""

    def __init__(self, case: Case, level: int):
        self._case, self._device = case, pick_device(case.device)
        self._net = {n: m.to(self._device).eval() for n, m in load_transforms(weights.load(case.model)).items()}
        self._quality = torch.tensor([level / LEVELS_PER_ANCHOR], device=self._device)

    def threads(self) -> contextlib.AbstractContextManager[None]:
        return _torch_threads(self._case.threads)

    @torch.inference_mode()
    def analyse(self, tiles: Array) -> torch.Tensor:
        """Latents y on the CPU; h_a is run for the time that it takes."""
        found = []
        for part in torch.from_numpy(tiles).split(self._case.batch):
            quality = self._quality.expand(len(part))
            y = self._net["g_a"](part.to(self._device), quality)
            self._net["h_a"](y, quality)
            found.append(torch.round(y).int())
        wait(self._device)
        return torch.cat(found).cpu()

    @torch.inference_mode()
    def synthesise(self, y: torch.Tensor) -> Array:
        parts = y.to(self._device).float().split(self._case.batch)
        pixels = [self._net["g_s"](part, self._quality.expand(len(part))).cpu() for part in parts]
        found: Array = torch.cat(pixels).numpy()
        return found


@contextlib.contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- the systems of Tab. 6 -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SystemSpeed:
    """Wall-clock time of g_a ("encode") and g_s ("decode") of an architecture on one image of 3 x 256 x 256.

    That is what the paper times: neither hyper prior nor entropy coding.
    """

    architecture: str
    device: str
    threads: int
    encode: Seconds
    decode: Seconds

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {**vars(self), "encode": self.encode.to_dict(), "decode": self.decode.to_dict()}


def measure_systems(
    names: Sequence[str], *, device: str = "auto", threads: int = 1, rounds: int = 5, tick: Tick = lambda: None
) -> list[SystemSpeed]:
    """Time architectures of `baselines.registry`, untrained, at the sizes of the paper; all take turns.

    `tick` is called after every run: 2 x rounds times per name.
    """
    where = pick_device(device)
    x = torch.rand(1, 3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(1)).to(where)
    tasks = []
    with torch.inference_mode(), _torch_threads(threads):
        for name in names:
            net = registry.build(name, {}).to(where).eval()
            g_a, g_s = _transforms(net, x)
            y = torch.round(g_a(x))
            g_s(y)
            wait(where)
            tasks += [partial(_run, where, g_a, x), partial(_run, where, g_s, y)]
        turns = take_turns([partial(timed, task) for task in tasks], rounds, tick)
    runs = [Seconds(tuple(sample for _, sample in found)) for found in turns]
    return [SystemSpeed(n, str(where), threads, runs[2 * i], runs[2 * i + 1]) for i, n in enumerate(names)]


def _transforms(net: Any, x: torch.Tensor) -> tuple[_Transform, _Transform]:
    """g_a and g_s of any architecture, as functions of one tensor."""
    if isinstance(net, LTCHM):
        quality = torch.tensor([_MIDDLE], device=x.device)
        return partial(net.g_a, quality=quality), partial(net.g_s, quality=quality)
    if not isinstance(net, SegPIC):
        return net.g_a, net.g_s
    regions, _ = net.regions1(net.g_a1(x))

    def g_a(pixels: torch.Tensor) -> torch.Tensor:
        features = net.g_a1(pixels)
        return cast(torch.Tensor, net.g_a2(net.rat_analysis(features, net.regions1(features)[0])))

    return g_a, lambda y: net.g_s1(net.rat_synthesis(net.g_s2(y), regions))


def _run(device: torch.device, transform: _Transform, x: torch.Tensor) -> None:
    transform(x)
    wait(device)


# --- tables ----------------------------------------------------------------------------------------------------------


def network_markdown(found: Sequence[NetworkSpeed]) -> str:
    """Mpx/s of both, and how many times faster the engine is, on the wall and in CPU seconds."""
    header = ["network, Mpx/s", "g_a + h_a plain", "engine", "times", "CPU", "g_s plain", "engine", "times", "CPU"]
    rows = []
    for speed in found:
        cells = [text for pair in (speed.analyse, speed.synthesise) for text in _compared(pair, speed.pixels)]
        rows.append([f"{speed.case.label}, {speed.precision}", *cells])
    return markdown_table(header, rows)


def _compared(pair: Pair, pixels: int) -> list[str]:
    rates = [f"{seconds.rates(pixels)[0]:.3g}" for seconds in (pair.baseline, pair.ours)]
    return [*rates, f"{pair.speedup:.3g}", f"{pair.baseline.cpu / pair.ours.cpu:.3g}"]


def systems_markdown(found: Sequence[SystemSpeed]) -> str:
    """Seconds per 256 x 256 image: medians and ranges on the wall, and CPU seconds."""
    header = ["architecture", "device", "threads", "g_a, s (min-max)", "CPU s", "g_s, s (min-max)", "CPU s"]
    rows = [
        [speed.architecture, speed.device, str(speed.threads), *_range(speed.encode), *_range(speed.decode)]
        for speed in found
    ]
    return markdown_table(header, rows)


def _range(seconds: Seconds) -> list[str]:
    low, high = min(seconds.wall), max(seconds.wall)
    return [f"{seconds.median:.4f} ({low:.4f}-{high:.4f})", f"{seconds.cpu:.4f}"]
