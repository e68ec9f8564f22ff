"""JSON as the format uses it: strict on the way in, compact and reproducible on the way out."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from typing import Any, overload

from .errors import UsageError

__all__ = [
    "decode_number",
    "dumps",
    "encode_number",
    "is_sha256",
    "is_whole",
    "jsonable",
    "loads",
    "require_integer",
    "require_keys",
    "require_list",
]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON. NaN and infinities are refused: write them with `encode_number`."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def loads(data: bytes) -> Any:
    """Parse JSON; ValueError on anything that is not plain JSON, duplicate keys and bare NaN included."""
    try:
        found = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("JSON is nested too deeply") from error
    if re.search(rb"\\u[dD][89a-fA-F]", data):
        dumps(found)  # half a surrogate pair, which only an escape can hide, is no text: nobody could print it
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a JSON object names a key twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"bare {name} is not JSON")


@overload
def encode_number(value: float) -> float | str: ...
@overload
def encode_number(value: float | None) -> float | str | None: ...
def encode_number(value: float | None) -> float | str | None:
    """A number as JSON can hold it: integers stay exact, non-finite floats become strings as in Zarr."""
    if value is None or isinstance(value, int) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def jsonable(value: Any) -> Any:
    """The same data with what JSON cannot hold as strings: paths, NaN, infinities."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, float):
        return encode_number(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def decode_number(value: Any) -> float | None:
    """Inverse of `encode_number`; ValueError on anything else. An integer, of 64 bits at most, comes back as int."""
    if value is None or isinstance(value, float) or is_whole(value):
        return value
    if isinstance(value, str) and value in _NON_FINITE:
        return _NON_FINITE[value]
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError("a whole number is beyond 64 bits")
    raise ValueError(f"{value!r} is not a number")


def is_whole(value: Any) -> bool:
    """Whether it is a whole number of at most 64 bits, which True is not."""
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**64


def is_sha256(value: Any) -> bool:
    """Whether it is a digest in lower-case hex."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def require_keys(found: Any, required: set[str], *, what: str) -> dict[str, Any]:
    """Check that `found` is an object with these keys and no others."""
    if not isinstance(found, dict):
        raise ValueError(f"{what} is not a JSON object")
    if missing := required - found.keys():
        raise ValueError(f"{what} lacks {', '.join(sorted(missing))}")
    if unknown := found.keys() - required:
        raise ValueError(f"{what} has unknown keys: {', '.join(sorted(unknown))}")
    return found


def require_list(value: Any, what: str) -> list[Any]:
    """`value` if it is a list; ValueError if not."""
    if not isinstance(value, list):
        raise ValueError(f"{what} is not a list")
    return value


def require_integer(value: Any, what: str) -> int:
    """`value` if it is a whole number, which True is not; `UsageError` (a ValueError) if not."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(f"{what} {value!r} is not a whole number")
    return value
