"""Bands that share an array of a scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._json import decode_number, encode_number, require_integer, require_keys, require_list
from .components import ComponentTransform
from .georef import Number
from .radiometry import BandMapping

__all__ = ["BandGroup"]


@dataclass(frozen=True)
class BandGroup:
    """Bands that are coded together, as one array of the scene.

    Parameters
    ----------
    name : str
        ``g0``, ``g1``, ... in order.
    bands : tuple of int
        0-based band numbers in the order the network sees them: one to three, with a transform up to 16.
    mapping : tuple of BandMapping
        Per band of the group, data units to the network's range.
    fill : tuple of int, float or None
        Per band of the group, the value of masked pixels (nodata, or what lay under the mask); None without any.
    transform : ComponentTransform or None
        What the network is given instead of the bands.
    """

    name: str
    bands: tuple[int, ...]
    mapping: tuple[BandMapping, ...]
    fill: tuple[Number | None, ...]
    transform: ComponentTransform | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` gives an equal group back."""
        mapping = [band.to_dict() for band in self.mapping]
        fill = [encode_number(value) for value in self.fill]
        plain = {"name": self.name, "bands": list(self.bands), "mapping": mapping, "fill": fill}
        return plain if self.transform is None else {**plain, "transform": self.transform.to_dict()}

    @classmethod
    def from_dict(cls, found: Any) -> BandGroup:
        """Strict inverse of `to_dict`; ValueError says what is wrong."""
        optional = {"transform"} & set(found if isinstance(found, dict) else ())
        found = require_keys(found, {"name", "bands", "mapping", "fill"} | optional, what="band group")
        mapping, fill = require_list(found["mapping"], "mapping"), require_list(found["fill"], "fill")
        bands = tuple(require_integer(band, "band") for band in require_list(found["bands"], "bands"))
        transform = ComponentTransform.from_dict(found["transform"]) if optional else None
        return cls(
            found["name"], bands, tuple(map(BandMapping.from_dict, mapping)), tuple(map(decode_number, fill)), transform
        )
