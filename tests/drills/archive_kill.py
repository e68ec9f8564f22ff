"""Archive drill: many scenes on a cluster of worker processes, everything killed with SIGKILL again and again.

    python tests/drills/archive_kill.py
    python tests/drills/archive_kill.py --scenes 200 --kills 20 --side 512 --sources /data/images --work /scratch/drill

Scenes are random crops. Each life of the archive is a session of its own: client, scheduler and workers die together at
a random moment, and the next life is the same call again. At the end: every scene is there once, decodes, and equals
what compressing it alone gives; nothing else is left; and a scene costs as much CPU time late as early. Prints a table
and exits with 1 if any of that was not so. Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LTCHM_DEBUG", "1")
DATA = Path(__file__).parents[1] / "data"
SETTINGS: dict[str, Any] = {"quality": 30, "shard_tiles": 1, "overviews": (2,)}
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


# --- the archive: one life -------------------------------------------------------------------------------------------


def live(images: str, out: str, workers: int, at_once: int, verify: bool) -> None:
    """What the child does: the whole archive, telling each event on standard output."""
    from ltchm_geo.archive import ArchiveEvent, compress_many
    from ltchm_geo.settings import CompressSettings

    def tell(event: ArchiveEvent) -> None:
        line = {
            "kind": event.kind,
            "result": event.scene.result,
            "state": event.scene.state,
            "error": event.scene.error,
        }
        with whole_lines:
            print(json.dumps(line), flush=True)

    whole_lines = threading.Lock()
    with contextlib.ExitStack() as stack:
        client = None
        if workers:
            from distributed import Client, LocalCluster

            local = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0")
            client = stack.enter_context(Client(stack.enter_context(local)))
        settings = CompressSettings(**SETTINGS, verify=verify)
        report = compress_many([images], out, settings, scenes=at_once, client=client, on_event=tell)
        print(json.dumps({"kind": "report", "ok": report.ok}), flush=True)


# --- the drill -------------------------------------------------------------------------------------------------------


@dataclass
class Life:
    """One run of the archive, as seen from outside."""

    killed: str = "-"
    wall: float = 0.0
    cpu: float = 0.0  # of client and workers once all of them have started and made a scene, for
    measured: int = 0  # so many scenes
    made: list[str] = field(default_factory=list)
    shards_left: int = 0
    ok: bool | None = None


def cut_crops(sources: list[Path], folder: Path, count: int, side: int, chance: random.Random) -> None:
    """Random windows of the sources, in a few sub-folders."""
    import rasterio

    for number in range(count):
        with rasterio.open(chance.choice(sources)) as source:
            height, width = min(side, source.height), min(side, source.width)
            row, column = chance.randint(0, source.height - height), chance.randint(0, source.width - width)
            window = rasterio.windows.Window(column, row, width, height)
            profile = {key: source.profile[key] for key in ("count", "dtype", "crs", "nodata")}
            path = folder / f"{number % 5}" / f"{number:04}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            transform = source.window_transform(window)
            with rasterio.open(
                path, "w", driver="GTiff", height=height, width=width, transform=transform, **profile
            ) as crop:
                crop.write(source.read(window=window))


def cpu_of_group(group: int) -> float:
    """CPU seconds so far of all processes of a group that live, and of those they waited for."""
    spent = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                spent += sum(map(int, fields[11:15])) / CLOCK_TICKS
    return spent


def run_life(command: list[str], kill_after: int | None, delay: float, warm: int) -> Life:
    """Start the archive; kill it `delay` seconds after so many scenes were finished in this life. None: let it end.

    CPU time is counted from the scene number `warm` on.
    """
    life, began, first = Life(), time.monotonic(), 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            event = json.loads(line)
            if event["kind"] == "end" and event["state"] == "done":
                life.made.append(event["result"])
                if len(life.made) == warm:  # importing and compiling is behind them
                    first = cpu_of_group(child.pid)
                elif len(life.made) > warm:
                    life.cpu, life.measured = cpu_of_group(child.pid) - first, len(life.made) - warm
            elif event["kind"] in ("end", "retry"):
                print(f"  {event['result']}: {event['state']}: {event['error']}", flush=True)
            elif event["kind"] == "report":
                life.ok = event["ok"]
            if kill_after is not None and len(life.made) >= kill_after and (kill_after == 0 or event["kind"] == "end"):
                time.sleep(delay)
                os.killpg(child.pid, signal.SIGKILL)
                life.killed = f"{delay:.1f} s after {kill_after}"
                break
        # What it still said before it died; the last line may be half of one.
        said = [json.loads(line) for line in child.stdout if line.endswith("\n")]
        life.made += [event["result"] for event in said if (event["kind"], event.get("state")) == ("end", "done")]
        child.wait()
    while group_lives(child.pid):
        time.sleep(0.05)
    life.wall = time.monotonic() - began
    return life


def group_lives(group: int) -> bool:
    """Whether any process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def check(images: Path, out: Path, lives: list[Life], work: Path) -> list[str]:
    """What is wrong."""
    from ltchm_geo import compress_raster, verify
    from ltchm_geo.archive.journal import Journal

    expected = {p.relative_to(images).with_suffix(".ltchm").as_posix(): p for p in images.rglob("*.tif")}
    found = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    extra = found - expected.keys() - {"journal.sqlite", "manifest.csv", "manifest.json"}
    problems = [f"{name} is lost" for name in sorted(expected.keys() - found)] + [
        f"{name} is left over" for name in extra
    ]
    told = Counter(name for life in lives for name in life.made)
    problems += [f"{name} was finished {count} times" for name, count in told.items() if count > 1]
    with Journal(out / "journal.sqlite", str(out)) as journal:
        states = {scene.result: scene.state for scene in journal.scenes()}
    problems += [f"the journal says {name} is {state}" for name, state in states.items() if state != "done"]
    if states.keys() != expected.keys():
        problems.append(f"the journal has {len(states)} scenes")
    alone = work / "alone.ltchm"
    for name in sorted(expected.keys() & found):
        if not verify(out / name, deep=True).ok:
            problems.append(f"{name} is damaged")
        compress_raster(expected[name], alone, resume=True, overwrite=True, **SETTINGS)
        if not filecmp.cmp(alone, out / name, shallow=False):
            problems.append(f"{name} differs from the same scene compressed alone")
    return problems


