"""Stage 4 and 5 together: a set of weights on a device, turning model-range tiles into entropy streams and back.

This is where the float transforms (`nn`) and the exact entropy coder (`entropy`) meet; neither knows the other.
"""

from __future__ import annotations

import copy
import math
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .device import pick_device
from .entropy.integer_net import ExactCoder
from .errors import InvalidWeightsError, UsageError
from .nn.config import LEVELS_PER_ANCHOR, ModelConfig
from .nn.hyperprior import HyperAnalysis
from .nn.transforms import Analysis, Synthesis, fold_quality
from .timing import StageClock
from .weights import LoadedWeights, load

__all__ = ["Engine", "load_engine", "load_transforms"]

#: Tiles per pass through g_a or g_s. On a CPU batches are no faster, and single tiles give the same payload and pixels
#: however many are coded together (convolutions of another batch size may round otherwise).
_BATCH = {"cpu": 1, "cuda": 64}
_MIN_EXACT_BATCH, _MAX_EXACT_BATCH = 8, 64
_MAX_ENGINES = 4
_MAX_FOLDED = 12

_ENGINES: dict[tuple[str, str], Engine] = {}
_ENGINES_LOCK = threading.Lock()

_T = TypeVar("_T")
_R = TypeVar("_R")


class Engine:
    """A network ready to code tiles. Thread-safe.

    Parameters
    ----------
    weights : LoadedWeights
        Tensors `nn.*` (float transforms) and `entropy.*` (integer parameter network and tables).
    device : torch.device
        Where g_a, h_a, g_s and the integer network run. Decoded latents do not depend on it.

    Attributes
    ----------
    batch : int
        Tiles per pass through g_a or g_s. May be set while nothing is coded; so may `threads`.
    threads : int
        CPU cores to use at once: by the tiles side by side on a CPU, by the entropy coder beside a GPU.
    """

    def __init__(self, weights: LoadedWeights, device: torch.device):
        self.sha256, self.tag, self.device = weights.sha256, weights.entry.tag, device
        self.config = ModelConfig.from_dict(weights.config)
        self._transforms: dict[str, Any] = load_transforms(weights)
        self.batch = _BATCH.get(device.type, _BATCH["cpu"])
        self.threads = _core_count()
        exact = {k.removeprefix("entropy."): v for k, v in weights.tensors.items() if k.startswith("entropy.")}
        self.coder = ExactCoder.from_tensors(exact, weights.document("ltchm_entropy"), device=str(device))
        self._folded: dict[tuple[str, int], Any] = {}
        self._lock = threading.Lock()

    @property
    def tile_multiple(self) -> int:
        """Sides of tiles must be a multiple of this: whole attention windows at 1/32, whole latents z at 1/64."""
        return math.lcm(64, 32 * self.config.window)

    def check_tile(self, side: int) -> None:
        """Raise `UsageError` unless this network can code tiles of `side` pixels."""
        if side % self.tile_multiple:
            raise UsageError(f"tile side {side} is no multiple of {self.tile_multiple}, as {self.tag} needs")

    def encode(self, x: NDArray[np.float32], level: int, clock: StageClock | None = None) -> list[bytes]:
        """Code tiles.

        Parameters
        ----------
        x : (B, 3, T, T) float32
            Pixels in the model's range, nominally [0, 1].
        level : int
            Quality level 0..112.

        Returns
        -------
        One entropy stream per tile.
        """
        clock = clock or StageClock()

        def code(part: tuple[torch.Tensor, torch.Tensor]) -> list[bytes]:
            return self.coder.encode(*part, level, threads=self._coder_threads, clock=clock)

        y, z = self.analyse(x, level, clock)
        size = self._exact_batch(len(y))
        return list(chain(*self._map(code, list(zip(y.split(size), z.split(size), strict=True)))))

    def analyse(
        self, x: NDArray[np.float32], level: int, clock: StageClock | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents y (B, N, T/16, T/16) and z (B, N, T/64, T/64), int32 on the device, of tiles as `encode` takes."""
        clock = clock or StageClock()
        (g_a, quality), (h_a, _) = self._at("g_a", level), self._at("h_a", level)

        def transform(part: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            with clock("network"):
                pixels = part.to(self.device).contiguous(memory_format=torch.channels_last)
                y = g_a(pixels, quality.expand(len(part))).float()
                latents = _integers(y), _integers(h_a(y, quality.expand(len(part))))
                if self.device.type == "cuda":  # or the clock would count the wait in the stage that follows
                    torch.cuda.synchronize(self.device)
                return latents

        y, z = zip(*self._map(transform, torch.from_numpy(x).split(self.batch)), strict=True)
        return torch.cat(y), torch.cat(z)

    def decode_latents(
        self, streams: Sequence[bytes], level: int, tile: int, clock: StageClock | None = None
    ) -> tuple[torch.Tensor, NDArray[np.bool_]]:
        """Latents y (B, N, T/16, T/16) int32 and, per tile, whether its stream was intact (y means nothing if not)."""
        clock = clock or StageClock()
        shape = (tile // 16, tile // 16)

        def decode(part: Sequence[bytes]) -> tuple[torch.Tensor, torch.Tensor, NDArray[np.bool_]]:
            return self.coder.decode(part, level, shape, threads=self._coder_threads, clock=clock)

        size = self._exact_batch(len(streams))
        parts = self._map(decode, [streams[i : i + size] for i in range(0, len(streams), size)])
        ys, _, intact = zip(*parts, strict=True)
        return torch.cat(ys), np.concatenate(intact)

    def synthesise(self, y: torch.Tensor, level: int, clock: StageClock | None = None) -> NDArray[np.float32]:
        """Pixels (B, 3, T, T) float32 in the model's range from latents y (B, N, T/16, T/16)."""
        clock = clock or StageClock()
        g_s, quality = self._at("g_s", level)

        def restore(part: torch.Tensor) -> torch.Tensor:
            with clock("network"):
                latents = part.to(self.device).float().contiguous(memory_format=torch.channels_last)
                return g_s(latents, quality.expand(len(part))).float().cpu()

        found: NDArray[np.float32] = torch.cat(self._map(restore, y.split(self.batch))).numpy()
        return found

    @property
    def _coder_threads(self) -> int:
        return 1 if self.device.type == "cpu" else self.threads

    def _map(self, function: Callable[[_T], _R], parts: Sequence[_T]) -> list[_R]:
        """Apply `function` to every part: on a CPU side by side, one core each; on a GPU in turn."""

        def work(part: _T) -> _R:
            with torch.inference_mode():
                return function(part)

        if self.device.type != "cpu" or len(parts) == 1 < self.threads:
            return [work(part) for part in parts]
        return list(_cpu_pool(self.threads).map(work, parts))

    def _exact_batch(self, tiles: int) -> int:
        """Tiles whose latents are coded together: they share the steps of the wavefront, but only one core."""
        cores = self.threads if self.device.type == "cpu" else 1
        return min(_MAX_EXACT_BATCH, max(_MIN_EXACT_BATCH, -(-tiles // cores)))

    def _at(self, name: str, level: int) -> tuple[Any, torch.Tensor]:
        """A transform with its quality scales folded in, and the quality position (1,)."""
        position = level / LEVELS_PER_ANCHOR
        with self._lock:
            if (name, level) not in self._folded:
                module = copy.deepcopy(self._transforms[name])
                if isinstance(module, Analysis | Synthesis):
                    fold_quality(module, position)
                while len(self._folded) >= _MAX_FOLDED:  # a few quality levels; more would only hold memory
                    del self._folded[next(iter(self._folded))]
                self._folded[name, level] = module.to(self.device, memory_format=torch.channels_last).eval()
            return self._folded[name, level], torch.tensor([position], device=self.device)


def load_engine(model: str | None = None, device: str = "auto") -> Engine:
    """The engine for weights given by tag, hash or path (default: the manifest's), shared within the process.

    Raises
    ------
    WeightsError, DeviceError
    """
    weights, where = load(model), pick_device(device)
    key = (weights.sha256, str(where))
    with _ENGINES_LOCK:
        if key not in _ENGINES:
            while len(_ENGINES) >= _MAX_ENGINES:
                del _ENGINES[next(iter(_ENGINES))]
            _ENGINES[key] = Engine(weights, where)
        return _ENGINES[key]


def _core_count() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _cpu_pool(threads: int) -> ThreadPoolExecutor:
    """One thread per core to use, shared by all engines; inside, PyTorch computes on that thread alone.

    Tiles side by side use the cores better than several threads on one tile, and on a busy machine far better: there,
    threads of one operation spend their time waiting for each other.
    """
    return ThreadPoolExecutor(threads, "ltchm", initializer=torch.set_num_threads, initargs=(1,))


def _integers(latents: torch.Tensor) -> torch.Tensor:
    # A network fed with absurd pixels may produce absurd latents; the coder carries any int32, so only non-finite
    # values and those beyond it need a bound.
    return torch.nan_to_num(torch.round(latents)).clamp(-(2.0**30), 2.0**30).int().contiguous()


def load_transforms(weights: LoadedWeights) -> dict[str, nn.Module]:
    """g_a, g_s and h_a as trained, in single precision, with their per-quality scales apart."""
    config = ModelConfig.from_dict(weights.config)
    transforms: dict[str, nn.Module] = {
        "g_a": Analysis(config),
        "g_s": Synthesis(config),
        "h_a": HyperAnalysis(config),
    }
    for name, module in transforms.items():
        _load(module, weights, f"nn.{name}.")
    return transforms


def _load(module: nn.Module, weights: LoadedWeights, prefix: str) -> None:
    """Copy the tensors under `prefix` into a module; every one must be there, none may be left over."""
    state = {
        name.removeprefix(prefix): torch.from_numpy(np.array(values, np.float32))
        for name, values in weights.tensors.items()
        if name.startswith(prefix)
    }
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise InvalidWeightsError(f"{weights.path} does not fit its own configuration: {error}") from error
