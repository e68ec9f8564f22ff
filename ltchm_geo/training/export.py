"""From a training checkpoint to a weights file: float transforms in half precision, entropy path in integers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor

from .._sink import write_file
from ..nn.config import LEVELS_PER_ANCHOR, QUALITY_ANCHORS, level_to_lambda
from ..nn.model import LTCHM
from ..weights import MANIFEST, WeightsEntry
from .integerise import calibration_latents, integerise

__all__ = ["export_weights", "float_tensors", "sources_of"]


def float_tensors(model: LTCHM) -> dict[str, NDArray[np.generic]]:
    """Tensors of g_a, g_s and h_a: convolution weights in half precision, vectors and GDN in single."""
    tensors: dict[str, NDArray[np.generic]] = {}
    for name in ("g_a", "g_s", "h_a"):
        for key, value in getattr(model, name).state_dict().items():
            half = value.ndim == 4
            tensors[f"nn.{name}.{key}"] = value.detach().cpu().numpy().astype(np.float16 if half else np.float32)
    return tensors


def export_weights(
    model: LTCHM,
    crops: Tensor,
    folder: Path,
    *,
    tag: str,
    status: str,
    licence: str,
    data: str,
    recipe: str,
    commit: str,
    quality: tuple[float, float] = (0.0, QUALITY_ANCHORS - 1.0),
    notes: str = "",
    default: bool = True,
) -> WeightsEntry:
    """Write `<tag>.safetensors` into `folder` and enter it in the manifest there.

    Parameters
    ----------
    model : LTCHM
        Trained float network. Its transforms are written as they are; its entropy path is integerised.
    crops : (B, 3, S, S)
        Typical tiles in [0, 1], from which the integer ranges are chosen.
    tag, status, licence, data, recipe, commit, notes : str
        Provenance, see `WeightsEntry`.
    quality : (float, float)
        Range of quality positions the network was trained for.
    default : bool
        Make it the manifest's default; what was a preview before is then archived.
    """
    levels = [anchor * LEVELS_PER_ANCHOR for anchor in range(QUALITY_ANCHORS)]
    exact, description = integerise(model, calibration_latents(model, crops, levels))
    tensors = float_tensors(model) | {f"entropy.{name}": value for name, value in exact.items()}
    contiguous = {name: np.ascontiguousarray(value) for name, value in sorted(tensors.items())}
    metadata = {
        "ltchm_config": json.dumps(model.config.to_dict(), sort_keys=True),
        "ltchm_entropy": json.dumps(description, sort_keys=True),
    }
    blob = save(contiguous, metadata)
    lambdas = tuple(level_to_lambda(q * LEVELS_PER_ANCHOR) for q in quality)
    entry = WeightsEntry(
        tag=tag,
        file=f"{tag}.safetensors",
        sha256=hashlib.sha256(blob).hexdigest(),
        bytes=len(blob),
        N=model.config.channels,
        lambdas=(lambdas[0], lambdas[1]),
        status=status,
        licence=licence,
        data=data,
        recipe=recipe,
        commit=commit,
        notes=notes,
    )
    write_file(folder / entry.file, blob, overwrite=True)
    _enter(folder, entry, default)
    return entry


def _enter(folder: Path, entry: WeightsEntry, default: bool) -> None:
    path = folder / MANIFEST
    found = json.loads(path.read_text()) if path.exists() else {"format": 1, "default": None, "entries": []}
    others = [e for e in found["entries"] if e["tag"] != entry.tag]
    if default:
        found["default"] = entry.tag
        others = [e | {"status": "archived"} if e["status"] == "preview" else e for e in others]
    found["entries"] = [*others, entry.to_dict()]
    write_file(path, (json.dumps(found, indent=2) + "\n").encode(), overwrite=True)


def sources_of(paths: Sequence[Path]) -> str:
    """Names of the data files, for the record."""
    return ", ".join(path.name for path in paths)
