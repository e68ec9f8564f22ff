"""How a raster is to be compressed: one value that can be checked, kept in a journal and sent to another machine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from numbers import Real
from typing import Any, Literal

from .errors import UsageError
from .guarantee import Guarantee
from .nn.config import LEVELS_PER_ANCHOR, MAX_LEVEL, level_to_lambda
from .pyramid import LARGE, Overview, automatic_factors, check_overviews
from .tiles import DEFAULT_TILE, TILE_MULTIPLE, TileGrid
from .types import Shape2d

__all__ = ["DEFAULT_QUALITY", "CompressSettings", "aims", "as_tuple", "level_of"]

DEFAULT_QUALITY = 50
#: What says how good the pixels are to be; each says it alone.
_AIMS = ("quality", "lambda_", "lossless", "max_error", "target_psnr", "target_bpp", "target_ratio")
#: What has to be a number, or several.
_NUMBERS = (*(aim for aim in _AIMS if aim != "lossless"), "overview_quality", "nodata")
_FLAGS = ("lossless", "overwrite", "measure", "verify", "resume", "decorrelate")
_FLAGS_OR_DEFAULT = ("preview", "seamless")
#: Whole numbers, and the least and greatest they may be; `None` where there is a default.
_COUNTS = {"tile_size": (TILE_MULTIPLE, 1024), "shard_tiles": (1, 64), "workers": (1, 64)}
#: What does nothing where errors have a bound.
_NOT_BOUNDED = ("overview_quality", "seamless")
#: What says how to get there; the scene is the same.
_MANNER = ("device", "workers", "overwrite", "measure", "verify", "resume")


def level_of(quality: int | None, lambda_: float | None) -> int:
    """Quality level for a quality of 1 to 100 or a lambda of 128 to 16384; quality 50 if neither is given.

    Raises
    ------
    UsageError
        Both are given, or one is out of range.
    """
    if quality is not None and lambda_ is not None:
        raise UsageError("give either quality or lambda, not both")
    if lambda_ is not None:
        highest = level_to_lambda(MAX_LEVEL)
        if not level_to_lambda(0) <= lambda_ <= highest:
            raise UsageError(f"lambda must be from {level_to_lambda(0):g} to {highest:g}, not {lambda_:g}")
        return round(math.log2(lambda_ / level_to_lambda(0)) * LEVELS_PER_ANCHOR)
    quality = DEFAULT_QUALITY if quality is None else quality
    if not 1 <= quality <= 100:
        raise UsageError(f"quality must be from 1 to 100, not {quality}")
    return round((quality - 1) * MAX_LEVEL / 99)


@dataclass(frozen=True)
class CompressSettings:
    """Everything `compress_raster` takes but the source, the destination, and where to compute and report.

    The parameters are those of `compress_raster`; sequences become tuples. Equal settings give equal scenes of equal
    sources, but for `device`, `workers`, `overwrite`, `measure`, `verify` and `resume`, which say how and not what.

    Raises
    ------
    UsageError
        Settings that contradict each other or are out of range.
    """

    quality: int | None = None
    lambda_: float | None = None
    lossless: bool = False
    max_error: float | tuple[float, ...] | None = None
    target_psnr: float | None = None
    target_bpp: float | None = None
    target_ratio: float | None = None
    nodata: float | None = None
    model: str | None = None
    device: str = "auto"
    tile_size: int = DEFAULT_TILE
    shard_tiles: int | None = None
    overwrite: bool = False
    measure: bool = False
    verify: bool = False
    resume: bool = False
    overviews: tuple[int, ...] | Literal[False] | None = None
    overview_quality: int | None = None
    preview: bool | None = None
    seamless: bool | None = None
    decorrelate: bool = True
    workers: int | None = None

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, as_tuple(getattr(self, f.name)))
        _check_types(self)
        _check_counts(self)
        _check_factors(self.overviews)
        given = aims(vars(self))
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given).replace('lambda_', 'lambda')} exclude each other: give one of them")
        if self.nodata is not None and not math.isfinite(self.nodata):
            raise UsageError(f"nodata must be a finite number, not {self.nodata}: NaN marks holes in any case")
        level_of(self.quality, self.lambda_)
        level_of(self.overview_quality, None)
        _check_bounds(self.max_error)
        for name in ("target_psnr", "target_bpp", "target_ratio"):
            target = getattr(self, name)
            if target is not None and not (math.isfinite(target) and target > 0):
                raise UsageError(f"{name} must be a positive number, not {target}")
        _refuse_idle(self)

    @property
    def level(self) -> int:
        """Quality level that `quality` or `lambda_` asks for."""
        return level_of(self.quality, self.lambda_)

    @property
    def target(self) -> tuple[str, float] | None:
        """Name and value of the size or quality that is to be hit, if there is one."""
        found = ((name, getattr(self, name)) for name in ("target_psnr", "target_bpp", "target_ratio"))
        return next(((name, value) for name, value in found if value is not None), None)

    @property
    def guaranteed(self) -> bool:
        """Whether the scene bounds the errors of its pixels."""
        return self.lossless or self.max_error is not None

    @property
    def purpose(self) -> Literal["lossy", "bounded", "exact"]:
        """What `raster.open_source` has to open the source for."""
        bounds = self.max_error if isinstance(self.max_error, tuple) else (self.max_error or 0.0,)
        return "lossy" if not self.guaranteed else "bounded" if any(bounds) else "exact"

    def guarantee(self, bands: int, *, classes: bool) -> Guarantee | None:
        """What the scene of a source of so many bands is to promise. UsageError if `max_error` has another number."""
        if not self.guaranteed:
            return None
        bounds = (self.max_error or 0.0,) * bands if not isinstance(self.max_error, tuple) else self.max_error
        if len(bounds) != bands:
            raise UsageError(f"max_error has {len(bounds)} numbers for {bands} bands: give one, or one per band")
        return Guarantee(tuple(float(bound) for bound in bounds), classes)

    @property
    def overview_level(self) -> int:
        """Quality level of the overviews."""
        return self.level if self.overview_quality is None else level_of(self.overview_quality, None)

    def overviews_of(self, shape: Shape2d) -> tuple[Overview, ...]:
        """The overviews of a scene of this shape. UsageError for one that would be smaller than a pixel."""
        factors = automatic_factors(shape) if self.overviews is None else self.overviews or ()
        found = tuple(Overview(factor, self.overview_level) for factor in factors)
        check_overviews(shape, found)
        return found

    def preview_of(self, shape: Shape2d) -> bool:
        """Whether a scene of this shape has a preview."""
        return max(shape) > LARGE if self.preview is None else self.preview

    def halo(self, grid: TileGrid, *, folder: bool) -> int:
        """1 where tiles see their neighbours. A bound on the error is checked tile by tile, so there they do not."""
        if self.guaranteed or grid.shape == (1, 1):
            return 0
        return int(not folder if self.seamless is None else self.seamless)

    @property
    def outcome(self) -> dict[str, Any]:
        """What of `to_dict` decides what a scene will hold."""
        return {name: value for name, value in self.to_dict().items() if name not in _MANNER}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` gives equal settings back."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> CompressSettings:
        """Inverse of `to_dict`; what is missing has its default, unknown names are a `UsageError`."""
        if unknown := sorted(set(found) - {f.name for f in fields(cls)}):
            raise UsageError(f"unknown settings: {', '.join(unknown)}")
        return cls(**found)


def aims(settings: Mapping[str, Any]) -> list[str]:
    """Names of those settings that say how good the pixels are to be."""
    # By identity: a max_error of 0 is an aim, although 0 == False.
    return [name for name in _AIMS if (aim := settings.get(name)) is not None and aim is not False]


def as_tuple(value: Any) -> Any:
    """Sequences and NumPy arrays as tuples, NumPy numbers as Python's; anything else as it is."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _check_types(settings: CompressSettings) -> None:
    """UsageError for what other checks would trip over."""
    for name in _NUMBERS:
        value = getattr(settings, name)
        for number in value if isinstance(value, tuple) and name == "max_error" else (value,):
            if not (number is None or isinstance(number, Real)):
                raise UsageError(f"{name.rstrip('_')} must be a number, not {number!r}")
    for name in (*_FLAGS, *_FLAGS_OR_DEFAULT):
        flag = getattr(settings, name)
        if not (isinstance(flag, bool) or (flag is None and name in _FLAGS_OR_DEFAULT)):
            raise UsageError(f"{name} must be True or False, not {flag!r}")


