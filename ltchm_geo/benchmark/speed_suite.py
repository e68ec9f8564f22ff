"""What `ltchm bench speed` does: settings in, all measurements out."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from ltchm_geo import weights
from ltchm_geo.baselines import registry
from ltchm_geo.benchmark.environment import environment
from ltchm_geo.benchmark.speed import Case, CodecSpeed, codec_markdown, measure_codec
from ltchm_geo.benchmark.speed_input import (
    bundled_scene,
    install_random_weights,
    model_tiles,
    weights_folder,
    write_mirrored,
)
from ltchm_geo.benchmark.speed_memory import MemoryUse, measure_memory, memory_markdown
from ltchm_geo.benchmark.speed_network import (
    NetworkSpeed,
    SystemSpeed,
    measure_network,
    measure_systems,
    network_markdown,
    precisions,
    systems_markdown,
)
from ltchm_geo.device import pick_device
from ltchm_geo.settings import level_of

__all__ = ["PARTS", "SpeedResult", "SpeedSettings", "measure_speed"]

PARTS = ("codec", "network", "systems", "memory")
_WARM_UP_SIDE = 512
_MEMORY_SIDES = (1, 2, 4)
_NETWORK_TILES = 16


@dataclass(frozen=True)
class SpeedSettings:
    """What to measure.

    Attributes
    ----------
    parts : of `PARTS`: whole files; the network beside a plain forward pass; the architectures of Tab. 6; peak memory
        for scenes of `side`, twice and four times that
    scene : raster to repeat; None is the bundled one
    side : rows and columns of the scene made of it
    models : tags of weights
    channels : widths to measure with untrained weights
    devices, threads, batches : every combination is measured
    quality : 1 ... 100
    rounds : how often each is measured
    against : codec to compare whole files with, or None
    """

    parts: tuple[str, ...] = ("codec", "network")
    scene: Path | None = None
    side: int = 1024
    models: tuple[str, ...] = ()
    channels: tuple[int, ...] = ()
    devices: tuple[str, ...] = ("auto",)
    threads: tuple[int, ...] = (1,)
    batches: tuple[int, ...] = (1,)
    quality: int = 50
    rounds: int = 3
    against: str | None = "openjpeg"


@dataclass(frozen=True)
class SpeedResult:
    """All measurements; lists are empty for parts not asked for.

    Attributes
    ----------
    about : versions, hardware, load of the machine before and after, command and date
    scene : what was coded
    """

    codec: list[CodecSpeed]
    network: list[NetworkSpeed]
    systems: list[SystemSpeed]
    memory: list[MemoryUse]
    scene: dict[str, Any]
    about: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        parts = {name: [entry.to_dict() for entry in getattr(self, name)] for name in PARTS}
        return {"about": self.about, "scene": self.scene, **parts}

    def markdown(self) -> str:
        """Every table that has rows."""
        tables = [codec_markdown(self.codec, verb) for verb in ("encode", "decode") if self.codec]
        tables += [network_markdown(self.network)] if self.network else []
        tables += [systems_markdown(self.systems)] if self.systems else []
        tables += [memory_markdown(self.memory)] if self.memory else []
        return "\n\n".join(tables)


def measure_speed(settings: SpeedSettings, progress: Callable[[int, int], None] | None = None) -> SpeedResult:
    """Measure all that `settings` ask for.

    Raises
    ------
    UsageError, SourceError, DeviceError, WeightsError
    """
    before, level = _load(), level_of(settings.quality, None)
    devices = tuple(str(pick_device(device)) for device in settings.devices)
    tags = [weights.find(model)[0].tag for model in settings.models]
    if not tags and not settings.channels:
        tags = [weights.find()[0].tag]
    with tempfile.TemporaryDirectory() as work, weights_folder(Path(work)):
        folder = Path(work)
        scene, warm_up = folder / "scene.tif", folder / "warm_up.tif"
        source = settings.scene or bundled_scene()
        write_mirrored(source, scene, settings.side)
        write_mirrored(source, warm_up, min(_WARM_UP_SIDE, settings.side))
        tiles = model_tiles(scene, _NETWORK_TILES)
        if set(settings.parts) & {"codec", "network", "memory"}:
            tags += [install_random_weights(channels, tiles, folder) for channels in dict.fromkeys(settings.channels)]
        cases = [Case(*found) for found in product(tags, devices, settings.threads, settings.batches)]
        tick = _Tick(_ticks(settings, cases, devices), progress)
        codec: list[CodecSpeed] = []
        network: list[NetworkSpeed] = []
        systems: list[SystemSpeed] = []
        memory: list[MemoryUse] = []
        if "codec" in settings.parts:
            codec = measure_codec(
                scene,
                warm_up,
                cases,
                quality=settings.quality,
                rounds=settings.rounds,
                against=settings.against,
                tick=tick,
            )
        if "network" in settings.parts:
            network = [
                measure_network(tiles, case, precision=precision, level=level, rounds=settings.rounds, tick=tick)
                for case in cases
                for precision in precisions(case.device)
            ]
        if "systems" in settings.parts:
            for device, threads in product(devices, settings.threads):
                names = list(registry.ARCHITECTURES)
                systems += measure_systems(names, device=device, threads=threads, rounds=settings.rounds, tick=tick)
        if "memory" in settings.parts:
            sides = [settings.side * times for times in _MEMORY_SIDES]
            for tag, device in product(tags, devices):
                memory += measure_memory(source, folder, tag, sides, device=device, quality=settings.quality, tick=tick)
    about = {
        **environment(["torch", "numba", "numpy", "rasterio"]),
        "command": shlex.join(["ltchm", *sys.argv[1:]]),
        "load_average": [before, _load()],
        "quality": settings.quality,
        "rounds": settings.rounds,
    }
    return SpeedResult(codec, network, systems, memory, {"source": source.name, "side": settings.side}, about)


def _load() -> float | None:
    """Programs that wanted a core in the last minute; None where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _ticks(settings: SpeedSettings, cases: list[Case], devices: tuple[str, ...]) -> int:
    models = {(case.model, case.device) for case in cases}
    others = len(models) if settings.against else 0
    runs = {
        "codec": (len(cases) + others) * (settings.rounds + 1),
        "network": sum(len(precisions(case.device)) for case in cases) * 4 * settings.rounds,
        "systems": len(registry.ARCHITECTURES) * len(devices) * len(settings.threads) * 2 * settings.rounds,
        "memory": len(models) * len(_MEMORY_SIDES) * 2,
    }
    return sum(runs[part] for part in settings.parts)


class _Tick:
    """Counts runs for a progress callback."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None):
        self._done, self._total, self._progress = 0, total, progress

    def __call__(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)
