"""Figures and tables as plain text that reads well in a terminal and in a log file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_MORE = 40


def size(count: int | None) -> str:
    """Bytes for people: 512 bytes, 1.23 MB, 45.6 GB."""
    if count is None:
        return "unknown"
    if count < 1000:
        return f"{count} bytes"
    value, units = count / 1000, ["kB", "MB", "GB", "TB", "PB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        del units[0]
    return f"{value:.3g} {units[0]}" if value < 99.95 else f"{value:.0f} {units[0]}"


def duration(seconds: float) -> str:
    """Seconds for people: 0.42 s, 12.3 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 99.5:
        return f"{seconds:.2f} s" if seconds < 9.95 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def number(value: float | None, digits: int = 2) -> str:
    """A figure with fixed digits; "-" where there is none."""
    return "-" if value is None or value != value else f"{value:.{digits}f}"


def exact(value: float) -> str:
    """A number with all its digits: 5, -9999999, 0.1."""
    return repr(value).removesuffix(".0")


def printable(text: str) -> str:
    """Text from a file as a terminal may have it: control characters could move the cursor or hide what is there."""
    return "".join(character if character.isprintable() else "?" for character in text)


def counted(count: int, noun: str) -> str:
    """1 tile, 2 tiles."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def shorten(text: str, width: int) -> str:
    """Text on one line, at most `width` characters."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= width else line[: width - 3] + "..."


def crs_name(wkt: str | None) -> str | None:
    """Code and name of a CRS from its WKT, without a library that knows what they mean."""
    if wkt is None:
        return None
    name = re.search(r'"((?:[^"]|"")*)"', wkt)
    code = re.search(r'ID\["(\w+)",\s*"?(\w+)"?\]\]\s*$', wkt)
    label = shorten(name.group(1), 50) if name else "unnamed"
    return f"{code.group(1)}:{code.group(2)}, {label}" if code else label


def facts(rows: Iterable[tuple[str, str | None]]) -> str:
    """Names and values under each other, without those that have no value."""
    present = [(name, printable(value)) for name, value in rows if value]
    width = max((len(name) for name, _ in present), default=0)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in present)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,)) -> str:
    """A table without lines; columns not among `left` are aligned to the right. Long ones end with a count."""
    shown = [list(map(printable, row)) for row in (header, *rows[:_MORE])]
    widths = [max(len(row[column]) for row in shown) for column in range(len(header))]
    lines = []
    for row in shown:
        cells = (
            text.ljust(w) if column in left else text.rjust(w)
            for column, (text, w) in enumerate(zip(row, widths, strict=True))
        )
        lines.append(("  " + "  ".join(cells)).rstrip())
    if len(rows) > _MORE:
        lines.append(f"  ... and {len(rows) - _MORE} more; --json lists them all")
    return "\n".join(lines)
