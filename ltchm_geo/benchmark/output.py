"""What benchmarks print and store: Markdown tables, and JSON files that are complete under their name."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ltchm_geo._json import jsonable
from ltchm_geo._sink import write_file

__all__ = ["markdown_table", "save_json"]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, padded so that it reads as text too; the first column is aligned to the left."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    first, *others = widths
    rule = ["-" * max(first, 3), *("-" * max(width - 1, 2) + ":" for width in others)]
    lines = [_line(header, widths), f"| {' | '.join(rule)} |", *(_line(row, widths) for row in rows)]
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (max(width, 3) for width in widths)
    padded = [cells[0].ljust(first), *(cell.rjust(width) for cell, width in zip(cells[1:], others, strict=True))]
    return f"| {' | '.join(padded)} |"


def save_json(path: str | os.PathLike[str], data: Mapping[str, Any]) -> Path:
    """Write `data` to `path`, replacing what is there only once all is written; NaN and infinities become strings."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(jsonable(data), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    write_file(path, text.encode(), overwrite=True)
    return path
