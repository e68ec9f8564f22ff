"""A report as data: sections of paragraphs, tables, plots and pictures; and as Markdown.

Texts are plain: whoever renders them escapes them, so that a name in a result can say what it likes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ltchm_geo.benchmark.output import markdown_table

__all__ = [
    "Block",
    "Command",
    "Folded",
    "Heading",
    "Paragraph",
    "Picture",
    "Pictures",
    "Plots",
    "Section",
    "Table",
    "number",
    "to_markdown",
]


@dataclass(frozen=True)
class Heading:
    """Of a part of a section."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True)
class Command:
    """What to type."""

    text: str


@dataclass(frozen=True)
class Table:
    """Cells as text.

    Attributes
    ----------
    header, rows : the first column is aligned to the left, as are those of `texts`; the others to the right
    texts : further columns that hold words
    strong : rows to be emphasised
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: frozenset[int] = frozenset()
    strong: frozenset[int] = frozenset()

    def markdown(self) -> str:
        """As Markdown."""
        rows = [
            [f"**{_escape(cell)}**" if index in self.strong and cell else _escape(cell) for cell in row]
            for index, row in enumerate(self.rows)
        ]
        return markdown_table([_escape(cell) for cell in self.header], rows)


@dataclass(frozen=True)
class Plots:
    """SVG drawings, (drawing, what it shows); side by side where there is room."""

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Picture:
    """An image file to look at.

    Attributes
    ----------
    data, media : bytes of the file, and its type, such as ``image/png``
    title, caption : which it is; and what is to know about it
    """

    data: bytes
    media: str
    title: str
    caption: str


@dataclass(frozen=True)
class Pictures:
    """Pictures of the same place."""

    title: str
    items: Sequence[Picture]


@dataclass(frozen=True)
class Folded:
    """Details that most readers do not open."""

    title: str
    blocks: Sequence[Block]


Block: TypeAlias = Heading | Paragraph | Command | Table | Plots | Pictures | Folded


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Block]


def number(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """A figure with fixed digits; "-" where there is none."""
    return "-" if value is None or value != value else f"{value:{'+' if sign else ''}.{digits}f}"


def to_markdown(title: str, sections: Sequence[Section]) -> str:
    """Everything but plots and pictures, which it names."""
    parts = [f"# {_escape(title)}"]
    for section in sections:
        parts += [f"## {_escape(section.title)}", *_markdown(section.blocks)]
    return "\n\n".join(parts) + "\n"


def _markdown(blocks: Sequence[Block]) -> list[str]:
    parts: list[str] = []
    for block in blocks:
        match block:
            case Heading(text):
                parts.append(f"### {_escape(text)}")
            case Paragraph(text):
                parts.append(_escape(text))
            case Command(text):
                parts.append(f"```sh\n{text.replace('```', '')}\n```")
            case Table():
                parts.append(block.markdown())
            case Plots(items):
                names = "; ".join(_escape(caption) for _, caption in items)
                parts.append(f"*Plots, on the HTML page: {names}.*")
            case Pictures(name, items):
                rows = [(item.title, item.caption) for item in items]
                parts += [f"*{_escape(name)}; pictures on the HTML page:*", Table(("", ""), rows).markdown()]
            case Folded(name, inner):
                parts += [f"<details><summary>{_escape(name)}</summary>", *_markdown(inner), "</details>"]
    return parts


def _escape(text: str) -> str:
    """Plain text as Markdown shows it."""
    return re.sub(r"([\\`*_\[\]<>|~])", r"\\\1", " ".join(text.split())).replace("&", "&amp;")
