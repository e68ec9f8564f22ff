"""The training loop: constant learning rate from leg to leg, and a short decay branch that ends in usable weights.

A checkpoint holds everything (weights, average, optimiser, random states, step): a resumed run continues exactly.
Checkpoints are safetensors files with JSON in their header; nothing in them can execute.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ltchm_geo._sink import replacing
from ltchm_geo.baselines import registry
from ltchm_geo.device import has_bfloat16
from ltchm_geo.errors import UsageError
from ltchm_geo.nn.config import LEVELS_PER_ANCHOR, level_to_lambda
from ltchm_geo.nn.model import LTCHM
from ltchm_geo.training.augment import augment
from ltchm_geo.training.awaken import awaken
from ltchm_geo.training.data import Sampler
from ltchm_geo.training.klt import start_as_klt
from ltchm_geo.training.optim import laid_out, make_optimizer
from ltchm_geo.training.planes import as_planes
from ltchm_geo.training.predict import predict
from ltchm_geo.training.recipe import Recipe
from ltchm_geo.training.whiten import InputMoments
from ltchm_geo.training.widen import widen

_FORMAT = "ltchm-checkpoint-1"
_FACTS = {"step", "decay", "skipped", "usual_norm", "recipe"}
_TILE = 256
TILE_PIXELS = _TILE**2
#: A gradient this many times the usual norm is not followed.
_NORM_LIMIT = 4.0
#: What principal components are taken of: every one of a cell's 768 numbers is seen tens of thousands of times.
_KLT_PIXELS = 2**23
#: What predictions are fitted to: 32 thousand examples of 384 neighbours.
_PREDICTION_PIXELS = 2**23
#: What new channels are found from: maps of the network are held for all of it.
_AWAKENING_PIXELS = 2**21


@dataclass(frozen=True)
class StepReport:
    """Running means over the last reporting interval; `tiles_per_second` counts 256 x 256 pixels as one tile."""

    step: int
    loss: float
    bpp: float
    psnr: float
    steps_per_second: float
    tiles_per_second: float
    lr_factor: float
    usual_norm: float
    skipped: int


class Trainer:
    """One run: model, average, optimiser, random states and the step count.

    Parameters
    ----------
    recipe : Recipe
        What to do.
    sampler : Sampler
        Where crops come from; on the same device.
    device : torch.device
        Where to compute.
    """

    def __init__(self, recipe: Recipe, sampler: Sampler, device: torch.device):
        torch.manual_seed(recipe.seed)
        self.recipe, self.sampler, self.device = recipe, sampler, device
        self._mixed_precision = recipe.mixed_precision and has_bfloat16(device)
        # What CPUs without bfloat16 have for float32 weights' gradients is up to twice as slow in channels_last.
        fast = device.type == "cuda" or has_bfloat16(device)
        self._layout = torch.channels_last if fast else torch.contiguous_format
        self.model = build_model(recipe).to(device).to(memory_format=self._layout)  # type: ignore[call-overload]
        for name, part in self.model.named_children():
            part.requires_grad_(recipe.rates.get(name, 1.0) > 0)
        self.average = self._weights()
        self.optimizer = make_optimizer(
            self.model, kind=recipe.optimizer, lr=recipe.lr, muon_lr=recipe.muon_lr, rates=recipe.rates
        )
        self._base_lrs = [group["lr"] for group in self.optimizer.param_groups]
        self._network = torch.compile(self.model) if recipe.compile else self.model
        self.inputs = InputMoments(self.model)
        self.generator = torch.Generator(device).manual_seed(recipe.seed)
        self._chooser = self.generator if device.type == "cpu" else torch.Generator().manual_seed(recipe.seed)
        self.step = 0
        self.trained_latent: int | None = None  # channels of y that came from other weights; the others are new
        self.decay: tuple[int, int] | None = None  # (first step, number of steps) of the decay branch
        # On the device, so that no step waits for an answer from it.
        self._skipped = torch.zeros((), dtype=torch.int64, device=device)
        self._usual_norm = torch.ones((), dtype=torch.float64, device=device)

    @property
    def skipped(self) -> int:
        """Steps not taken because of a wild gradient."""
        return int(self._skipped)

    @property
    def usual_norm(self) -> float:
        """Slow mean of the gradient's norm."""
        return float(self._usual_norm)

    def start_from(self, trained: LTCHM) -> None:
        """Take over the weights of a trained network, which may have fewer latent channels; before the first step."""
        if self.recipe.architecture != "ltchm":
            raise UsageError(f"weights hold an ltchm: {self.recipe.architecture} cannot start from them")
        network, held = cast(LTCHM, self.model), trained.config
        widen(trained, network)
        wanted = network.config
        if wanted.deep > held.deep and wanted.latent > held.latent and wanted.may_be_linear:
            awaken(network, held, self._sample(_AWAKENING_PIXELS))
        self.trained_latent = held.latent
        self._begin()

    def start_as_klt(self) -> None:
        """Begin as the Karhunen-Loeve transform of the data; before the first step."""
        start_as_klt(cast(LTCHM, self.model), self._sample(_KLT_PIXELS))
        self._begin()

    def _begin(self) -> None:
        """What all starts end with."""
        if self.recipe.predict:
            # Whole tiles: at the borders of one there are no neighbours to tell from.
            predict(cast(LTCHM, self.model), self._sample(_PREDICTION_PIXELS, _TILE), self.recipe.predict)
        self.average = self._weights()

    def _sample(self, pixels: int, size: int | None = None) -> Tensor:
        """Crops of so many pixels together, or a few more."""
        batch, size = self.recipe.batch, size or self.recipe.crop
        return torch.cat([self._crops(batch, size) for _ in range(math.ceil(pixels / (batch * size**2)))])

    def _weights(self) -> dict[str, Tensor]:
        """A copy of the present ones: where the average begins."""
        return {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    def begin_decay(self, steps: int) -> None:
        """From here on, take the learning rate down to 1 % of itself along a cosine within `steps` steps.

        A decay that has begun keeps its first step.
        """
        self.decay = (self.decay[0] if self.decay else self.step, steps)

    @property
    def batch_and_size(self) -> tuple[int, int]:
        """Crops per step and their side in the present phase."""
        recipe = self.recipe
        begin, steps = self.decay or (math.inf, 0)
        late = self.step >= begin + recipe.decay_from * steps
        return (recipe.decay_batch, recipe.decay_crop) if late else (recipe.batch, recipe.crop)

    @property
    def decayed(self) -> bool:
        """Whether the decay branch has come to its end."""
        return self.decay is not None and self.step >= sum(self.decay)

    def run(self, stop: Callable[[], bool], report: Callable[[StepReport], None], every: int = 50) -> None:
        """Train until `stop()` is true or the decay branch ends; call `report` every `every` steps."""
        sums, since = torch.zeros(3, dtype=torch.float64, device=self.device), time.monotonic()
        first = self.step
        while not (stop() or self.decayed):
            sums += self.train_step()
            if self.step % every == 0:
                count, first = self.step - first, self.step
                loss, bpp, mse = (sums / count).tolist()
                rate = count / (time.monotonic() - since)
                batch, size = self.batch_and_size
                tiles, psnr = rate * batch * size**2 / TILE_PIXELS, -10 * math.log10(mse)
                factor, norm, skipped = self._lr_factor(), self.usual_norm, self.skipped
                report(StepReport(self.step, loss, bpp, psnr, rate, tiles, factor, norm, skipped))
                since = time.monotonic()
                sums.zero_()

    def train_step(self) -> Tensor:
        """One update. Returns (loss, bpp, mse) as a float64 tensor on the device."""
        recipe, (batch, size) = self.recipe, self.batch_and_size
        x = self._crops(batch, size)
        # One from each of as many equal parts of the range: gradients differ less from step to step.
        part = torch.arange(batch, device=self.device)
        share = (part + torch.rand(batch, generator=self.generator, device=self.device)) / batch
        quality = recipe.quality_low + share * (recipe.quality_high - recipe.quality_low)
        if recipe.whiten and self.inputs.due(self.step):
            self.inputs.observe(x, quality)
            self._whiten()
        for group, base in zip(self.optimizer.param_groups, self._base_lrs, strict=True):
            group["lr"] = base * self._lr_factor()
        estimate = self._network(x, quality, mixed_precision=self._mixed_precision, **self._charging())
        bpp = (estimate.bits_y + estimate.bits_z) / (size * size)
        mse = ((estimate.x_hat - x) ** 2).flatten(1).mean(1)
        lagrangian = level_to_lambda(0) * torch.exp2(quality)
        weight = (lagrangian / level_to_lambda(3 * LEVELS_PER_ANCHOR)) ** -recipe.rate_weight_power
        loss = (weight * (bpp + lagrangian * mse)).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._guarded_step()
        self.step += 1
        self._update_average()
        return torch.stack([loss, bpp.mean(), mse.mean()]).detach().double()

    def _whiten(self) -> None:
        """Let the optimiser know what layers read."""
        parameters = dict(self.model.named_parameters())
        self.optimizer.whitenings = {parameters[name]: found for name, found in self.inputs.whitenings()}

    def _crops(self, batch: int, size: int) -> Tensor:
        x = augment(self.sampler.draw(batch, size, self.generator, self._chooser), self.generator)
        if self.recipe.planes:
            x = as_planes(x, self.recipe.planes, self.generator)
        return x.contiguous(memory_format=self._layout)

    def _charging(self) -> dict[str, Any]:
        """How an LTCHM's latents are charged; while new channels awaken, what these cost is not charged to g_a."""
        awakening = self.trained_latent is not None and self.step < self.recipe.awaken
        free = {"free_from": self.trained_latent} if awakening else {}
        return free | ({"ramp": self.recipe.ramp} if self.recipe.ramp else {})

    def _guarded_step(self) -> None:
        """Clip and update, but drop the rare step whose gradient is far larger than usual (counted in `skipped`).

        Three inverse GDNs in a row answer an outlying latent with its eighth power. Optimisers that normalise their
        update would follow such a gradient as eagerly as any other, and their momentum would remember it.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip).double()
        usual, limit = self._usual_norm, self._usual_norm * _NORM_LIMIT
        finite = torch.isfinite(norm)
        follow = finite & (norm <= limit) if self.step > self.recipe.warmup else finite
        self.optimizer.step_if(follow)
        self._skipped += ~follow
        # The usual norm follows slowly even a skipped step, so a lasting change of scale cannot block training.
        norm = torch.where(follow, norm, torch.where(finite, limit, usual))
        self._usual_norm = norm if self.step == 0 else torch.lerp(usual, norm, 0.02)

    def _lr_factor(self) -> float:
        warm = min(1.0, (self.step + 1) / max(1, self.recipe.warmup))
        if self.decay is None:
            return warm
        start, steps = self.decay
        t = min(1.0, (self.step - start) / steps)
        return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * t)))

    @torch.no_grad()
    def _update_average(self) -> None:
        # A young average would remember the random start, so its memory grows with the run.
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        state = self.model.state_dict()
        floats = [k for k, v in state.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.average[k] for k in floats], [state[k] for k in floats], 1 - decay)

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write a checkpoint; the file appears under its name only when complete."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        tensors |= self._optimizer_tensors()
        tensors |= {f"input.{k}": v for k, v in self.inputs.moments.items()}
        tensors["rng.generator"] = self.generator.get_state()
        tensors["rng.chooser"] = self._chooser.get_state()
        tensors["rng.torch"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        facts = {
            "step": self.step,
            "decay": self.decay,
            "trained_latent": self.trained_latent,
            "skipped": self.skipped,
            "usual_norm": self.usual_norm,
            "observations": self.inputs.observations,
            "recipe": self.recipe.to_dict(),
        }
        contiguous = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        with replacing(path) as part:
            save_file(contiguous, part, {"format": _FORMAT, "facts": json.dumps(facts)})

    def load(self, path: Path) -> None:
        """Continue from a checkpoint written by `save` with the same model."""
        facts, tensors = read_checkpoint(path)
        held = Recipe.from_dict(facts["recipe"])
        name, options = held.architecture, held.architecture_options
        if (name, options) != (self.recipe.architecture, self.recipe.architecture_options):
            raise UsageError(f"{path} holds another model: {name} {options}")
        if "rng.torch" not in tensors:
            raise _damaged(path, "lacks rng.torch")
        self.model.load_state_dict(_state(tensors, "model.", self.model, path))
        average = _state(tensors, "average.", self.model, path)
        self.average = {k: laid_out(average[k].to(self.device), v) for k, v in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            own = {k: v.to(self.device) for k, v in _strip(tensors, f"optimizer.{name}:").items()}
            self.optimizer.state[parameter] = {k: laid_out(v, parameter) if v.ndim else v for k, v in own.items()}
        self.step, self.trained_latent = facts["step"], facts.get("trained_latent")
        self.inputs.moments = {k: v.to(self.device) for k, v in _strip(tensors, "input.").items()}
        self.inputs.observations = facts.get("observations", 0)
        if self.recipe.whiten:
            self._whiten()
        self._restore_random(tensors)
        self._skipped.fill_(facts["skipped"])
        self._usual_norm.fill_(facts["usual_norm"])
        self.decay = tuple(facts["decay"]) if facts["decay"] else None

    def _restore_random(self, tensors: dict[str, Tensor]) -> None:
        torch.set_rng_state(tensors["rng.torch"])
        if self.device.type == "cuda" and "rng.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)
        states = {"rng.generator": self.generator, "rng.chooser": self._chooser}
        for name, generator in states.items():
            state = tensors.get(name)
            if state is not None and len(state) == len(generator.get_state()):
                generator.set_state(state)
            elif name == "rng.generator":  # the run moves to another kind of device
                generator.manual_seed(self.recipe.seed + self.step)

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        state = self.optimizer.state
        return {
            f"optimizer.{name}:{key}": value
            for name, parameter in self.model.named_parameters()
            for key, value in state.get(parameter, {}).items()
        }


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Facts (step, decay, recipe) and tensors of a checkpoint."""
    with _opened(path) as handle:
        return _facts(handle, path), {k: handle.get_tensor(k) for k in handle.keys()}  # noqa: SIM118


def is_checkpoint(path: Path) -> bool:
    """Whether there is a file, and it is a checkpoint."""
    try:
        with safe_open(path, "pt") as handle:
            return (handle.metadata() or {}).get("format") == _FORMAT
    except (OSError, SafetensorError):
        return False


def read_facts(path: Path) -> dict[str, Any]:
    """Facts of a checkpoint without its tensors."""
    with _opened(path) as handle:
        return _facts(handle, path)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, "pt") as handle:
            yield handle
    except (OSError, SafetensorError) as error:
        raise UsageError(f"cannot read the checkpoint {path}: {error}") from error