def _check_counts(settings: CompressSettings) -> None:
    for name, (low, high) in _COUNTS.items():
        count = getattr(settings, name)
        if count is None and name != "tile_size":
            continue
        if type(count) is not int or not low <= count <= high:
            raise UsageError(f"{name} must be a whole number from {low} to {high}, not {count!r}")
    if settings.tile_size % TILE_MULTIPLE:
        raise UsageError(f"tile_size must be a multiple of {TILE_MULTIPLE}, not {settings.tile_size}")


def _check_factors(overviews: Any) -> None:
    if overviews is None or overviews is False:
        return
    if not isinstance(overviews, tuple) or not all(type(factor) is int for factor in overviews):
        raise UsageError(f"overviews are factors such as (2, 4, 8), or False, not {overviews!r}")
    if any(factor < 2 or factor & (factor - 1) for factor in overviews) or any(a >= b for a, b in pairwise(overviews)):
        raise UsageError(f"overview factors are powers of two from 2 on, each larger than the one before: {overviews}")


def _refuse_idle(settings: CompressSettings) -> None:
    """UsageError for what was given and would do nothing."""
    idle = [name for name in _NOT_BOUNDED if settings.guaranteed and getattr(settings, name)]
    idle += ["model"] if settings.purpose == "exact" and settings.model is not None else []
    if idle:
        bound = "lossless" if settings.lossless else "max_error"
        raise UsageError(f"{idle[0]} does nothing with {bound}: leave one of them out")
    if settings.overview_quality is not None and settings.overviews in (False, ()):
        raise UsageError("overview_quality does nothing without overviews: leave it out, or store some")


def _check_bounds(max_error: float | tuple[float, ...] | None) -> None:
    bounds = max_error if isinstance(max_error, tuple) else () if max_error is None else (max_error,)
    if max_error == () or not all(math.isfinite(bound) and bound >= 0 for bound in bounds):
        raise UsageError(f"max_error must be one number, or one per band, from 0 on, not {max_error}")
