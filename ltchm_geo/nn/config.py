"""Size and variant of an LTCHM network, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from ltchm_geo.errors import InvalidWeightsError

#: Quality anchors: channel scales are learned at lambda = 128 * 2**k, k = 0 ... 7, and interpolated between.
QUALITY_ANCHORS = 8
#: Interpolation steps from one anchor to the next; a quality level is an integer 0 ... MAX_LEVEL.
LEVELS_PER_ANCHOR = 16
MAX_LEVEL = (QUALITY_ANCHORS - 1) * LEVELS_PER_ANCHOR
#: Largest attention window: all of the smallest maps, at 1/32, of the largest tile, 1024.
MAX_WINDOW = 32
#: Components of the Gaussian mixture (K in Eq. 1 of the paper).
MIXTURES = 3

Dam = Literal["latent", "table1"]
Hpham = Literal["8x8", "table2"]
Skip = Literal["1x1", "2x2"]
Scales = Literal["linear", "geometric"]


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of one network.

    Attributes
    ----------
    channels : int
        N, the paper's C: width of g_a and g_s. 128, 192 and 256 in the paper; a multiple of `head_dim` and of 8.
    deep_channels : int
        Width of g_a and g_s at 1/8 of the resolution; 0 stands for N, as in the paper. A latent vector comes from four
        positions there, so a quarter of M is the least that makes sense (docs/decisions/0012-deep-channels.md).
    latent_channels : int
        M, the channels of y; 0 stands for N, as in the paper's text, while its Tab. 1 says 2N. M numbers for 256 pixels
        are what bounds the quality at high rates (docs/decisions/0009-latent-channels.md).
    parameter_width : int
        Hidden width of the 1x1 parameter network (640 in the published model).
    head_dim, window : int
        Channels per attention head and side of the attention window (Tab. 2: h32, win4).
    reduction, groups : int
        r and G of the input-dependent depth-wise convolution (Fig. 2).
    dam : {"latent", "table1"}
        Where dynamic attention sits: after the second down-sampling and at the latent, mirrored in g_s ("latent", which
        the published parameter counts imply), or at the seven places of Tab. 1.
    dam_gain : bool
        A learned gain per channel on what dynamic attention adds, zero at the start: the network then trains as fast as
        one without attention (docs/training_log.md) instead of far slower.
    skip : {"1x1", "2x2"}
        The way beside a down- or up-sampling block: Tab. 1's 1x1 convolution of every fourth pixel, or a 2x2 one of all
        of them, by which what a block cannot handle yet gets past it (docs/decisions/0010-wide-skips.md).
    scales : {"linear", "geometric"}
        How channel scales are interpolated between the quality anchors. Linearly, those before the quantiser and those
        after it are each other's inverse only at the anchors (docs/decisions/0011-klt-start.md).
    hpham : {"8x8", "table2"}
        Hybrid attention at the 8x8 maps only (published parameter count), or also at 16x16 (Tab. 2).
    """

    channels: int = 128
    latent_channels: int = 0
    deep_channels: int = 0
    parameter_width: int = 640
    head_dim: int = 32
    window: int = 4
    reduction: int = 4
    groups: int = 2
    dam: Dam = "latent"
    dam_gain: bool = False
    hpham: Hpham = "8x8"
    skip: Skip = "1x1"
    scales: Scales = "linear"

    def __post_init__(self) -> None:
        sizes = (self.channels, self.parameter_width, self.head_dim, self.window, self.reduction, self.groups)
        if not all(isinstance(v, int) and 1 <= v <= 4096 for v in sizes):
            raise InvalidWeightsError("model config: sizes must be integers from 1 to 4096")
        for name in ("latent_channels", "deep_channels"):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value <= 4096 or value % 8:
                raise InvalidWeightsError(f"model config: {name} must be 0 or a multiple of 8 up to 4096")
        if self.window > MAX_WINDOW:  # attention takes memory by its fourth power
            raise InvalidWeightsError(f"model config: window={self.window} is larger than {MAX_WINDOW}")
        if self.reduction > min(self.channels, self.latent, self.deep):
            raise InvalidWeightsError(f"model config: a reduction of {self.reduction} leaves no channels")
        if self.channels % self.head_dim or self.channels % 8:
            raise InvalidWeightsError(f"model config: channels={self.channels} must be a multiple of 8 and of head_dim")
        if not isinstance(self.dam_gain, bool):
            raise InvalidWeightsError("model config: dam_gain must be true or false")
        variants = {"dam": Dam, "hpham": Hpham, "skip": Skip, "scales": Scales}
        for name, known in variants.items():
            if getattr(self, name) not in get_args(known):
                raise InvalidWeightsError(f"model config: unknown variant {getattr(self, name)!r} of {name}")

    @property
    def latent(self) -> int:
        """M, the channels of y."""
        return self.latent_channels or self.channels

    @property
    def deep(self) -> int:
        """Width of g_a and g_s at 1/8 of the resolution."""
        return self.deep_channels or self.channels

    @property
    def may_be_linear(self) -> bool:
        """Whether g_a and g_s can be linear transforms: skips see all pixels, and dynamic attention can add nothing."""
        return self.skip == "2x2" and self.dam_gain

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready dictionary."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelConfig:
        """Inverse of `to_dict`; unknown keys are an error, so a newer variant is never silently misread."""
        unknown = set(data) - {f.name for f in fields(cls)}
        if unknown:
            raise InvalidWeightsError(f"model config: unknown keys {sorted(unknown)}; update ltchm_geo")
        return cls(**data)


def level_to_lambda(level: float) -> float:
    """Lagrangian weight of a quality level: 128 * 2**(level / 16), on MSE of pixels in [0, 1]."""
    return 128.0 * 2.0 ** (level / LEVELS_PER_ANCHOR)