def _facts(handle: Any, path: Path) -> dict[str, Any]:
    metadata = handle.metadata() or {}
    if metadata.get("format") != _FORMAT:
        raise UsageError(f"{path} is not a training checkpoint of this software")
    try:
        facts = json.loads(metadata["facts"])
    except (KeyError, ValueError) as error:
        raise _damaged(path, f"its facts cannot be read ({error})") from error
    if missing := sorted(_FACTS - (facts.keys() if isinstance(facts, dict) else set())):
        raise _damaged(path, f"its facts lack {missing[0]}")
    return cast(dict[str, Any], facts)


def _damaged(path: Path, what: str) -> UsageError:
    return UsageError(f"the checkpoint {path} is damaged, or of another version: {what}")


def build_model(recipe: Recipe) -> nn.Module:
    """The network of a recipe, freshly initialised."""
    return registry.build(recipe.architecture, recipe.architecture_options)


def average_model(path: Path) -> nn.Module:
    """The averaged weights of a checkpoint as a float model of any architecture, in evaluation mode."""
    facts, tensors = read_checkpoint(path)
    model = build_model(Recipe.from_dict(facts["recipe"]))
    model.load_state_dict(_state(tensors, "average.", model, path))
    return model.eval()


def average_ltchm(path: Path) -> LTCHM:
    """`average_model` of a checkpoint that must be an LTCHM: the only architecture that files are coded with."""
    architecture = Recipe.from_dict(read_facts(path)["recipe"]).architecture
    if architecture != "ltchm":
        raise UsageError(f"{path} holds a {architecture}: only ltchm has a coder; compare others by `ltchm bench`")
    return cast(LTCHM, average_model(path))


def _state(tensors: dict[str, Tensor], prefix: str, model: nn.Module, path: Path) -> dict[str, Tensor]:
    """The tensors under `prefix` as a state of the model. UsageError names the first that does not fit."""
    found, wanted = _strip(tensors, prefix), model.state_dict()
    for name in (*wanted, *found):
        if name not in found:
            raise _damaged(path, f"lacks {prefix}{name}")
        if name not in wanted or found[name].shape != wanted[name].shape:
            raise _damaged(path, f"{prefix}{name} {tuple(found[name].shape)} does not fit its model")
    return found


def _strip(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
