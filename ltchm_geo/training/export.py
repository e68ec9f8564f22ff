"""From a training checkpoint to a weights file: float transforms in half precision, entropy path in integers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor

from .._sink import write_file
from ..entropy.integer_net import ExactCoder
from ..errors import UsageError
from ..nn.config import LEVELS_PER_ANCHOR, QUALITY_ANCHORS, level_to_lambda
from ..nn.model import LTCHM
from ..weights import MANIFEST, TAG, WeightsEntry, read_manifest
from .integerise import calibration_latents, integerise

__all__ = ["check_tag", "export_weights", "float_tensors", "sources_of"]


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

    Raises
    ------
    UsageError, WeightsError
        As `check_tag`.
    InvalidWeightsError
        The network's integers break a limit that exactness needs. Nothing was written.
    """
    check_tag(folder, tag)
    levels = [anchor * LEVELS_PER_ANCHOR for anchor in range(QUALITY_ANCHORS)]
    exact, description = integerise(model, calibration_latents(model, crops, levels))
    ExactCoder.from_tensors(exact, description, device="cpu")  # refuses what no reader would take
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
        file=_file(folder, tag).name,
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
    write_file(folder / entry.file, blob, overwrite=False)
    _enter(folder, entry, default)
    return entry


def check_tag(folder: Path, tag: str) -> None:
    """Raise unless new weights can be written into `folder` under `tag`. Weights are never replaced: scenes need them.

    Raises
    ------
    UsageError
        The tag is malformed or taken.
    WeightsError
        The manifest there cannot be read.
    """
    if not TAG.fullmatch(tag):
        raise UsageError(f"{tag!r} is no tag: use letters, digits, '.', '_' and '-', and begin with a letter or digit")
    if any(entry.tag == tag for entry in read_manifest(folder)[1]) or _file(folder, tag).exists():
        raise UsageError(f"{folder} has weights {tag} already, which scenes may need: choose another tag")


def _file(folder: Path, tag: str) -> Path:
    return folder / f"{tag}.safetensors"


def _enter(folder: Path, entry: WeightsEntry, default: bool) -> None:
    known, entries = read_manifest(folder)
    if default:
        known = entry.tag
        entries = [replace(other, status="archived") if other.status == "preview" else other for other in entries]
    document = {"format": 1, "default": known, "entries": [each.to_dict() for each in (*entries, entry)]}
    write_file(folder / MANIFEST, (json.dumps(document, indent=2) + "\n").encode(), overwrite=True)


def sources_of(paths: Sequence[Path]) -> str:
    """Names of the data files, for the record."""
    return ", ".join(path.name for path in paths)
