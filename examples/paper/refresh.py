"""Put the current tables into a document: what stands between `<!-- results:NAME -->` and `<!-- /results:NAME -->`.

python examples/paper/refresh.py [docs/paper.md] [RESULTS]
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parent))

import tab3
import tab4

from ltchm_geo.benchmark.complexity import count_parts, count_table

BLOCKS: dict[str, Callable[[Path], str]] = {
    "tab3": tab3.table,
    "tab4": lambda _: tab4.parameters(),
    "equal-budget": tab4.equal_budget,
    "tab5": lambda _: count_table(5).markdown(),
    "tab6": lambda _: count_table(6).markdown(),
    "parts": lambda _: count_parts().markdown(),
}


def refresh(text: str, results: Path) -> str:
    """The document with new blocks; a block that nobody knows is an error."""

    def block(found: re.Match[str]) -> str:
        name = found[1]
        if name not in BLOCKS:
            raise click.ClickException(f"unknown block {name!r}; there are {', '.join(BLOCKS)}")
        return f"<!-- results:{name} -->\n{BLOCKS[name](results)}\n<!-- /results:{name} -->"

    return re.sub(r"<!-- results:([\w-]+) -->.*?<!-- /results:\1 -->", block, text, flags=re.DOTALL)


@click.command()
@click.argument("document", type=click.Path(exists=True, path_type=Path), default=Path("docs/paper.md"))
@click.argument("results", type=click.Path(exists=True, path_type=Path), default=Path("benchmarks/results"))
def main(document: Path, results: Path) -> None:
    """Rewrite DOCUMENT."""
    document.write_text(refresh(document.read_text(encoding="utf-8"), results), encoding="utf-8")
    print(f"refreshed {document}")


if __name__ == "__main__":
    main()
