"""Stage 4 and 5 together: a set of weights on a device, turning model-range tiles into entropy streams and back.

This is where the float transforms (`nn`) and the exact entropy coder (`entropy`) meet; neither knows the other.
"""

from __future__ import annotations

import copy
import math
import os
import threading
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from . import cancellation, cpu
from .device import pick_device, single_precision, wait
from .entropy.integer_net import ExactCoder
from .errors import DeviceError, InvalidWeightsError, UsageError
from .nn.config import LEVELS_PER_ANCHOR, ModelConfig
from .nn.hyperprior import HyperAnalysis
from .nn.inference import Precision, prepare
from .nn.transforms import Analysis, Synthesis, fold_quality, trim
from .seams import Part, alike, in_order
from .tiles import LATENT, MARGIN
from .timing import StageClock
from .types import Shape2d, Sides
from .weights import LoadedWeights, load

__all__ = ["PRECISION_VARIABLE", "Engine", "default_precision", "load_engine", "load_transforms"]

#: Tiles per pass through g_a or g_s. On a CPU batches are no faster, and single tiles give the same payload and pixels
#: however many are coded together (convolutions of another batch size may round otherwise).
_BATCH = {"cpu": 1, "cuda": 64}
_MIN_EXACT_BATCH, _MAX_EXACT_BATCH = 8, 64
_MAX_ENGINES = 4
_MAX_FOLDED = 12

PRECISION_VARIABLE = "LTCHM_PRECISION"

_ENGINES: dict[tuple[str, str, str, Precision], Engine] = {}
_ENGINES_LOCK = threading.Lock()

_T = TypeVar("_T")
_R = TypeVar("_R")


class _OutOfMemory(DeviceError):
    """What is asked of a GPU at once does not fit its memory."""


class _Wave(NamedTuple):
    """Tiles of one extent whose latents are coded together."""

    members: list[int]
    extent: Shape2d | None


