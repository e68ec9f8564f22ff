"""What a compressed scene says about itself: the ``ltchm`` attribute of its root, as frozen dataclasses.

Reading is strict. A scene from an unknown hand may claim anything, so every number that later decides how much memory
is taken, or which files are opened, is bounded here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from ._json import is_sha256, is_whole, require_integer, require_keys, require_list
from .band_group import BandGroup
from .bitstream import MAX_LEVEL
from .components import MAX_COMPONENTS
from .errors import CorruptContainerError, UnsupportedVersionError, UsageError
from .georef import BandInfo, Georef, Number
from .guarantee import Guarantee
from .pyramid import Overview, check_overviews, reduced
from .scene_defaults import fill_in, leave_out
from .tiles import DEFAULT_SHARD, DEFAULT_TILE, TILE_MULTIPLE, TileGrid
from .types import EXACT_DTYPES, MAX_PIXELS, MAX_SIDE, PIXEL_DTYPES, Shape2d, TileIndex

__all__ = ["FORMAT_VERSION", "BandGroup", "Overview", "SceneMeta", "array_path", "check_version"]

FORMAT_VERSION = 4  # of the scene description; manifest, tiles and codec configuration have their own
MAX_TILE = 1024
MAX_SHARD = 64
MAX_SHARDS = 400_000  # keeps the manifest below its own limit
MAX_BANDS = 65_535
GROUP_BANDS = 3
#: Version of the scene description that brought a key; all others were in 0.
_SINCE = {"overviews": 1, "halo": 2, "guarantee": 2}
_TRANSFORMS_SINCE, _DEFAULTS_SINCE = 3, 4


@dataclass(frozen=True)
class SceneMeta:
    """Everything about a scene but its pixels.

    Parameters
    ----------
    shape : Shape2d
        Rows and columns in pixels.
    dtype : str
        NumPy name of the data type, one for all bands.
    bands : tuple of BandInfo
        In file order, alpha included.
    georef : Georef
    groups : tuple of BandGroup
        Every band but alpha is in exactly one group.
    weights : str or None
        SHA-256 of the weights; None when no tile needs a network.
    weights_tag : str or None
        Their name, for people only.
    level : int
        Quality level 0..112 the scene was made with; tiles state their own.
    tile, shard : int
        Side of a tile in pixels, and of a shard in tiles.
    alpha : int or None
        0-based number of the alpha band, which is stored exactly as the plane ``alpha``.
    mask : bool
        Whether there is a plane ``mask`` (True = valid), the source's mask band.
    software : str
        What wrote the scene.
    source : mapping of str to str, int or None
        Where the pixels came from, for people: name, size of the file and the like.
    overviews : tuple of Overview
        Pyramid levels 1, 2, ...: coarser and coarser copies of the whole scene.
    halo : int
        1 where the network sees one latent of a tile's neighbours, so that nobody sees where tiles meet, else 0.
    guarantee : Guarantee or None
        What the scene promises about the errors of its pixels.

    Raises
    ------
    UsageError
        When the parts contradict each other or a limit of the format.
    """

    shape: Shape2d
    dtype: str
    bands: tuple[BandInfo, ...]
    georef: Georef
    groups: tuple[BandGroup, ...]
    weights: str | None = None
    weights_tag: str | None = None
    level: int = 0
    tile: int = DEFAULT_TILE
    shard: int = DEFAULT_SHARD
    alpha: int | None = None
    mask: bool = False
    software: str = "ltchm_geo"
    source: Mapping[str, str | int | None] = field(default_factory=dict)
    overviews: tuple[Overview, ...] = ()
    halo: int = 0
    guarantee: Guarantee | None = None

    def __post_init__(self) -> None:
        _check_sizes(self)
        _check_bands(self)
        _check_weights(self)

    @property
    def grid(self) -> TileGrid:
        """The tiles and shards of the scene at full resolution."""
        return TileGrid(self.shape, self.tile, self.shard)

    @property
    def pyramid(self) -> range:
        """Numbers of the pyramid levels: 0 for full resolution, then one per overview."""
        return range(1 + len(self.overviews))

    def pyramid_factor(self, level: int) -> int:
        """Pixels of the scene per pixel of a pyramid level, along each side. UsageError when there is no such level."""
        if level not in self.pyramid:
            has = f"overview levels 1 to {len(self.overviews)}" if self.overviews else "no overviews"
            raise UsageError(f"there is no pyramid level {level}: the scene has {has}; 0 is full resolution")
        return self.overviews[level - 1].factor if level else 1

    def pyramid_shape(self, level: int) -> Shape2d:
        """Rows and columns of a pyramid level."""
        return reduced(self.shape, self.pyramid_factor(level))

    def pyramid_grid(self, level: int) -> TileGrid:
        """Tiles and shards of a pyramid level."""
        return TileGrid(self.pyramid_shape(level), self.tile, self.shard)

    def pyramid_georef(self, level: int) -> Georef:
        """Where the pixels of a pyramid level lie."""
        return self.georef.scaled(self.pyramid_factor(level))

    def pyramid_quality(self, level: int) -> int:
        """Quality level 0..112 a pyramid level was made with."""
        return self.overviews[level - 1].level if level else self.level

    @property
    def planes(self) -> tuple[str, ...]:
        """Names of the arrays that are stored exactly beside the groups."""
        return (("alpha",) if self.alpha is not None else ()) + (("mask",) if self.mask else ())

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of all arrays: groups, then planes."""
        return tuple(group.name for group in self.groups) + self.planes

    def group(self, name: str) -> BandGroup:
        """The group with this name. Raises `KeyError`."""
        return {group.name: group for group in self.groups}[name]

    def nodata(self, group: BandGroup) -> tuple[Number | None, ...]:
        """The nodata value of each band of a group."""
        return tuple(self.bands[band].nodata for band in group.bands)

    def array_dtype(self, array: str) -> np.dtype[Any]:
        """Data type of an array as a reader sees it."""
        return np.dtype(bool if array == "mask" else self.dtype)

    def tile_shape(self, array: str) -> tuple[int, ...]:
        """Shape of one full tile of an array: (bands, tile, tile), or (tile, tile) for a plane."""
        side = (self.tile, self.tile)
        return side if array in self.planes else (len(self.group(array).bands), *side)

    def payload_limit(self, array: str) -> int:
        """Bytes no tile of the array may exceed: twice its pixels, and some room for small tiles."""
        return 2 * int(np.prod(self.tile_shape(array))) * self.array_dtype(array).itemsize + 65_536

    def shard_key(self, array: str, shard: TileIndex, pyramid: int = 0) -> str:
        """Where the shard lies in the store (Zarr v3 default chunk keys)."""
        return f"{pyramid}/{array}/c/{'' if array in self.planes else '0/'}{shard.iy}/{shard.ix}"

    def shard_keys(self, pyramid: int) -> list[str]:
        """Keys of all shards of a pyramid level."""
        shards = self.pyramid_grid(pyramid).shard_indices
        return [self.shard_key(array, shard, pyramid) for array in self.arrays for shard in shards]

    def to_document(self) -> dict[str, Any]:
        """As it is stored: `to_dict` without what has its default. `from_dict` gives an equal description back."""
        return leave_out(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` gives an equal description back."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            "format": FORMAT_VERSION,
            **plain,
            "shape": list(self.shape),
            "bands": [band.to_dict() for band in self.bands],
            "georef": self.georef.to_dict(),
            "groups": [group.to_dict() for group in self.groups],
            "source": dict(self.source),
            "overviews": [overview.to_dict() for overview in self.overviews],
            "guarantee": None if self.guarantee is None else self.guarantee.to_dict(),
        }

    @classmethod
    def from_dict(cls, found: Any) -> SceneMeta:
        """Strict inverse of `to_dict` and `to_document`.

        Raises
        ------
        UnsupportedVersionError, CorruptContainerError
        """
        version = check_version(found, "scene")
        try:
            found = fill_in(found) if version >= _DEFAULTS_SINCE else found
            keys = {"format", *(f.name for f in fields(cls) if _SINCE.get(f.name, 0) <= version)}
            found = dict(require_keys(found, keys, what="scene"))
            del found["format"]
            shape = [require_integer(side, "shape") for side in require_list(found["shape"], "shape")]
            if len(shape) != 2 or not isinstance(found["source"], dict):
                raise ValueError("shape is not two numbers, or source is not an object")
            parsed: dict[str, Any] = {
                "shape": Shape2d(*shape),
                "bands": tuple(map(BandInfo.from_dict, require_list(found["bands"], "bands"))),
                "georef": Georef.from_dict(found["georef"]),
                "groups": tuple(map(BandGroup.from_dict, require_list(found["groups"], "groups"))),
                "overviews": tuple(map(Overview.from_dict, require_list(found.get("overviews", []), "overviews"))),
            }
            if found.get("guarantee") is not None:
                parsed["guarantee"] = Guarantee.from_dict(found["guarantee"])
            if version < _TRANSFORMS_SINCE and any(group.transform for group in parsed["groups"]):
                raise ValueError(f"format {version} knows no transforms")
            return cls(**{**found, **parsed})
        except ValueError as error:
            raise CorruptContainerError(f"scene description is damaged: {error}") from error


def array_path(array: str, pyramid: int) -> str:
    """What to call an array in messages: its name, and before that its pyramid level unless that is 0."""
    return f"{pyramid}/{array}" if pyramid else array


def check_version(found: Any, what: str, known: int = FORMAT_VERSION) -> int:
    """The ``format`` of a JSON object; refuses one that is newer than `known` before anything else is looked at."""
    version = found.get("format") if isinstance(found, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 0:
        raise CorruptContainerError(f"{what}: format version {version!r} makes no sense")
    if version > known:
        raise UnsupportedVersionError(
            f"{what} is in format {version}, this software reads up to {known}: update ltchm_geo"
        )
    return version


# --- checks ----------------------------------------------------------------------------------------------------------


def _check_sizes(meta: SceneMeta) -> None:
    for name, value, low, high in (
        ("height", meta.shape.y, 1, MAX_SIDE),
        ("width", meta.shape.x, 1, MAX_SIDE),
        ("pixels", meta.shape.y * meta.shape.x, 1, MAX_PIXELS),
        ("tile", meta.tile, TILE_MULTIPLE, MAX_TILE),
        ("shard", meta.shard, 1, MAX_SHARD),
        ("level", meta.level, 0, MAX_LEVEL),
        ("halo", meta.halo, 0, 1),
    ):
        if not low <= require_integer(value, name) <= high:
            raise UsageError(f"{name} {value} is outside {low}..{high}")
    check_overviews(meta.shape, meta.overviews)
    # TileGrid checks that the tile side is a multiple of 64
    shards = sum(math.prod(meta.pyramid_grid(level).shards) for level in meta.pyramid)
    if (count := shards * len(meta.arrays)) > MAX_SHARDS:
        raise UsageError(f"{count} shards are more than the {MAX_SHARDS} a scene may have; choose larger shards")


def _check_bands(meta: SceneMeta) -> None:
    allowed = PIXEL_DTYPES if meta.guarantee is None else EXACT_DTYPES
    if meta.dtype not in allowed or any(band.dtype != meta.dtype for band in meta.bands):
        raise UsageError(f"data type {meta.dtype!r} is not one of {', '.join(allowed)}, or bands differ in theirs")
    if not 1 <= len(meta.bands) <= MAX_BANDS:
        raise UsageError(f"{len(meta.bands)} bands are outside 1..{MAX_BANDS}")
    if meta.guarantee is not None and (len(meta.guarantee.max_error) != len(meta.bands) or meta.halo):
        raise UsageError("a guarantee needs one number for each band, and tiles that do not see each other")
    if meta.alpha is not None and not 0 <= require_integer(meta.alpha, "alpha") < len(meta.bands):
        raise UsageError(f"alpha band {meta.alpha} does not exist")
    if not isinstance(meta.mask, bool):
        raise UsageError(f"mask is {meta.mask!r}, not true or false")
    coded = [band for group in meta.groups for band in group.bands]
    if sorted(coded) != [band for band in range(len(meta.bands)) if band != meta.alpha]:
        raise UsageError("every band but alpha must be in exactly one group")
    if not meta.groups:
        raise UsageError("a scene has a band besides alpha")
    for number, group in enumerate(meta.groups):
        if group.name != f"g{number}":
            raise UsageError(f"group {number} is named {group.name!r}, not 'g{number}'")
        most = GROUP_BANDS if group.transform is None else MAX_COMPONENTS
        if not 1 <= len(group.bands) == len(group.mapping) == len(group.fill) <= most:
            raise UsageError(f"{group.name} must have 1..{most} bands, each with a mapping and a fill value")
        if group.transform is not None and (len(group.transform.centre) != len(group.bands) or meta.guarantee):
            raise UsageError(f"{group.name} has a transform of other bands, or one in a scene that bounds its errors")


def _check_weights(meta: SceneMeta) -> None:
    if meta.weights is not None and not is_sha256(meta.weights):
        raise UsageError(f"weights {meta.weights!r} are not named by a SHA-256")
    if not isinstance(meta.software, str) or not isinstance(meta.weights_tag, str | None):
        raise UsageError("software and weights tag must be strings")
    for key, value in meta.source.items():
        if not isinstance(key, str) or not (isinstance(value, str | None) or is_whole(value)):
            raise UsageError(f"source {key!r} is neither a string nor a whole number of 64 bits")
