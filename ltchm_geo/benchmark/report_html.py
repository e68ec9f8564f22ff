"""A report as one HTML page that needs nothing else: no script, no font, no file, no network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from ltchm_geo.benchmark.report_document import (
    Block,
    Command,
    Folded,
    Heading,
    Paragraph,
    Picture,
    Pictures,
    Plots,
    Section,
    Table,
)

__all__ = ["to_html"]

_STYLE = """
:root { color-scheme: light dark; --page: #fff; --text: #1c2128; --soft: #59636e; --line: #d5dae0; --fill: #f3f5f7;
  --accent: #b8430a; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --text: #e4e7eb; --soft: #9aa4af; --line: #343b44;
  --fill: #1d2229; --accent: #ff9a5c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem clamp(0.8rem, 3vw, 2.5rem) 4rem; background: var(--page);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 1rem 0 0.5rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 0.6rem; padding-top: 0.6rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.6rem 0 0.3rem; }
p { max-width: 50rem; margin: 0.6rem 0; }
nav { font-size: 0.9rem; display: flex; flex-wrap: wrap; gap: 0.2rem 1.2rem; }
a { color: var(--accent); }
.wide { overflow-x: auto; margin: 0.8rem 0; }
table { border-collapse: collapse; font-size: 0.88rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { vertical-align: bottom; color: var(--soft); font-weight: 600; white-space: normal; min-width: 4.6rem; }
th:first-child, td:first-child, .words { text-align: left; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--page); }
td.words { white-space: normal; min-width: 14rem; overflow-wrap: anywhere; }
tr.strong td { font-weight: 650; color: var(--accent); }
tbody tr:hover { background: var(--fill); }
pre { background: var(--fill); padding: 0.6rem 0.8rem; overflow-x: auto; font-size: 0.85rem; }
details { margin: 0.8rem 0; border-left: 3px solid var(--line); padding-left: 0.8rem; }
summary { cursor: pointer; color: var(--soft); }
figure { margin: 0; }
figcaption { font-size: 0.85rem; color: var(--soft); }
figcaption b { color: var(--text); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1.2rem; }
.plots svg { width: 100%; height: auto; overflow: visible; }
.plots svg text { font-family: system-ui, sans-serif !important; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(46%, 12rem), 1fr)); gap: 0.8rem; }
.pictures img { width: 100%; height: auto; display: block; image-rendering: pixelated; }
@media print { :root { color-scheme: light; --page: #fff; --text: #000; --soft: #444; --line: #bbb; --fill: #f3f3f3;
  --accent: #8a3000; } body { font-size: 9.5pt; max-width: none; padding: 0; } nav { display: none; }
  table { font-size: 7.5pt; } th, td { padding: 0.1rem 0.4rem; } h2 { break-after: avoid; }
  tr, figure { break-inside: avoid; } .wide { overflow: visible; } details::details-content {
  content-visibility: visible; height: auto; } .plots { grid-template-columns: repeat(2, 1fr); } }
"""


def to_html(title: str, sections: Sequence[Section]) -> str:
    """The page; every text in it is escaped, SVG drawings are taken as they are."""
    links = "".join(f'<a href="#s{i}">{escape(section.title)}</a>' for i, section in enumerate(sections))
    body = "".join(
        f'<section id="s{i}"><h2>{escape(section.title)}</h2>{_blocks(section.blocks)}</section>\n'
        for i, section in enumerate(sections)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1><nav>{links}</nav>\n{body}</body></html>\n"
    )


def _blocks(blocks: Sequence[Block]) -> str:
    return "\n".join(_block(block) for block in blocks)


def _block(block: Block) -> str:
    match block:
        case Heading(text):
            return f"<h3>{escape(text)}</h3>"
        case Paragraph(text):
            return f"<p>{escape(text)}</p>"
        case Command(text):
            return f"<pre><code>{escape(text)}</code></pre>"
        case Table():
            return _table(block)
        case Plots(items):
            figures = (f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>" for svg, caption in items)
            return f'<div class="plots">{"".join(figures)}</div>'
        case Pictures(title, pictures):
            return f'<p>{escape(title)}</p><div class="pictures">{"".join(map(_picture, pictures))}</div>'
        case Folded(title, inner):
            return f"<details><summary>{escape(title)}</summary>{_blocks(inner)}</details>"


def _table(table: Table) -> str:
    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(_tag(tag, cell, "words" if i in table.texts else "") for i, cell in enumerate(map(escape, row)))

    rows = (_tag("tr", cells("td", row), "strong" if i in table.strong else "") for i, row in enumerate(table.rows))
    head = f"<thead><tr>{cells('th', table.header)}</tr></thead>"
    return f'<div class="wide"><table>{head}<tbody>\n{"".join(rows)}</tbody></table></div>'


def _tag(tag: str, content: str, kind: str) -> str:
    return f'<{tag} class="{kind}">{content}</{tag}>' if kind else f"<{tag}>{content}</{tag}>"


def _picture(picture: Picture) -> str:
    source = f"data:{picture.media};base64,{base64.b64encode(picture.data).decode()}"
    return (
        f'<figure><img src="{source}" alt="{escape(picture.title)}">'
        f"<figcaption><b>{escape(picture.title)}</b> {escape(picture.caption)}</figcaption></figure>"
    )
