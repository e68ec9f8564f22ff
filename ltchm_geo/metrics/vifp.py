"""Visual information fidelity, pixel domain (VIFp; Sheikh and Bovik, 2006, the authors' multi-scale version).

The same computation as `sewar.vifp`, with separable filters, which is many times faster. In double precision: the local
variances are differences of nearly equal numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._blur import blur

if TYPE_CHECKING:
    import torch

__all__ = ["MIN_SIDE", "vifp"]

MIN_SIDE = 41  # the windows must still fit after three halvings

_NOISE = 2.0  # variance of the visual noise, for pixels in 0..255
_EPSILON = 1e-10
_WINDOWS = (17, 9, 5, 3)  # one for each scale; standard deviation is a fifth


def vifp(reference: NDArray[Any], test: NDArray[Any], peak: float = 255.0) -> float:
    """Information about the reference that the test still holds: 1 for equal images.

    Needs some 110 bytes of memory for each pixel of a band.

    Parameters
    ----------
    reference, test : (bands, h, w) or (h, w) arrays of one shape, at least 41 x 41 pixels
    peak : float
        Range of the data. The measure is made for 0..255, other ranges are scaled to it.

    Returns
    -------
    Mean over the bands; NaN if the reference has a band without any contrast. Above 1 where contrast was enhanced.

    Raises
    ------
    ValueError
        If shapes differ or are too small.
    """
    import torch

    if reference.shape != test.shape:
        raise ValueError(f"the reference is {reference.shape}, the test {test.shape}")
    if min(reference.shape[-2:]) < MIN_SIDE:
        raise ValueError(f"VIFp needs at least {MIN_SIDE} x {MIN_SIDE} pixels, not {reference.shape[-2:]}")
    bands = zip(*(np.reshape(image, (-1, *image.shape[-2:])) for image in (reference, test)), strict=True)
    with torch.inference_mode():
        return float(np.mean([_band(*(_scaled(pixels, peak) for pixels in pair)) for pair in bands]))


def _scaled(pixels: NDArray[Any], peak: float) -> torch.Tensor:
    import torch

    return torch.from_numpy(pixels.astype(np.float64) * (255.0 / peak))


def _band(reference: torch.Tensor, test: torch.Tensor) -> float:
    kept = present = 0.0
    for scale, size in enumerate(_WINDOWS):
        if scale:
            reference, test = (blur(image, size, size / 5)[::2, ::2] for image in (reference, test))
        more_kept, more_present = _information(reference, test, size)
        kept, present = kept + more_kept, present + more_present
    return kept / present if present else float("nan")


def _information(reference: torch.Tensor, test: torch.Tensor, size: int) -> tuple[float, float]:
    """Information in the test about the reference, and in the reference itself, at one scale."""
    import torch

    mean_r, mean_t = blur(reference, size, size / 5), blur(test, size, size / 5)
    var_r = (blur(reference * reference, size, size / 5) - mean_r * mean_r).clamp_(min=0)
    var_t = (blur(test * test, size, size / 5) - mean_t * mean_t).clamp_(min=0)
    covariance = blur(reference * test, size, size / 5) - mean_r * mean_t
    # The test is seen as gain * reference + distortion, in each window.
    gain = covariance / (var_r + _EPSILON)
    distortion = var_t - gain * covariance
    flat_r, flat_t = var_r < _EPSILON, var_t < _EPSILON
    gain[flat_r | flat_t] = 0
    distortion = torch.where(flat_r, var_t, distortion).masked_fill_(flat_t, 0)
    var_r[flat_r] = 0
    distortion = torch.where(gain < 0, var_t, distortion).clamp_(min=_EPSILON)
    gain.clamp_(min=0)
    kept = torch.log10(1 + gain * gain * var_r / (distortion + _NOISE)).sum()
    return float(kept), float(torch.log10(1 + var_r / _NOISE).sum())
