"""Constants and stored integer tables that turn mixture parameters into probabilities.

Normative part of the format: the encoder and every decoder must agree on each integer here. Nothing is recomputed at
run time; `load` reads the stored file and checks its SHA-256. `generate` says where the numbers come from.

One latent symbol has nine int16 parameters: three logits (1/256 natural-log units), three means (1/64) and three
log2-sigmas (1/16 octave). Its cumulative distribution over the buckets Y_MIN..Y_MAX is, in integers only:

    w_k    = softmax of the logits, summing to exactly 2**15
    Phi_k  = PHI interpolated at (boundary - mean_k) / sigma_k, in 0..2**24
    C      = sum_k(w_k * Phi_k) >> 15
    cum(b) = (C * (2**24 - 1024) >> 24) + (b - Y_MIN)

Invariants that the coder needs:

- C never falls when the boundary moves right: PHI never falls, linear interpolation with a floored fraction stays
  between its two ends, weights are not negative, and shifts are floors. So neither does its scaled part, and the added
  b - Y_MIN makes cum strictly increasing: every bucket has a frequency of at least 1.
- cum(Y_MIN) = 0 and cum(Y_MAX + 1) = 2**24 by definition; between them 1 <= cum(b) <= 2**24 - 1, so totals are exact.
- With 1024 buckets of at least 1, no bucket gets everything: frequency < 2**24.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from functools import cache
from importlib import resources
from os import PathLike
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ltchm_geo.errors import InvalidWeightsError, WeightsHashError

__all__ = [
    "EXP_CLAMP",
    "LS_MAX",
    "LS_MIN",
    "PHI_HALF",
    "PROB_BITS",
    "PROB_TOTAL",
    "TABLES_SHA256",
    "WEIGHT_BITS",
    "Y_BUCKETS",
    "Y_MAX",
    "Y_MIN",
    "Z_MAX",
    "Tables",
    "check_z_cdf",
    "fingerprint",
    "generate",
    "load",
    "save",
]

PROB_BITS = 24
PROB_TOTAL = 1 << PROB_BITS

Y_MIN, Y_MAX = -512, 511  # the end buckets mean "<= Y_MIN" and ">= Y_MAX"; the rest follows as an escape
Y_BUCKETS = Y_MAX - Y_MIN + 1
Z_MAX = 64  # z buckets are -Z_MAX..Z_MAX, again with escapes at both ends

WEIGHT_BITS = 15
EXP_CLAMP = 11 * 256  # eleven nats below the largest logit a weight is less than 2**-15, that is 0
LS_MIN, LS_MAX = -52, 144  # log2(sigma) in 1/16 octaves: sigma 0.105 to 512
PHI_HALF = 416  # 6.5 sigma in steps of 1/64 sigma; Phi(-6.5) * 2**24 is below 0.001, so clamping there is seamless

TABLES_SHA256 = "8febe444e897a11c7167e9d0ac54f8344e052ff8906e89c2d8313059840af6eb"
_FILE = "tables_v0.npz"
# 2**24 / sigma is below 2**28 and all other entries are at most 2**24: int32 holds every table.
_STORED = np.dtype("<i4")
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494")


@dataclass(frozen=True, eq=False)
class Tables:
    """The three integer tables, each a read-only one-dimensional int64 array.

    exp : (EXP_CLAMP + 1,), `exp[i]` = 2**24 * e**(-i / 256), falling from 2**24.
    phi : (2 * PHI_HALF + 1,), `phi[i]` = 2**24 * Phi((i - PHI_HALF) / 64), rising from 0 to 2**24.
    inv_sigma : (LS_MAX - LS_MIN + 1,), `inv_sigma[i]` = 2**24 / sigma = 2**(24 - (i + LS_MIN) / 16), below 2**28.
    """

    exp: NDArray[np.int64]
    phi: NDArray[np.int64]
    inv_sigma: NDArray[np.int64]


@cache
def load() -> Tables:
    """Read the stored tables and check their hash. Raises `WeightsHashError` if the installed file is damaged."""
    try:
        with (resources.files(__package__) / _FILE).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            tables = _frozen(stored["exp"], stored["phi"], stored["inv_sigma"])
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        raise WeightsHashError(f"probability tables {_FILE} cannot be read ({error}): reinstall ltchm_geo") from error
    if fingerprint(tables) != TABLES_SHA256:
        raise WeightsHashError(f"probability tables {_FILE} are not those of this format: reinstall ltchm_geo")
    return tables


def fingerprint(tables: Tables) -> str:
    """SHA-256 (hex) of exp, phi and inv_sigma in this order, as little-endian int32."""
    digest = hashlib.sha256()
    for table in (tables.exp, tables.phi, tables.inv_sigma):
        digest.update(table.astype(_STORED).tobytes())
    return digest.hexdigest()


def save(tables: Tables, path: str | PathLike[str]) -> None:
    """Write `tables` in the stored form. Only a new format version may change what is shipped."""
    arrays = {name: getattr(tables, name).astype(_STORED) for name in ("exp", "phi", "inv_sigma")}
    np.savez(path, **arrays)


def generate() -> Tables:
    """Compute the tables from their definitions, with 50 decimal digits: the same integers on every machine."""
    with localcontext() as context:
        context.prec = 50
        exp = _rounded(lambda i: (Decimal(-i) / 256).exp(), range(EXP_CLAMP + 1))
        upper = _rounded(lambda i: _normal_cdf(Decimal(i) / 64), range(PHI_HALF + 1))
        inv_sigma = _rounded(lambda i: Decimal(2) ** (Decimal(-i) / 16), range(LS_MIN, LS_MAX + 1))
    phi = np.concatenate([PROB_TOTAL - upper[:0:-1], upper])  # exactly symmetric about its middle, 2**23
    return _frozen(exp, phi, inv_sigma)


def check_z_cdf(z_cdf: NDArray[np.integer]) -> NDArray[np.int64]:
    """Check the cumulative tables of z, which come from a weights file.

    Parameters
    ----------
    z_cdf : (N, 2 * Z_MAX + 2) integers. Row c, column i is the cumulative frequency below bucket `i - Z_MAX` of channel
        c: first 0, last 2**24, strictly increasing.

    Returns
    -------
    (N, 2 * Z_MAX + 2) int64, a C-contiguous copy. Raises `InvalidWeightsError` if a rule above is broken.
    """
    z_cdf = np.asarray(z_cdf)
    if z_cdf.ndim != 2 or z_cdf.shape[1] != 2 * Z_MAX + 2 or z_cdf.dtype.kind not in "iu":
        raise InvalidWeightsError(
            f"z_cdf must be an integer array (channels, {2 * Z_MAX + 2}), not {z_cdf.dtype} {z_cdf.shape}: "
            "use a weights file exported for this format"
        )
    checked = np.array(z_cdf, dtype=np.int64, order="C")  # a copy: later changes to the caller's array are not ours
    # The range is checked too, so that neither the cast from uint64 nor the differences can have wrapped around.
    inside = (checked >= 0).all() and (checked <= PROB_TOTAL).all()
    ends = (checked[:, 0] == 0).all() and (checked[:, -1] == PROB_TOTAL).all()
    if not (inside and ends and (np.diff(checked) > 0).all()):
        raise InvalidWeightsError("z_cdf rows must rise strictly from 0 to 2**24: the weights file is damaged")
    return checked


def _normal_cdf(t: Decimal) -> Decimal:
    """Phi(t), t >= 0, as 1/2 + density(t) * (t + t**3/3 + t**5/15 + ...); all terms positive, so nothing cancels."""
    total, term, odd = t, t, 1
    while term > Decimal("1e-45"):
        odd += 2
        term = term * t * t / odd
        total += term
    return Decimal("0.5") + total * (-t * t / 2).exp() / (2 * _PI).sqrt()


def _rounded(function: Callable[[int], Decimal], arguments: range) -> NDArray[np.int64]:
    scaled = (function(i) * PROB_TOTAL for i in arguments)
    return np.array([int(x.to_integral_value(ROUND_HALF_EVEN)) for x in scaled], dtype=np.int64)


def _frozen(*arrays: NDArray[np.integer]) -> Tables:
    wide = [array.astype(np.int64) for array in arrays]
    for array in wide:
        array.flags.writeable = False
    return Tables(*wide)
