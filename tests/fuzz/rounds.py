"""Fuzz all targets in turn, one process at a time, and keep count.

    nice -n 19 python tests/fuzz/rounds.py --minutes 60 --each 60 --table fuzz.json

Every target gets `--each` seconds a round until the time is up. `--table` holds, per target, seconds, executions,
edges covered, inputs found and inputs that broke something; it is updated after each turn and continued by the next
run. A target that breaks stays in the rounds, and its inputs beside this file.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SLOW = {"network", "latents", "scene", "command_line", "stored_preview"}  # whole files and networks: more time
sys.path[:0] = [str(HERE), str(HERE.parent)]


def turn(name: str, seconds: int) -> dict[str, Any]:
    """One target for some time."""
    crashes = len(list(HERE.glob(f"crash-{name}-*")))
    command = [sys.executable, "-W", "ignore", str(HERE / "fuzz.py"), name]
    options = [f"-max_total_time={seconds}", "-print_final_stats=1"]
    began = time.monotonic()
    done = subprocess.run([*command, *options], capture_output=True, text=True, errors="replace", check=False)
    executed = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    covered = re.findall(r"cov: (\d+)", done.stderr)
    if executed is None or done.returncode:
        print(f"--- {name}: exit code {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-500:]}", flush=True)
    return {
        "seconds": time.monotonic() - began,
        "executions": int(executed[1]) if executed else 0,
        "covered": max(map(int, covered), default=0),
        "found": len(list((HERE / "found" / name).iterdir())),
        "broken": len(list(HERE.glob(f"crash-{name}-*"))) - crashes,
    }


def main() -> None:
    """Rounds until the time is up."""
    import program_targets  # noqa: F401
    import scene_targets  # noqa: F401
    from targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--each", type=int, default=60)
    parser.add_argument("--table", type=Path, default=HERE / "found" / "table.json")
    parser.add_argument("targets", nargs="*", default=list(TARGETS))
    options = parser.parse_args()
    options.table.parent.mkdir(exist_ok=True)
    table = json.loads(options.table.read_text()) if options.table.exists() else {}
    end = time.monotonic() + 60 * options.minutes
    while time.monotonic() < end:
        for name in options.targets:
            found = turn(name, options.each * (2 if name in SLOW else 1))
            before = table.get(name, dict.fromkeys(found, 0))
            summed = {key: before[key] + found[key] for key in ("seconds", "executions", "broken")}
            table[name] = {**found, **summed, "covered": max(before["covered"], found["covered"])}
            options.table.write_text(json.dumps(table, indent=1))
            if time.monotonic() > end:
                break


if __name__ == "__main__":
    main()