def main() -> int:
    """Run the drill."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2, help="worker processes; 0 for threads of one process")
    parser.add_argument("--at-once", type=int, default=2, help="scenes in work at once")
    parser.add_argument("--side", type=int, default=512, help="of a crop, in pixels")
    parser.add_argument("--sources", type=Path, default=DATA, help="folder of GeoTIFFs to cut crops from")
    parser.add_argument("--work", type=Path, help="where to work; a temporary folder unless given")
    parser.add_argument("--verify", action="store_true", help="verify each scene after writing")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--live", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.live:
        live(*options.live, options.workers, options.at_once, options.verify)
        return 0
    chance = random.Random(options.seed)
    work = Path(tempfile.mkdtemp(prefix="drill-")) if options.work is None else options.work
    images, out = work / "images", work / "archive"
    for folder in (images, out):
        shutil.rmtree(folder, ignore_errors=True)
    cut_crops(sorted(options.sources.glob("*.tif")), images, options.scenes, options.side, chance)
    command = [sys.executable, __file__, "--live", str(images), str(out), "--workers", str(options.workers)]
    command += ["--at-once", str(options.at_once), *(["--verify"] if options.verify else [])]

    lives: list[Life] = []
    share, warm = options.scenes / (options.kills + 1), 1 + options.workers
    for _ in range(options.kills):
        # Now and then in the middle of starting, and otherwise anywhere in a scene.
        kill_after = 0 if chance.random() < 0.1 else max(1, round(chance.uniform(0.5, 1.4) * share))
        left = options.scenes - sum(len(life.made) for life in lives)
        lives.append(run_life(command, min(kill_after, max(left - 1, 0)), chance.uniform(0, 2), warm))
        lives[-1].shards_left = sum(1 for p in out.rglob("*.part/*/*/c/**/*") if p.is_file())
        tell(len(lives), lives[-1], options.scenes - sum(len(life.made) for life in lives))
    lives.append(run_life(command, None, 0, warm))
    tell(len(lives), lives[-1], options.scenes - sum(len(life.made) for life in lives))
    return summarise(lives, check(images, out, lives, work), options.kills)


def tell(number: int, life: Life, left: int) -> None:
    """A row of the table."""
    if number == 1:
        print("life  killed              wall s  made  left  CPU s/scene  shards kept for the next life")
    each = f"{life.cpu / life.measured:.2f}" if life.measured else "-"
    print(
        f"{number:4}  {life.killed:18}  {life.wall:6.1f}  {len(life.made):4}  {left:4}  {each:>11}",
        f" {life.shards_left:4}",
        flush=True,
    )


def summarise(lives: list[Life], problems: list[str], kills: int) -> int:
    """Print what it comes to; the exit code."""
    busy = [life for life in lives if life.measured]
    halves = busy[: len(busy) // 2], busy[len(busy) // 2 :]
    costs = [sum(life.cpu for life in half) / max(1, sum(life.measured for life in half)) for half in halves]
    print(f"killed {kills} times; {sum(len(life.made) for life in lives)} scenes told of when they were finished")
    print(f"CPU seconds per scene: {costs[0]:.2f} in the first half of the lives, {costs[1]:.2f} in the second")
    for problem in problems:
        print(f"WRONG: {problem}")
    print(
        "WRONG" if problems or not lives[-1].ok else "every scene is there once, verifies, and equals itself made alone"
    )
    return 1 if problems or not lives[-1].ok else 0


if __name__ == "__main__":
    sys.exit(main())
