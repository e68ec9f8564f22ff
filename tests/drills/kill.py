"""Kill drill: compress, decompress and archive, killed with SIGKILL at random moments, and what is left behind.

    python tests/drills/kill.py --runs 160

After each kill: the final name is absent, or shows the old file as it was, or the new one, complete; the next run takes
what is left over and succeeds, and nothing else remains in the folder. Prints how many kills fell into which stage and
exits with 1 if any of that was not so. Every run is a fork of a process that has loaded everything and started no
thread, so kills hit work and not imports. Linux and macOS.
"""

from __future__ import annotations

import argparse
import hashlib
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
import ltchm_geo
from ltchm_geo import archive, compress, decompress, geotiff, inspection, zarr_codec
from ltchm_geo._resumable_sink import ResumableSink
from ltchm_geo._sink import DirectorySink, ZipSink
from ltchm_geo.engine import load_engine
from ltchm_geo.settings import CompressSettings
from ltchm_geo.timing import StageClock

DATA = Path(__file__).parents[1] / "data"
CROP = DATA / "coast_rotated_u8_nodata0.tif"
SHARDED: dict[str, Any] = {"tile_size": 128, "shard_tiles": 1}
OLD = b"an older scene"
_STAGE = mmap.mmap(-1, 16)  # shared with the children


def tell(stage: str) -> None:
    """Which stage a child is in, for its parent to read when it is dead."""
    _STAGE[:] = stage.encode()[:16].ljust(16)


def told() -> str:
    return _STAGE[:].decode().strip()


def cut_out(path: Path) -> Path:
    """A raster of two tiles by two: kills take many runs."""
    import rasterio

    with rasterio.open(CROP) as crop:
        window = rasterio.windows.Window(0, 0, 256, 256)
        with rasterio.open(path, "w", **{**crop.profile, "width": 256, "height": 256}) as out:
            out.write(crop.read(window=window))
    return path


def note_stages() -> None:
    """Let the clock of the pipeline, and the moment of truth of the sinks, tell the stage."""
    enter = StageClock.__call__

    def noted(self: StageClock, stage: str) -> Any:
        tell(stage)
        return enter(self, stage)

    StageClock.__call__ = noted  # type: ignore[method-assign]
    for sink in (ZipSink, DirectorySink, ResumableSink):

        def finish(self: Any, commit: Callable[[Any], None] = sink.commit) -> None:
            tell("finish")
            commit(self)
            tell("done")

        sink.commit = finish  # type: ignore[method-assign,assignment]
    publish = geotiff._publish

    def published(part: Path, path: Path) -> None:
        tell("finish")
        publish(part, path)
        tell("done")

    geotiff._publish = published


def fork(work: Callable[[], object]) -> int:
    """Begin work in a child; its process number."""
    tell("start")
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        sys.stderr = sys.stdout
        code = 0 if work() is not False else 3
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def succeeds(work: Callable[[], object]) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(fork(work), 0)[1]) == 0


class Drill:
    """One folder and one kind of work, killed again and again."""

    def __init__(self, folder: Path, name: str, old: bool = False):
        self.target, self.old = folder / "results" / name, old
        self.target.parent.mkdir(parents=True)
        self.source = cut_out(folder / "source.tif")
        self.prepare(folder)
        self.seconds = 0.0
        if not (self._whole_run() and succeeds(self.sound)):
            raise SystemExit(f"{self} failed though nobody killed it")

    def __str__(self) -> str:
        return f"{type(self).__name__.lower()} {self.target.suffix}{', over an old one' if self.old else ''}"

    def prepare(self, folder: Path) -> None:
        """What the work needs."""

    def work(self) -> object:
        """In a child: make the target."""
        raise NotImplementedError

    def sound(self) -> bool:
        """In a child: whether the target is complete."""
        return ltchm_geo.verify(self.target).ok  # hashes of all bytes; that these are right is others' to test

    def kill(self, dice: random.Random, late: bool) -> tuple[str, list[str]]:
        """One kill, at any time or while it finishes: the stage it fell into, and what was not as it should be."""
        for left in self.target.parent.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        if self.old:
            self._make_old()
        before = digest(self.target)
        child = fork(self.work)
        if late:
            last = time.monotonic() + 2 * self.seconds
            while told() not in ("finish", "done") and time.monotonic() < last:  # another thread may talk over it
                time.sleep(0.0005)
            time.sleep(dice.choice([0, 0.002, 0.01, 0.03]))
        else:
            time.sleep(dice.uniform(0, self.seconds))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        stage, wrong = told(), []
        if self.old and not self.target.exists():
            wrong.append("the old one is gone")
        if self.target.exists() and digest(self.target) != before and not succeeds(self.sound):
            wrong.append("the final name shows something incomplete")
        if not self._whole_run() or not succeeds(self.sound):
            wrong.append("the next run did not make it complete")
        if left := sorted(path.name for path in self.target.parent.rglob("*") if self.left_over(path)):
            wrong.append(f"the next run left {left}")
        return stage, wrong

    def _whole_run(self) -> bool:
        """Undisturbed; how long it takes says when to kill the next."""
        began = time.monotonic()
        done = succeeds(self.work)
        self.seconds = time.monotonic() - began
        return done

    def left_over(self, path: Path) -> bool:
        """Whether the next run should have cleared this away."""
        return path.parent == self.target.parent and path != self.target

    def _make_old(self) -> None:
        if self.target.suffix == ".zarr":
            self.target.mkdir()
            (self.target / "zarr.json").write_bytes(OLD)
        else:
            self.target.write_bytes(OLD)


