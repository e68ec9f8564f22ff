"""Choices and odd JSON out of plain bytes, so that a fuzzer, hypothesis and a kept file all mean the same input."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

_T = TypeVar("_T")

ODD: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 3, 63, 64, 255, 256, 1024, 2**31 - 1, 2**31, 2**53, 2**63, 2**64, 10**400),
    *(0.5, -0.0, 1e308, -1e308, 5e-324, "NaN", "Infinity", "-Infinity", "", "a", "0", "\x00", "\ud800", "../x", "é"),
    *([], {}, [[]], [None], {"": {}}, [0] * 300, "x" * 3000, "uint8", "float64", "int16"),
)


class Draw:
    """Bytes that are used up from the front; zeros when there are none left."""

    def __init__(self, data: bytes):
        self._data, self._at = data, 0

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def number(self, limit: int) -> int:
        """A number below `limit`."""
        value = 0
        for _ in range(max(1, -(-(limit - 1).bit_length() // 8))):
            value = value << 8 | self.byte()
        return value % limit

    def one_of(self, options: Sequence[_T]) -> _T:
        return options[self.number(len(options))]

    def rest(self) -> bytes:
        found, self._at = self._data[self._at :], len(self._data)
        return found


def edited(document: Any, draw: Draw) -> Any:
    """A copy of a JSON document with up to four changes at places of any depth."""
    changed = json.loads(json.dumps(document))
    for _ in range(draw.number(5)):
        places = list(_places(changed))
        if not places:
            break
        _change(*draw.one_of(places), places, draw)
    return changed


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) below a node."""
    keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else []
    for key in keys:
        yield node, key
        yield from _places(node[key])


def _change(container: Any, key: Any, places: list[tuple[Any, Any]], draw: Draw) -> None:
    how = draw.number(6)
    if how == 0:
        del container[key]
    elif how == 1:
        other, other_key = draw.one_of(places)
        container[key] = copy.deepcopy(other[other_key]) if _holds(other, other_key) else None
    elif how == 2 and isinstance(container, dict):
        container[str(draw.one_of(ODD))] = copy.deepcopy(draw.one_of(ODD))
    elif how == 2:
        container.insert(key, copy.deepcopy(container[key]))
    elif how == 3 and type(container[key]) in (int, float) and abs(container[key]) < 2**64:
        container[key] += draw.one_of((-1, 1, -64, 64, 0.5, 1000))
    else:
        container[key] = copy.deepcopy(draw.one_of(ODD))


def _holds(container: Any, key: Any) -> bool:
    return key in container if isinstance(container, dict) else key < len(container)
