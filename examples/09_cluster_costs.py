"""What a scene costs a cluster and an object store beside the coding: time and bytes per task, requests, memory.

    python examples/09_cluster_costs.py --side 4096

Starts a cluster of processes on this machine and codes a scene made of the bundled one with it and without, into memory
that behaves like an object store. docs/scaling.md says what the figures mean. Needs the extras cluster and cloud.
"""

from __future__ import annotations

import pickle
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

import ltchm_geo
from ltchm_geo import cluster
from ltchm_geo._object_client import ObjectClient
from ltchm_geo.benchmark.speed_input import write_mirrored

SCENE = Path(__file__).parent / "data" / "farmland_rgbn.tif"
URL = "memory:///costs/scene"
_REQUESTS = {"get": "GET", "put": "PUT", "keys": "LIST", "delete": "DELETE"}


class Seen:
    """Tasks and results as they pass: how many, how large, and how long they took in all."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._original = cluster.in_order

    def in_order(self, client: Any, function: Any, items: Any, task: Any, most: int) -> Iterator[Any]:
        """`cluster.in_order`, watched."""

        def noted(item: Any) -> Any:
            made = task(item)
            kind = "full resolution" if made.pixels is None else "overviews"
            self.counts[f"{kind}: tasks"] += 1
            self.counts[f"{kind}: bytes out"] += len(pickle.dumps(made, 5))
            self.kind = kind
            return made

        for item, result in self._original(client, function, items, noted, most):
            self.counts[f"{self.kind}: bytes back"] += len(pickle.dumps(result, 5))
            yield item, result

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Put in place for a while."""
        cluster.in_order = self.in_order
        try:
            yield
        finally:
            cluster.in_order = self._original


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Requests to the object store. One call is one request, but for large uploads, which go in parts."""
    found: Counter[str] = Counter()
    originals = {name: getattr(ObjectClient, name) for name in _REQUESTS}

    def counted(name: str) -> Any:
        def call(self: ObjectClient, *arguments: Any, **options: Any) -> Any:
            found[_REQUESTS[name]] += 1
            return originals[name](self, *arguments, **options)

        return call

    for name in originals:
        setattr(ObjectClient, name, counted(name))
    try:
        yield found
    finally:
        for name, original in originals.items():
            setattr(ObjectClient, name, original)


def nothing(data: bytes) -> bytes:
    """A task without work."""
    return data


def overhead(client: Any, tasks: int, size: int) -> tuple[float, float]:
    """Seconds and CPU seconds of client and scheduler per task that does nothing, with `size` bytes out and back."""
    data = bytes(size)
    list(cluster.in_order(client, nothing, range(20), lambda item: data))
    began, cpu = time.perf_counter(), time.process_time()
    list(cluster.in_order(client, nothing, range(tasks), lambda item: data))
    return (time.perf_counter() - began) / tasks, (time.process_time() - cpu) / tasks


def peak() -> float:
    """Peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def shown(counts: Counter[str]) -> str:
    """Requests as text."""
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))


@click.command()
@click.option("--side", default=4096, show_default=True, help="Rows and columns of the scene.")
@click.option("--workers", default=2, show_default=True, help="Processes of the cluster.")
@click.option("--tasks", default=1000, show_default=True, help="Empty tasks to measure the scheduler with.")
def main(side: int, workers: int, tasks: int) -> None:
    """Print what a scene of SIDE x SIDE x 3 costs."""
    from distributed import Client, LocalCluster

    with (
        tempfile.TemporaryDirectory() as work,
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0") as local,
        Client(local) as client,
    ):
        scene = Path(work) / "scene.tif"
        write_mirrored(SCENE, scene, side)
        for size in (5_000, 300_000):
            seconds, cpu = overhead(client, tasks, size)
            print(
                f"empty task, {size:,} bytes out and back: {seconds * 1e3:.2f} ms ({1 / seconds:.0f} a second)", end=""
            )
            print(f", {cpu * 1e3:.2f} ms CPU of client and scheduler")
        before, seen = peak(), Seen()
        with seen.watching():
            result = ltchm_geo.compress_raster(scene, Path(work) / "a.ltchm", client=client)
        for kind in ("full resolution", "overviews"):
            if number := seen.counts[f"{kind}: tasks"]:
                out, back = (seen.counts[f"{kind}: bytes {way}"] / number for way in ("out", "back"))
                print(f"{kind}: {number} tasks, {out:,.0f} bytes out, {back:,.0f} bytes back each")
        computing = sum(result.stages.values())
        print(f"compressed {result.raw_bytes:,} to {result.bytes:,} bytes; ", end="")
        print(f"{computing:.1f} s in stages, {result.seconds:.1f} s")
        print(f"memory: client {before:.0f} MiB, then {peak():.0f}", end="")
        print(f"; workers {', '.join(f'{found:.0f}' for found in client.run(peak).values())} MiB")
    for suffix in (".ltchm", ".zarr"):
        requests(URL + suffix, side)


def requests(url: str, side: int) -> None:
    """Print the requests of writing, opening and restoring a scene."""
    with tempfile.TemporaryDirectory() as folder:
        scene, back = Path(folder) / "scene.tif", Path(folder) / "back.tif"
        write_mirrored(SCENE, scene, side)
        with counting() as writing:
            size = ltchm_geo.compress_raster(scene, url, overwrite=True).bytes
        with counting() as opening:
            ltchm_geo.info(url)
        with counting() as restoring:
            ltchm_geo.decompress_raster(url, back)
        with counting() as window:
            ltchm_geo.decompress_raster(url, back, window=(side // 2, side // 2, 256, 256), overwrite=True)
    print(f"{url}, {size:,} bytes: write {shown(writing)}; open {shown(opening)}", end="")
    print(f"; restore {shown(restoring)}; a window of 256 x 256 {shown(window)}")


if __name__ == "__main__":
    main()