class Compress(Drill):
    resume = False

    def work(self) -> object:
        return ltchm_geo.compress_raster(
            self.source, self.target, overwrite=True, overviews=(2,), resume=self.resume, **SHARDED
        )


class Resume(Compress):
    resume = True


class Decompress(Drill):
    def prepare(self, folder: Path) -> None:
        self.scene = folder / "scene.ltchm"
        if not succeeds(lambda: ltchm_geo.compress_raster(self.source, self.scene, **SHARDED)):
            raise SystemExit("compressing failed")

    def work(self) -> object:
        return ltchm_geo.decompress_raster(self.scene, self.target, overwrite=True)

    def sound(self) -> bool:
        import rasterio

        with rasterio.open(self.target) as restored, rasterio.open(self.source) as original:
            pixels = restored.read()
            return bool(pixels.shape == (original.count, *original.shape) and pixels.any(axis=(1, 2)).all())


class Archive(Drill):
    def work(self) -> object:
        sources = [self.source, DATA / "sar_s1_float64_db.tif"]
        return archive.compress_many(sources, self.target, CompressSettings(**SHARDED)).ok

    def sound(self) -> bool:
        scenes = list(self.target.rglob("*.ltchm"))
        return all(ltchm_geo.verify(scene).ok for scene in scenes)

    def left_over(self, path: Path) -> bool:
        return path.name.endswith(".part") or super().left_over(path)


def digest(path: Path) -> str:
    """Of all that lies under a name; of nothing, where there is nothing."""
    found = hashlib.sha256()
    for file in sorted([path, *path.rglob("*")]):
        if file.is_file():
            found.update(str(file.relative_to(path)).encode() + file.read_bytes())
    return found.hexdigest()


def main() -> int:
    """Kill; 1 where something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=160, help="kills of all kinds together")
    parser.add_argument("--late", type=float, default=0.25, help="share of kills while finishing, which is short")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for module in (archive, compress, decompress, inspection, zarr_codec):  # loaded before the first fork
        assert module.__name__
    load_engine()  # a run begins with its work, so that more kills hit that
    note_stages()
    dice, table, wrong = random.Random(options.seed), Counter[tuple[str, str]](), []
    with tempfile.TemporaryDirectory(prefix="ltchm-kill-") as name:
        folders = (Path(name) / str(number) for number in range(99))
        drills = [
            Compress(next(folders), f"scene{suffix}", old) for suffix in (".ltchm", ".zarr") for old in (False, True)
        ]
        drills += [Resume(next(folders), f"scene{suffix}") for suffix in (".ltchm", ".zarr")]
        drills += [Decompress(next(folders), "restored.tif", old) for old in (False, True)]
        drills += [Archive(next(folders), "archive")]
        for run in range(options.runs):
            drill = drills[run % len(drills)]
            stage, found = drill.kill(dice, dice.random() < options.late)
            table[str(drill), stage] += 1
            wrong += [f"{drill}, killed while {stage}: {what}" for what in found]
            print(f"{run + 1:4d} {drill}: killed while {stage}", *found, sep=" !! ", flush=True)
    stages = sorted({stage for _, stage in table})
    print("\n| killed while | " + " | ".join([*stages, "all"]) + " |\n" + "|---" * (len(stages) + 2) + "|")
    for label in sorted({label for label, _ in table}):
        row = [table[label, stage] for stage in stages]
        print(f"| {label} | " + " | ".join(map(str, [*row, sum(row)])) + " |")
    print(f"\n{options.runs} kills, {len(wrong)} rules broken", *wrong, sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
