"""What a scene description leaves unsaid, as most scenes would say the same: in one of a single tile it would weigh."""

from __future__ import annotations

from typing import Any

__all__ = ["fill_in", "leave_out"]

# The format's, whatever the defaults of the classes may become. A band's type is the scene's.
_SCENE: dict[str, Any] = {"alpha": None, "mask": False, "source": {}, "overviews": [], "halo": 0, "guarantee": None}
_GEOREF: dict[str, Any] = {"crs": None, "transform": None, "gcps": [], "gcps_crs": None, "rpcs": None, "tags": {}}
_BAND: dict[str, Any] = {"description": None, "nodata": None, "scale": 1.0, "offset": 0.0, "unit": None, "tags": {}}


def leave_out(description: dict[str, Any]) -> dict[str, Any]:
    """The description without what has its default; `fill_in` gives it back."""
    band = {**_BAND, "dtype": description["dtype"]}
    return _without(description, _SCENE) | {
        "georef": _without(description["georef"], _GEOREF),
        "bands": [_without(found, band) for found in description["bands"]],
    }


def fill_in(description: dict[str, Any]) -> dict[str, Any]:
    """The description with defaults for what it leaves out. What else may be wrong with it stays so."""
    whole = _SCENE | description
    band = {**_BAND, "dtype": whole.get("dtype")}
    if isinstance(whole.get("georef"), dict):
        whole["georef"] = _GEOREF | whole["georef"]
    if isinstance(whole.get("bands"), list):
        whole["bands"] = [band | found if isinstance(found, dict) else found for found in whole["bands"]]
    return whole


def _without(found: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    # As text, which tells 0.0 from -0.0.
    return {key: value for key, value in found.items() if key not in defaults or repr(value) != repr(defaults[key])}