class Engine:
    """A network ready to code tiles. Thread-safe.

    Parameters
    ----------
    weights : LoadedWeights
        Tensors `nn.*` (float transforms) and `entropy.*` (integer parameter network and tables).
    device : torch.device
        Where g_a, h_a, g_s and the integer network run. Decoded latents do not depend on it.
    precision : "float32" or "bfloat16", optional
        Of most convolutions of g_a and g_s. By default bfloat16 on CPUs that have it in hardware: pixels then differ by
        as much as docs/format.md says, and no PSNR by 0.01 dB.

    Attributes
    ----------
    batch : int
        Tiles per pass through g_a or g_s, fewer once a GPU had too little memory for them. May be set while nothing is
        coded; so may `threads`.
    threads : int
        CPU cores to use at once: by the tiles side by side on a CPU, by the entropy coder beside a GPU.
    """

    def __init__(self, weights: LoadedWeights, device: torch.device, precision: Precision | None = None):
        self.sha256, self.tag, self.device = weights.sha256, weights.entry.tag, device
        self.config = ModelConfig.from_dict(weights.config)
        self._transforms: dict[str, Any] = load_transforms(weights)
        self.precision: Precision = precision or default_precision(device)
        self.batch = _BATCH.get(device.type, _BATCH["cpu"])
        self.threads = cpu.core_count()
        exact = {k.removeprefix("entropy."): v for k, v in weights.tensors.items() if k.startswith("entropy.")}
        self.coder = ExactCoder.from_tensors(exact, weights.document("ltchm_entropy"), device=str(device))
        held, needed = (
            (self.coder.net.channels, self.coder.net.latent_channels),
            (self.config.channels, self.config.latent),
        )
        if held != needed:
            raise InvalidWeightsError(f"{weights.path}: the exact network has {held} channels, the transforms {needed}")
        self._folded: dict[tuple[str, int, Precision], Any] = {}
        self._lock = threading.Lock()

    @property
    def tile_multiple(self) -> int:
        """Sides of tiles must be a multiple of this: whole attention windows at 1/32, whole latents z at 1/64."""
        return math.lcm(64, 32 * self.config.window)

    def check_tile(self, side: int) -> None:
        """Raise `UsageError` unless this network can code tiles of `side` pixels."""
        if side % self.tile_multiple:
            raise UsageError(f"tile side {side} is no multiple of {self.tile_multiple}, as {self.tag} needs")

    def encode(
        self,
        x: NDArray[np.float32],
        level: int,
        clock: StageClock | None = None,
        *,
        sides: Sequence[Sides] | None = None,
        extents: Sequence[Shape2d] | None = None,
    ) -> list[bytes]:
        """Code tiles.

        Parameters
        ----------
        x : (B, 3, T, T) float32, or (B, 3, T + 32, T + 32) with `sides`
            Pixels in the model's range, nominally [0, 1].
        level : int
            Quality level 0..112.
        sides : sequence of Sides, optional
            Per tile, the sides where it has a neighbour: g_a sees the 16 pixels of `x` beyond them. Whatever `x` holds
            beyond the other sides is not looked at.
        extents : sequence of Shape2d, optional
            Per tile, how many rows and columns of latents are coded: what `x` holds below and to the right of them is
            not looked at. Default: all, T/16.

        Returns
        -------
        One entropy stream per tile.
        """
        clock = clock or StageClock()
        y, z = self.analyse(x, level, clock, sides=sides, extents=extents)

        def code(part: _Wave) -> list[bytes]:
            chosen = (y[part.members], z[part.members])
            return self.coder.encode(*chosen, level, threads=self._coder_threads, clock=clock, extent=part.extent)

        waves = self._waves(len(y), extents)
        coded = dict(zip(chain(*(wave.members for wave in waves)), chain(*self._map(code, waves)), strict=True))
        return [coded[number] for number in range(len(y))]

    def analyse(
        self,
        x: NDArray[np.float32],
        level: int,
        clock: StageClock | None = None,
        *,
        sides: Sequence[Sides] | None = None,
        extents: Sequence[Shape2d] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents y (B, M, T/16, T/16) and z (B, N, T/64, T/64), int32 on the device, of tiles as `encode` takes.

        Those of y beyond a tile's extent are zero.
        """
        clock = clock or StageClock()
        (g_a, quality), (h_a, _) = self._at("g_a", level), self._at("h_a", level)

        def transform(part: Part) -> tuple[torch.Tensor, torch.Tensor]:
            with clock("network"):
                pixels = part.tiles.to(self.device).contiguous(memory_format=torch.channels_last)
                y = trim(g_a(pixels, quality.expand(len(pixels))).float(), part.sides)
                y = F.pad(y, (0, side - y.shape[3], 0, side - y.shape[2]))
                latents = _integers(y), _integers(h_a(y, quality.expand(len(y))))
                wait(self.device)  # or the clock would count it in the stage that follows
                return latents

        def attempt(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
            parts = alike(torch.from_numpy(x), sides, batch, MARGIN, _beyond(extents, side, LATENT))
            y, z = zip(*self._map(transform, parts), strict=True)
            return in_order(y, parts), in_order(z, parts)

        side = (x.shape[-1] - (2 * MARGIN if sides is not None else 0)) // LATENT
        return self._fitting(attempt)

    def decode_latents(
        self,
        streams: Sequence[bytes],
        level: int,
        tile: int,
        clock: StageClock | None = None,
        *,
        extents: Sequence[Shape2d] | None = None,
    ) -> tuple[torch.Tensor, NDArray[np.bool_]]:
        """Latents y (B, M, T/16, T/16) int32 and, per tile, whether its stream was intact (y means nothing if not).

        Those beyond a tile's extent are zero.
        """
        clock = clock or StageClock()
        shape = (tile // LATENT, tile // LATENT)

        def decode(part: _Wave) -> tuple[torch.Tensor, torch.Tensor]:
            chosen = [streams[number] for number in part.members]
            y, _, intact = self.coder.decode(
                chosen, level, shape, threads=self._coder_threads, clock=clock, extent=part.extent
            )
            return y, torch.from_numpy(intact)

        waves = self._waves(len(streams), extents)
        ys, intact = zip(*self._map(decode, waves), strict=True)
        return in_order(ys, waves), in_order(intact, waves).numpy()

    def synthesise(
        self,
        y: torch.Tensor,
        level: int,
        clock: StageClock | None = None,
        *,
        sides: Sequence[Sides] | None = None,
        extents: Sequence[Shape2d] | None = None,
        precision: Precision | None = None,
    ) -> NDArray[np.float32]:
        """Pixels (B, 3, T, T) float32 in the model's range from latents y (B, M, T/16, T/16).

        With `sides`, y is (B, M, T/16 + 2, T/16 + 2): on the sides where a tile has a neighbour, g_s sees the row or
        column that is more; on the others it is not looked at. With `extents`, nor is what lies below and to the right
        of so many rows and columns, where a tile has no neighbour; pixels there repeat the last. `precision` overrides
        the engine's.
        """
        clock = clock or StageClock()
        g_s, quality = self._at("g_s", level, precision)

        def restore(part: Part) -> torch.Tensor:
            with clock("network"):
                latents = part.tiles.to(self.device).float().contiguous(memory_format=torch.channels_last)
                pixels = g_s(latents, quality.expand(len(latents)), part.sides).float().cpu()
                missing = (0, LATENT * side - pixels.shape[3], 0, LATENT * side - pixels.shape[2])
                return F.pad(pixels, missing, mode="replicate") if any(missing) else pixels

        def attempt(batch: int) -> NDArray[np.float32]:
            parts = alike(y, sides, batch, 1, _beyond(extents, side, 1))
            found: NDArray[np.float32] = in_order(self._map(restore, parts), parts).numpy()
            return found

        side = y.shape[-1] - (2 if sides is not None else 0)
        return self._fitting(attempt)

    @property
    def _coder_threads(self) -> int:
        return 1 if self.device.type == "cpu" else self.threads

    def _map(self, function: Callable[[_T], _R], parts: Sequence[_T]) -> list[_R]:
        """Apply `function` to every part: on a CPU side by side, one core each; on a GPU in turn, in true float32."""
        stop = cancellation.current()

        def work(part: _T) -> _R:
            with cancellation.watched(stop), torch.inference_mode():
                cancellation.check()
                return function(part)

        if self.device.type == "cpu":
            return list(cpu.pool(self.threads).map(work, parts))
        try:
            with single_precision(self.device):
                return [work(part) for part in parts]
        except torch.cuda.OutOfMemoryError as error:
            raise _OutOfMemory(
                f"{self.device} has too little free memory: end what else uses it, or ask for less at once with "
                "--workers 1, or use --device cpu"
            ) from error

    def _fitting(self, attempt: Callable[[int], _R]) -> _R:
        """`attempt` with as many tiles a pass as the device has memory for; from then on, no more are tried."""
        while True:
            batch = self.batch
            try:
                return attempt(batch)
            except _OutOfMemory:
                if batch == 1:
                    raise
            # Not before the exception is gone, with the frames that hold the tensors.
            torch.cuda.empty_cache()
            self.batch = min(self.batch, batch // 2)

    def _waves(self, tiles: int, extents: Sequence[Shape2d] | None) -> list[_Wave]:
        """All tiles, in parts that share the steps of the wavefront, but only one core."""
        cores = self.threads if self.device.type == "cpu" else 1
        size = min(_MAX_EXACT_BATCH, max(_MIN_EXACT_BATCH, -(-tiles // cores)))
        kinds: dict[Shape2d | None, list[int]] = {}
        for number in range(tiles):
            kinds.setdefault(None if extents is None else extents[number], []).append(number)
        return [_Wave(same[i : i + size], kind) for kind, same in kinds.items() for i in range(0, len(same), size)]

    def _at(self, name: str, level: int, precision: Precision | None = None) -> tuple[Any, torch.Tensor]:
        """A transform with its quality scales folded in, and the quality position (1,)."""
        position, key = level / LEVELS_PER_ANCHOR, (name, level, precision or self.precision)
        with self._lock:
            if key not in self._folded:
                module = copy.deepcopy(self._transforms[name])
                if isinstance(module, Analysis | Synthesis):
                    fold_quality(module, position)
                    prepare(module, key[2], self.device)
                while len(self._folded) >= _MAX_FOLDED:  # a few quality levels; more would only hold memory
                    del self._folded[next(iter(self._folded))]
                self._folded[key] = module.to(self.device, memory_format=torch.channels_last).eval()
            return self._folded[key], torch.tensor([position], device=self.device)


def load_engine(model: str | None = None, device: str = "auto", precision: Precision | None = None) -> Engine:
    """The engine for weights given by tag, hash or path (default: the manifest's), shared within the process.

    `precision` is by default that of `default_precision`.

    Raises
    ------
    WeightsError, DeviceError, UsageError
    """
    weights, where = load(model), pick_device(device)
    # With the tag, which scenes record: folders may name the same file differently.
    key = (weights.sha256, weights.entry.tag, str(where), precision or default_precision(where))
    with _ENGINES_LOCK:
        if key not in _ENGINES:
            while len(_ENGINES) >= _MAX_ENGINES:
                del _ENGINES[next(iter(_ENGINES))]
            _ENGINES[key] = Engine(weights, where, key[3])
        return _ENGINES[key]


def default_precision(device: torch.device) -> Precision:
    """The faster precision where it costs no quality, unless the environment variable LTCHM_PRECISION names one."""
    wanted = os.environ.get(PRECISION_VARIABLE, "auto")
    if wanted not in ("auto", "float32", "bfloat16"):
        raise UsageError(f"{PRECISION_VARIABLE}={wanted}: use auto, float32 or bfloat16")
    if wanted != "auto":
        return cast(Precision, wanted)
    return "bfloat16" if device.type == "cpu" and cpu.has_bfloat16() else "float32"


def _beyond(extents: Sequence[Shape2d] | None, side: int, unit: int) -> list[Shape2d] | None:
    """Rows and columns beyond each extent, of maps with `unit` pixels for each of `side` latents."""
    if extents is None:
        return None
    return [Shape2d(unit * (side - rows), unit * (side - columns)) for rows, columns in extents]


def _integers(latents: torch.Tensor) -> torch.Tensor:
    # A network fed with absurd pixels may produce absurd latents; the coder carries any int32, so only non-finite
    # values and those beyond it need a bound.
    return torch.nan_to_num(torch.round(latents)).clamp(-(2.0**30), 2.0**30).int().contiguous()


def load_transforms(weights: LoadedWeights) -> dict[str, nn.Module]:
    """g_a, g_s and h_a as trained, in single precision, with their per-quality scales apart."""
    config = ModelConfig.from_dict(weights.config)
    with torch.device("meta"):  # without memory: a configuration may be absurd until its tensors fit
        transforms: dict[str, nn.Module] = {
            "g_a": Analysis(config),
            "g_s": Synthesis(config),
            "h_a": HyperAnalysis(config),
        }
    for name, module in transforms.items():
        _load(module, weights, f"nn.{name}.")
    return transforms


def _load(module: nn.Module, weights: LoadedWeights, prefix: str) -> None:
    """Give a module copies of the tensors under `prefix`; every one must be there, none may be left over."""
    state = {}
    for name, values in weights.tensors.items():
        if name.startswith(prefix):
            if values.dtype.kind != "f" or not np.isfinite(values).all():
                raise InvalidWeightsError(f"{weights.path}: {name} holds something other than finite numbers")
            state[name.removeprefix(prefix)] = torch.from_numpy(np.array(values, np.float32))
    try:
        module.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise InvalidWeightsError(f"{weights.path} does not fit its own configuration: {error}") from error
