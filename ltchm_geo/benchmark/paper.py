"""The paper's printed numbers: `benchmarks/paper.toml` of the repository, as data."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from ltchm_geo.errors import UsageError

__all__ = ["PAPER", "paper_table"]

PAPER = Path(__file__).parents[2] / "benchmarks" / "paper.toml"


@cache
def paper_table(number: int) -> dict[str, Any]:
    """Table 3, 4, 5 or 6: its "title", and its "rows" with the keys that the file itself explains.

    Raises
    ------
    UsageError
        The package was installed without its repository, which keeps the file.
    """
    if not PAPER.is_file():
        raise UsageError(
            f"{PAPER} is missing; the paper's tables need the repository: pip install -e . in a clone of it"
        )
    found: dict[str, Any] = tomllib.loads(PAPER.read_text(encoding="utf-8"))[f"tab{number}"]
    return found
