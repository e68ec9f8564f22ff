"""Shards coded by a dask.distributed cluster: the same bytes as from one thread, whatever happens to the workers."""

from __future__ import annotations

import filecmp
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rasterio
import rasters
from distributed import Client, LocalCluster

from ltchm_geo import cluster, cluster_worker, compress_raster, verify
from ltchm_geo.cli.main import main
from ltchm_geo.cluster_worker import RemoteShard, code_remotely
from ltchm_geo.errors import ClusterError, SourceReadError, UsageError, WeightsNotFoundError
from ltchm_geo.types import PixelBox

pytestmark = pytest.mark.filterwarnings("ignore")  # asyncio's and distributed's own, on other threads

SMALL: dict[str, Any] = {"tile_size": 128, "shard_tiles": 1, "overviews": (2, 4), "preview": True}


@pytest.fixture(scope="module")
def client(tiny_weights: Path) -> Iterator[Client]:
    environment = {"LTCHM_WEIGHTS": str(tiny_weights), "OMP_NUM_THREADS": "1"}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", env=environment) as workers,
        Client(workers) as found,
    ):
        yield found


def idle(client: Client) -> bool:
    """Whether the scheduler soon knows of no task any more."""
    for _ in range(100):
        if not client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("source", [rasters.DRONE, rasters.SAR], ids=lambda path: path.stem)
def test_the_same_bytes_as_from_one_thread(source: Path, client: Client, tiny: Path, tmp_path: Path) -> None:
    local = compress_raster(source, tmp_path / "local.ltchm", workers=1, **SMALL)
    calls: list[tuple[int, int]] = []
    remote = compress_raster(
        source, tmp_path / "remote.ltchm", client=client, progress=lambda *counts: calls.append(counts), **SMALL
    )
    assert filecmp.cmp(local.path, remote.path, shallow=False)
    assert remote.tiles == local.tiles
    assert remote.stages.keys() == local.stages.keys()
    assert calls[0][0] == 0
    assert calls[-1][0] == calls[-1][1]
    assert idle(client)


def test_by_the_scheduler_s_address(client: Client, tiny: Path, tmp_path: Path) -> None:
    """The source by a name relative to this process, the result as a folder."""
    rasters.write_tif(tmp_path / "a.tif", rasters.smooth(1, 300, 300))
    source, before = Path("a.tif"), Path.cwd()
    os.chdir(tmp_path)
    try:
        options = ["--tile-size", "128", "-q"]
        assert main(["compress", str(source), "a.zarr", "--scheduler", client.scheduler.address, *options]) == 0
    finally:
        os.chdir(before)
    assert verify(tmp_path / "a.zarr", deep=True).problems == ()


def test_resuming_on_a_cluster(client: Client, tiny: Path, tmp_path: Path) -> None:
    """Begun by threads, stopped, finished by the cluster."""
    expected = compress_raster(rasters.FARMLAND, tmp_path / "a.ltchm", resume=True, **SMALL)

    def stop(done: int, total: int) -> None:
        if done > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress_raster(rasters.FARMLAND, tmp_path / "b.ltchm", resume=True, progress=stop, **SMALL)
    found = compress_raster(rasters.FARMLAND, tmp_path / "b.ltchm", resume=True, client=client, **SMALL)
    assert found.kept > 0
    assert filecmp.cmp(expected.path, found.path, shallow=False)


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_worker_is_killed(client: Client, tiny: Path, tmp_path: Path) -> None:
    local = compress_raster(rasters.FARMLAND, tmp_path / "local.ltchm", workers=1, **SMALL)
    victim = next(iter(client.run(os.getpid).values()))
    killed = []

    def progress(done: int, total: int) -> None:
        if done and not killed:
            os.kill(victim, signal.SIGKILL)
            killed.append(done)

    remote = compress_raster(rasters.FARMLAND, tmp_path / "remote.ltchm", client=client, progress=progress, **SMALL)
    assert killed
    assert filecmp.cmp(local.path, remote.path, shallow=False)
    client.wait_for_workers(2, timeout=30)  # its nanny starts another


def test_cancelling(client: Client, tiny: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress_raster(rasters.FARMLAND, tmp_path / "a.ltchm", client=client, progress=stop, **SMALL)
    assert idle(client)
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_is_damaged(client: Client, tiny: Path, tmp_path: Path) -> None:
    tiled = {"tiled": True, "blockxsize": 128, "blockysize": 128}
    source = rasters.write_tif(tmp_path / "a.tif", rasters.smooth(1, 512, 512), **tiled)
    data = source.read_bytes()
    source.write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(SourceReadError, match="cannot read rows"):
        compress_raster(source, tmp_path / "a.ltchm", client=client, **SMALL)
    assert idle(client)
    assert list(tmp_path.iterdir()) == [source]


def test_a_task_that_kills_its_workers(client: Client) -> None:
    client.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 0))
    with pytest.raises(ClusterError, match="lack of memory"):
        list(cluster.in_order(client, os._exit, [1], lambda item: item))
    client.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 3))
    client.wait_for_workers(2, timeout=30)


