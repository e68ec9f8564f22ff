"""Tab. 6: multiply-accumulates, parameters and seconds of the systems on 3 x 256 x 256.

    python examples/paper/tab6.py [--rounds 3] [--device auto] [--threads 1]

Seconds are of g_a ("encoding") and g_s ("decoding") alone, untrained, as in the paper: no entropy coding. What whole
files take is `ltchm bench speed`.
"""

from __future__ import annotations

import click

from ltchm_geo.benchmark.complexity import count_table
from ltchm_geo.benchmark.paper import paper_table
from ltchm_geo.benchmark.report_document import Table, number
from ltchm_geo.benchmark.speed_network import measure_systems


def seconds(rounds: int, device: str, threads: int) -> str:
    """Seconds here beside the paper's; the hardware differs, so look at the order."""
    rows = list(paper_table(6)["rows"])
    found = measure_systems([row["architecture"] for row in rows], device=device, threads=threads, rounds=rounds)
    cells = [
        [
            row["name"],
            *(number(row[key], 3) for key in ("encode_s", "decode_s")),
            *(
                f"{side.median:.3f} ({min(side.wall):.3f}-{max(side.wall):.3f})"
                for side in (speed.encode, speed.decode)
            ),
        ]
        for row, speed in zip(rows, found, strict=True)
    ]
    return Table(["s", "paper, RTX 3090: g_a", "g_s", f"{found[0].device}: g_a", "g_s"], cells).markdown()


@click.command()
@click.option("--rounds", default=3, show_default=True, help="0 leaves the times out.")
@click.option("--device", default="auto", show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(rounds: int, device: str, threads: int) -> None:
    """Count and measure, and print both tables beside the paper's."""
    counted = count_table(6)
    print(f"{counted.title}\n\n{counted.markdown()}")
    if rounds:
        print(f"\n{seconds(rounds, device, threads)}")


if __name__ == "__main__":
    main()
