"""Repeated, interleaved timing: what is compared runs in turn, so that a busy machine is busy for all of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["Pair", "Sample", "Seconds", "Tick", "take_turns", "timed"]

#: Called after every run.
Tick = Callable[[], None]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Sample:
    """One run: seconds on the wall, and of the process on all cores together, which others' work lengthens less."""

    wall: float
    cpu: float


def timed(task: Callable[[], _T]) -> tuple[_T, Sample]:
    """Run a task and time it."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = task()
    return result, Sample(time.perf_counter() - wall, time.process_time() - cpu)


@dataclass(frozen=True)
class Seconds:
    """The runs of one thing, in the order they were made."""

    samples: tuple[Sample, ...]

    @property
    def wall(self) -> tuple[float, ...]:
        """Wall-clock seconds."""
        return tuple(sample.wall for sample in self.samples)

    @property
    def median(self) -> float:
        """Wall-clock seconds of the run in the middle."""
        return statistics.median(self.wall)

    @property
    def cpu(self) -> float:
        """CPU seconds of the run in the middle."""
        return statistics.median(sample.cpu for sample in self.samples)

    def rates(self, pixels: float) -> tuple[float, float, float]:
        """Mpx/s on the wall for `pixels` a run: median, lowest, highest."""
        median, low, high = (pixels / seconds / 1e6 for seconds in (self.median, max(self.wall), min(self.wall)))
        return median, low, high

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        wall = {"median": self.median, "min": min(self.wall), "max": max(self.wall), "cpu": self.cpu}
        runs = [[round(sample.wall, 6), round(sample.cpu, 6)] for sample in self.samples]
        return {**{name: round(value, 6) for name, value in wall.items()}, "runs": runs}


@dataclass(frozen=True)
class Pair:
    """A thing and the baseline that it took turns with."""

    baseline: Seconds
    ours: Seconds

    @property
    def speedup(self) -> float:
        """How many times faster than the baseline on the wall: median over the rounds."""
        return statistics.median(b / o for b, o in zip(self.baseline.wall, self.ours.wall, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {"baseline": self.baseline.to_dict(), "ours": self.ours.to_dict(), "speedup": round(self.speedup, 4)}


def take_turns(tasks: Sequence[Callable[[], _T]], rounds: int, tick: Tick) -> list[list[_T]]:
    """Run A B C A B C ...; per task, what its runs returned."""
    results: list[list[_T]] = [[] for _ in tasks]
    for _ in range(rounds):
        for task, found in zip(tasks, results, strict=True):
            found.append(task())
            tick()
    return results