def test_in_order_and_few_at_a_time(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_MIN_IN_FLIGHT", 3)
    monkeypatch.setattr(cluster, "_PER_THREAD", 1)
    made, most = [], 0

    def task(item: int) -> float:
        made.append(item)
        return 0.05 if item % 3 == 0 else 0.0

    for received, (item, _) in enumerate(cluster.in_order(client, time.sleep, range(20), task)):
        assert item == received
        most = max(most, len(made) - received)
    assert most == 3
    assert idle(client)


def test_sources_that_cannot_travel(client: Client, tiny: Path, tmp_path: Path) -> None:
    with rasterio.open(rasters.FARMLAND) as dataset, pytest.raises(UsageError, match="give a path"):
        compress_raster(dataset, tmp_path / "a.ltchm", client=client, **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_no_such_cluster(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_CONNECT", 0.2)
    with pytest.raises(ClusterError, match="no dask scheduler answers"):
        compress_raster(rasters.FARMLAND, tmp_path / "a.ltchm", client="tcp://127.0.0.1:9", **SMALL)
    for address in ("foo", "tcp://foo", "tcp://foo:"):
        with pytest.raises(UsageError, match=r"such as|tcp://10"), cluster.connected(address):
            pass
    with pytest.raises(UsageError, match="neither"), cluster.connected(7):  # type: ignore[arg-type]
        pass
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(UsageError, match=r"\.\[cluster\]"), cluster.connected("tcp://127.0.0.1:9"):
        pass


# --- the worker's side -----------------------------------------------------------------------------------------------


@pytest.fixture
def task(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteShard:
    """One that a client would send."""
    tasks: list[RemoteShard] = []

    def in_order(client: Any, function: Any, items: Any, make: Any, most: int) -> Iterator[Any]:
        for item in items:
            tasks.append(make(item))
            yield item, function(tasks[-1])

    monkeypatch.setattr(cluster, "in_order", in_order)
    with Client(processes=False, n_workers=1, dashboard_address=":0", set_as_default=False) as threads:
        compress_raster(rasters.FARMLAND, tmp_path / "a.ltchm", client=threads, **SMALL | {"overviews": False})
    return tasks[0]


def test_who_must_be_alike(task: RemoteShard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert code_remotely(task)[0]
    with pytest.raises(ClusterError, match="install the same everywhere"):
        code_remotely(task._replace(version="0.0.1"))
    run, address, size = task.source
    with pytest.raises(ClusterError, match="the same file everywhere"):
        code_remotely(task._replace(source=(run, address, (size or 0) + 1)))
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("LTCHM_WEIGHTS", str(tmp_path / "empty"))
    with pytest.raises(WeightsNotFoundError, match=r"the worker on .* not found; looked in"):
        code_remotely(task)


def test_tasks_are_small_and_plain(task: RemoteShard) -> None:
    """They travel through the scheduler, and workers of other versions must be able to say so."""
    import pickle

    data = pickle.dumps(task)
    assert len(data) < 20_000
    assert all(isinstance(part, str | bytes | tuple | None) for part in task)


def test_sources_stay_open_and_few(task: RemoteShard, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = cluster_worker._OpenSources()
    with opened.borrow(("0", task.source[1])) as first:
        for number in range(1, 20):
            with opened.borrow((str(number), task.source[1])) as other:
                assert other is not first
        with opened.borrow(("0", task.source[1])) as again:
            assert again is first
        assert len(opened._open) <= cluster_worker._MAX_OPEN + 1
        assert first.read(PixelBox(0, 0, 8, 8), [0]).shape == (1, 8, 8)


def test_what_a_cluster_offers() -> None:
    workers: dict[str, Any] = {}

    class Fake:
        def scheduler_info(self, n_workers: int) -> dict[str, Any]:
            return {"workers": workers}

    size = cluster._Size(Fake())  # type: ignore[arg-type]
    assert size.in_flight == cluster._MIN_IN_FLIGHT  # before the first worker is there
    assert size.resources is None
    workers |= {"a": {"nthreads": 4, "resources": {}}, "b": {"nthreads": 2, "resources": {"GPU": 2}}}
    size._looked -= 60
    assert size.in_flight == 12
    assert size.resources == {"GPU": 1}
