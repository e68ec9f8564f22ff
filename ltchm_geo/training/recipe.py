"""A training recipe: one TOML file says everything that a run depends on, apart from the hardware."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from ltchm_geo.errors import InvalidWeightsError, UsageError
from ltchm_geo.nn.config import QUALITY_ANCHORS, ModelConfig


@dataclass(frozen=True)
class Recipe:
    """Everything a run depends on.

    Attributes
    ----------
    architecture : str
        Name in `baselines.registry`.
    model : ModelConfig
        Size of an LTCHM or of an ablation of it ("ltchm...").
    options : dict
        Size of any other architecture.
    weights : dict[str, float]
        Share of samples per data source (folder inside a pack, or a raster's stem). Sources not named share what the
        named ones leave, evenly.
    crop, batch : int
        Side of the random crops and their number per step in the constant phase.
    decay_crop, decay_batch : int
        The same in the decay branch; 256 there, because the tile is the model's atomic unit.
    decay_from : float
        From which part of the decay branch on, 0 to 1, that is so. A branch that is a whole leg wants many crops
        a step, or its gradients are noise (docs/training_log.md, leg 12), and whole tiles at its end.
    halved : float
        Share of the crops that are cut at twice the size and halved (`training.data.Sampler`).
    planes : float
        Share of the crops that become what scenes of many bands are coded as (`training.planes`).
    optimizer : {"muon", "adamw"}
        Muon orthogonalises the momentum of convolution weights; every other tensor gets AdamW.
    whiten : bool
        Shorten Muon's steps in the directions in which a layer's input is strong (`training.whiten`).
    lr, muon_lr : float
        Learning rates of the constant phase.
    rates : dict[str, float]
        By what the learning rates of a part of the network (g_a, g_s, h_a, h_s, context, ...) or of a kind of parameter
        (log2_scale, gamma, bias, ...) are multiplied; 1 for those not named, 0 for parts that stay as they are.
        Transforms that begin as good ones have less to learn than what estimates their latents' probabilities; the
        context, whose inputs are latents of very different spread, must learn slowly once it is good
        (docs/training_log.md, leg 7). Latents whose transform stays as it is are charged as files are, rounded.
    warmup : int
        Steps of linear warm-up.
    awaken : int
        Steps during which what latent channels cost that a start from narrower weights added is not charged to g_a.
        Charged at once they would be silenced before g_s has learned to read them; all the more where they begin at
        random, which is so unless `deep_channels` grows, too.
    ema : float
        Decay of the exponential moving average of the weights, which is what gets exported.
    clip : float
        Largest gradient norm.
    quality_low, quality_high : float
        Quality is drawn uniformly in log lambda between these positions of [0, 7]: one from each of as many equal parts
        as a batch has crops.
    rate_weight_power : float
        Each sample's loss is multiplied by (lambda / 1024) ** -power: without it, high rates own the gradient.
    ramp : float
        Latents are charged what the integers cost that they round to, with a slope where they would round otherwise;
        it is this part of a quantiser step long (`nn.model.ramped_bits`; docs/decisions/0017-ramp.md). 0: what they
        cost under uniform noise, as in the paper.
    mixed_precision : bool
        bfloat16 in those convolutions of g_a and g_s that run in it in use, where the device has it in hardware
        (docs/decisions/0018-training-precision.md).
    compile : bool
        Let `torch.compile` fuse the network's small operations; worth its minutes of start-up on a GPU.
    start : {"random", "klt"}
        Weights before the first step: PyTorch's, or those by which the network is the Karhunen-Loeve transform of the
        data (`training.klt`; needs 2x2 skips and the gain of dynamic attention).
    predict : int
        So many latents begin as what least squares tells of them from their neighbours (`training.predict`).
    seed : int
        Of weights, crops and noise.
    """

    architecture: str = "ltchm"
    model: ModelConfig = field(default_factory=ModelConfig)
    options: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    crop: int = 256
    batch: int = 16
    decay_crop: int = 256
    decay_batch: int = 16
    decay_from: float = 0.0
    halved: float = 0.0
    planes: float = 0.0
    optimizer: Literal["muon", "adamw"] = "muon"
    whiten: bool = False
    lr: float = 1e-3
    muon_lr: float = 5e-3
    rates: dict[str, float] = field(default_factory=dict)
    warmup: int = 200
    awaken: int = 0
    ema: float = 0.998
    clip: float = 1.0
    quality_low: float = 0.0
    quality_high: float = QUALITY_ANCHORS - 1.0
    rate_weight_power: float = 0.25
    ramp: float = 0.0
    mixed_precision: bool = True
    compile: bool = False
    start: Literal["random", "klt"] = "random"
    predict: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        ours = self.architecture.startswith("ltchm")
        if self.options if ours else self.model != ModelConfig():
            raise UsageError(f"recipe: {self.architecture} does not read the table [{'options' if ours else 'model'}]")
        side = 32 * self.model.window
        if min(self.crop, self.decay_crop) < side or self.crop % side or self.decay_crop % side:
            raise UsageError(
                f"recipe: crop and decay_crop must be multiples of {side}, or attention windows do not fit"
            )
        if min(self.batch, self.decay_batch) < 1:
            raise UsageError("recipe: batch and decay_batch must be at least 1")
        for name in ("decay_from", "halved", "planes"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"recipe: {name} must be from 0 to 1")
        if not 0 <= self.ramp <= 1 or (self.ramp and not ours):
            raise UsageError("recipe: ramp must be from 0 to 1, and only an ltchm has one")
        if self.optimizer not in ("muon", "adamw"):
            raise UsageError(f'recipe: optimizer must be "muon" or "adamw", not {self.optimizer!r}')
        if self.whiten and self.optimizer != "muon":
            raise UsageError('recipe: whiten = true needs optimizer = "muon"')
        if self.start not in ("random", "klt"):
            raise UsageError(f'recipe: start must be "random" or "klt", not {self.start!r}')
        if self.start == "klt" and not (ours and self.model.may_be_linear):
            raise UsageError('recipe: start = "klt" needs an ltchm with skip = "2x2" and dam_gain = true')
        if any(rate < 0 for rate in self.rates.values()):
            raise UsageError("recipe: rates must not be negative")
        most = min(self.model.channels, self.model.parameter_width // 4, self.model.latent) if ours else 0
        if not 0 <= self.predict <= most:
            raise UsageError(f"recipe: predict must be from 0 to {most} for this network")
        if not 0 <= self.quality_low <= self.quality_high <= QUALITY_ANCHORS - 1:
            raise UsageError(f"recipe: need 0 <= quality_low <= quality_high <= {QUALITY_ANCHORS - 1}")

    @property
    def architecture_options(self) -> dict[str, Any]:
        """What `baselines.registry.build` takes beside the name."""
        return self.model.to_dict() if self.architecture.startswith("ltchm") else self.options

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready dictionary."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Recipe:
        """Inverse of `to_dict`; unknown keys are an error."""
        _require_known(data, cls, "unknown keys")
        examples = cls().to_dict()
        for name, value in data.items():
            _require_type(name, value, examples[name])
        for table in ("weights", "rates"):
            for name, number in data.get(table, {}).items():
                _require_type(f"{table}.{name}", number, 0.0)
        model = data.get("model", {})
        _require_known(model, ModelConfig, "unknown keys in the table [model]:")
        try:
            return cls(**{**data, "model": ModelConfig.from_dict(model)})
        except InvalidWeightsError as error:
            raise UsageError(f"recipe: {error}") from error

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """Read a TOML recipe."""
        try:
            return cls.from_dict(tomllib.loads(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"cannot read the recipe {path}: {error}") from error


def _require_known(table: dict[str, Any], kind: type[Recipe] | type[ModelConfig], complaint: str) -> None:
    unknown = set(table) - {f.name for f in fields(kind)}
    if unknown:
        raise UsageError(f"recipe: {complaint} {sorted(unknown)}")


_TYPES = {dict: "a table", str: "a text", bool: "true or false", int: "a whole number", float: "a number"}


def _require_type(name: str, value: Any, example: Any) -> None:
    """`value` must be of the type of `example`; a whole number is a number, too."""
    kind = type(example)
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise UsageError(f"recipe: {name} must be {_TYPES[kind]}, not {value!r}")
