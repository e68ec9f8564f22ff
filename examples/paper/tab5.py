"""Tab. 5: multiply-accumulates and parameters of attention modules on 8 x 192 x 128 x 128.

python examples/paper/tab5.py
"""

from __future__ import annotations

import click

from ltchm_geo.benchmark.complexity import count_table


@click.command()
def main() -> None:
    """Count, and print the table beside the paper's."""
    counted = count_table(5)
    print(f"{counted.title}\n\n{counted.markdown()}")


if __name__ == "__main__":
    main()
