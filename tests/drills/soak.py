"""Soak: compress, read, serve, restore and verify with random settings for as long as asked, watching for leaks.

    python tests/drills/soak.py --minutes 60

Every turn also does something that fails (a damaged scene, a destination that exists): errors must leak no more than
successes. Prints a line per `--every` turns and, at the end, a table; exits with 1 where memory, open files, threads or
temporary files have grown since the warm-up. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import random
import shutil
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ltchm_geo
from ltchm_geo.errors import LtchmError
from ltchm_geo.server import SceneServer

CROPS = sorted((Path(__file__).parents[1] / "data").glob("*.tif"))
WARM_UP = 0.2  # of the time: kernels are compiled, caches and pools filled
MAX_GROWTH_MIB = 64  # of memory from the end of the warm-up on; caches still fill a little


@dataclass(frozen=True)
class Usage:
    """What the process holds."""

    rss_mib: float
    files: int
    threads: int
    temporary: int

    @classmethod
    def now(cls, folder: Path) -> Usage:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        task = Path("/proc/self")
        return cls(
            pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
            len(list((task / "fd").iterdir())),
            len(list((task / "task").iterdir())),
            sum(1 for _ in folder.rglob("*")),
        )


@contextlib.contextmanager
def serving(path: Path) -> Iterator[SceneServer]:
    with contextlib.closing(SceneServer([path], device="cpu")) as server:
        loop, stop = asyncio.new_event_loop(), asyncio.Event()
        thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve(stop)))
        thread.start()
        try:
            yield server
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()


class Turn:
    """One scene from its making to its end."""

    def __init__(self, dice: random.Random, folder: Path):
        self._dice, self._folder = dice, folder
        self._source = dice.choice(CROPS)
        self._scene = folder / ("scene" + dice.choice([".ltchm", ".zarr"]))

    def run(self) -> list[str]:
        """Compress, then three to five of the other things in any order; their names."""
        self._compress()
        others = [self._restore, self._windows, self._array, self._serve, self._verify, self._compare, self._picture]
        chosen = [*self._dice.sample(others, self._dice.randint(3, 5)), self._fail]
        for action in chosen:
            action()
        return [action.__name__.lstrip("_") for action in [self._compress, *chosen]]

    def _compress(self) -> None:
        ltchm_geo.compress_raster(
            self._source,
            self._scene,
            quality=self._dice.randint(1, 100),
            tile_size=self._dice.choice([128, 256]),
            shard_tiles=self._dice.choice([None, 1, 2, 4]),
            overviews=self._dice.choice([None, False, (2,), (2, 4)]),
            preview=self._dice.choice([None, True]),
            measure=self._dice.random() < 0.3,
            workers=self._dice.choice([None, 1, 3]),
            device="cpu",
        )

    def _restore(self) -> None:
        ltchm_geo.decompress_raster(self._scene, self._folder / "restored.tif", overwrite=True, device="cpu")

    def _windows(self) -> None:
        with ltchm_geo.rasterio_open(self._scene) as dataset:
            for _ in range(4):
                row, column = self._dice.randrange(dataset.height), self._dice.randrange(dataset.width)
                rows, columns = (row, min(row + 90, dataset.height)), (column, min(column + 90, dataset.width))
                dataset.read(1, window=(rows, columns))

    def _array(self) -> None:
        with ltchm_geo.open(self._scene) as scene:
            for name in list(scene.data_vars)[:2]:
                scene[name].isel(y=slice(0, 50), x=slice(0, 50)).load()

    def _serve(self) -> None:
        with serving(self._scene) as server:
            (served,) = server.scenes
            for _ in range(3):
                first = self._dice.randrange(4096)
                request = urllib.request.Request(served.url, headers={"Range": f"bytes={first}-{first + 50_000}"})
                with urllib.request.urlopen(request) as answer:
                    answer.read()

    def _verify(self) -> None:
        if not ltchm_geo.verify(self._scene, deep=self._dice.random() < 0.5).ok:
            raise AssertionError(f"{self._scene} of {self._source} does not verify")

    def _compare(self) -> None:
        ltchm_geo.decompress_raster(self._scene, self._folder / "restored.tif", overwrite=True, device="cpu")
        ltchm_geo.compare_rasters(self._source, self._folder / "restored.tif")

    def _picture(self) -> None:
        ltchm_geo.preview(self._scene, self._dice.choice([64, 300]), device="cpu")
        ltchm_geo.footprint(self._scene)

    def _fail(self) -> None:
        """A destination that exists; a scene with one byte changed, which is noticed or lies where nothing is read."""
        with contextlib.suppress(LtchmError):
            ltchm_geo.compress_raster(self._source, self._scene, device="cpu")
        damaged = self._folder / f"damaged{self._scene.suffix}"
        (shutil.copytree if self._scene.is_dir() else shutil.copyfile)(self._scene, damaged)
        file = self._dice.choice(sorted(p for p in [damaged, *damaged.rglob("*")] if p.is_file() and p.stat().st_size))
        data = bytearray(file.read_bytes())
        data[self._dice.randrange(len(data))] ^= 1 << self._dice.randrange(8)
        file.write_bytes(data)
        with contextlib.suppress(LtchmError):
            ltchm_geo.decompress_raster(damaged, self._folder / "a.tif", device="cpu", overwrite=True)


def soak(minutes: float, seed: int, every: int) -> dict[str, Any]:
    """Turns until the time is up; usage after the warm-up and at the end."""
    dice, counts, turns = random.Random(seed), Counter[str](), 0
    began = time.monotonic()
    start, series = None, []
    with tempfile.TemporaryDirectory(prefix="ltchm-soak-") as name:
        # GDAL's and Python's own temporary files would lie here too.
        os.environ["TMPDIR"] = tempfile.tempdir = name
        while (elapsed := time.monotonic() - began) < 60 * minutes:
            folder = Path(name) / "turn"
            folder.mkdir()
            counts.update(Turn(dice, folder).run())
            shutil.rmtree(folder)
            turns += 1
            if start is None and elapsed > WARM_UP * 60 * minutes:
                start = Usage.now(Path(name))
            if turns % every == 0:
                series.append(Usage.now(Path(name)))
                print(f"{elapsed / 60:6.1f} min {turns:6d} turns {series[-1]}", flush=True)
        end = Usage.now(Path(name))
    return {"turns": turns, "counts": dict(counts), "start": start or end, "end": end}


def main() -> int:
    """Run; 1 where something has grown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=20, help="turns between two lines")
    options = parser.parse_args()
    found = soak(options.minutes, options.seed, options.every)
    start, end = found["start"], found["end"]
    print(f"\n{found['turns']} turns: {found['counts']}\n")
    print("| | after warm-up | at the end |\n|---|---|---|")
    for what, before, after in (
        ("memory (RSS), MiB", f"{start.rss_mib:.0f}", f"{end.rss_mib:.0f}"),
        ("open files", start.files, end.files),
        ("threads", start.threads, end.threads),
        ("temporary files", start.temporary, end.temporary),
    ):
        print(f"| {what} | {before} | {after} |")
    grown = end.rss_mib - start.rss_mib > MAX_GROWTH_MIB or any(
        getattr(end, name) > getattr(start, name) for name in ("files", "threads", "temporary")
    )
    print("\nGROWN" if grown else "\nnothing has grown")
    return int(grown)


if __name__ == "__main__":
    sys.exit(main())
