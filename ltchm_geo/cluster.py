"""Shards coded by the workers of a dask.distributed cluster.

A task is one shard: the worker opens the source by its name (or gets the pixels of an overview along with the task),
codes it with weights that it finds by their hash, and returns payloads and averages, a few percent of the pixels. The
one who asked stores them, so that there is one writer, and the workers need no access to the destination. Memory is
bounded there by the tasks in flight; their results are stored in order, so that the same bytes come out as from one
thread. Tasks of workers that die are given to others.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .cluster_worker import RemoteShard, code_remotely
from .errors import ClusterError, UsageError, installing
from .overviews import PixelSource
from .raster import Source
from .shard_coder import CodedShard, LevelPlan, ShardPixels
from .timing import StageClock
from .types import TileIndex
from .version import __version__

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["ClusterCrew", "connected"]

_PER_THREAD = 2  # tasks in flight for every thread of a worker: one in work, one at hand
_MIN_IN_FLIGHT, _MAX_IN_FLIGHT = 4, 1024
_CARRIED = 1 << 28  # bytes of pixels that tasks in flight carry along
_RETRIES = 2  # of a task that fails, for instance because the source could not be read for a moment
_CONNECT = 30.0  # seconds to wait for the scheduler
_LOOK = 5.0  # seconds between looks at how many workers there are
_GPU = "GPU"

_T = TypeVar("_T")


@contextlib.contextmanager
def connected(client: Client | str) -> Iterator[Client]:
    """A client as it is, or one for the scheduler at an address, which is closed again.

    Raises
    ------
    UsageError
        dask.distributed is not installed, or this is neither.
    ClusterError
        There is no scheduler at the address.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError(f"clusters need dask.distributed: {installing('cluster')}") from error
    if isinstance(client, Client):
        yield client
        return
    if not isinstance(client, str):
        raise UsageError(f"{client!r} is neither a dask.distributed Client nor the address of a scheduler")
    if not re.match(r"(\w+://)?.+:\d+$|inproc://", client):
        raise UsageError(f"{client} is no address of a scheduler: it has a host and a port, as tcp://10.0.0.1:8786")
    try:
        own = Client(client, timeout=_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(f"no dask scheduler answers at {client}: check the address ({error})") from error
    with own:
        yield own


class ClusterCrew:
    """The workers of a cluster; see `scene_encoder.Crew`.

    Parameters
    ----------
    client : distributed.Client
    source : Source
        The scene at full resolution; workers open it by its address.
    device : str
        Of the workers.
    clock : StageClock
        Takes the seconds that workers spent, too.

    Raises
    ------
    UsageError
        The source has no name that others could open it by.
    """

    def __init__(self, client: Client, source: Source, device: str, clock: StageClock):
        if source.address is None:
            raise UsageError(
                f"{source.name} is an open dataset or array, which other machines cannot read: give a path that they "
                "can open, too"
            )
        self._client, self._source, self._device, self._clock = client, source, device, clock
        self._run = uuid.uuid4().hex

    def code(
        self,
        plan: LevelPlan,
        source: PixelSource,
        work: Mapping[TileIndex, Sequence[str]],
        keep: Callable[[TileIndex, CodedShard], None],
    ) -> None:
        """See `Crew.code`; `keep` is called from this thread, in the order of `work`."""
        described = json.dumps(plan.meta.to_dict()).encode()
        bands = len(plan.meta.bands)

        def task(shard: TileIndex) -> RemoteShard:
            pixels = None if source is self._source else ShardPixels.of(source, plan.outer(shard), bands)
            return RemoteShard(
                version=__version__,
                meta=described,
                level=(plan.factor, plan.pyramid, plan.step),
                shard=tuple(shard),
                done=tuple(work[shard]),
                device=self._device,
                source=(self._run, self._source.address or "", self._source.nbytes_file),
                pixels=None if pixels is None else (tuple(pixels.box), pixels.pixels, pixels.mask),
            )

        most = _MAX_IN_FLIGHT
        if source is not self._source:
            side = plan.meta.tile * plan.meta.shard
            most = max(_MIN_IN_FLIGHT, _CARRIED // (side**2 * bands * np.dtype(plan.meta.dtype).itemsize))
        for shard, (chunks, averages, stages) in in_order(self._client, code_remotely, work, task, most):
            for stage, spent in stages.items():
                self._clock.add(stage, *spent)
            keep(shard, CodedShard(chunks, averages))


def in_order(
    client: Client,
    function: Callable[[Any], Any],
    items: Iterable[_T],
    task: Callable[[_T], Any],
    most: int = _MAX_IN_FLIGHT,
) -> Iterator[tuple[_T, Any]]:
    """Call ``function(task(item))`` on workers for every item and give the results in the order of the items.

    Only so many tasks are made at a time as keep the workers busy, and no more than `most`. Leaving early cancels those
    in flight.

    Raises
    ------
    ClusterError
        Workers die of it, or the cluster is gone. What `function` raises comes as it is.
    """
    crew, waiting = _Size(client), iter(items)
    flying: deque[tuple[_T, Future[Any]]] = deque()
    try:
        while True:
            while len(flying) < min(crew.in_flight, most) and (item := next(waiting, None)) is not None:
                flying.append((item, _submit(client, function, task(item), crew.resources)))
            if not flying:
                return
            item, future = flying[0]
            result = _result(future)
            flying.popleft()
            future.release()
            yield item, result
    finally:
        with contextlib.suppress(OSError):  # a cluster that is gone has cancelled them itself
            client.cancel([future for _, future in flying], force=True)


def _submit(
    client: Client, function: Callable[[Any], Any], task: Any, resources: dict[str, float] | None
) -> Future[Any]:
    return client.submit(
        function, task, key=f"ltchm-{uuid.uuid4().hex}", pure=False, retries=_RETRIES, resources=resources
    )


def _result(future: Future[Any]) -> Any:
    from distributed import CancelledError, KilledWorker
    from distributed.comm.core import CommClosedError

    try:
        return future.result()
    except KilledWorker as error:
        raise ClusterError(
            f"{error.allowed_failures + 1} workers died one after the other of the same shard, most likely for lack of "
            "memory: give them more, or fewer threads each"
        ) from error
    except (CancelledError, CommClosedError) as error:
        raise ClusterError("the cluster is gone, or cancelled the work: see its scheduler's log") from error
    except ModuleNotFoundError as error:
        raise ClusterError(f"a worker lacks {error.name}: install ltchm-geo {__version__} there, too") from error


class _Size:
    """What a cluster has to offer, looked at now and then: workers come and go."""

    def __init__(self, client: Client):
        self._client, self._looked = client, -_LOOK
        self._workers: list[Any] = []

    @property
    def in_flight(self) -> int:
        """Tasks to have in flight."""
        threads = sum(worker["nthreads"] for worker in self._look())
        return min(max(threads * _PER_THREAD, _MIN_IN_FLIGHT), _MAX_IN_FLIGHT)

    @property
    def resources(self) -> dict[str, float] | None:
        """What a task needs: a GPU where any worker announces one."""
        return {_GPU: 1} if any(worker["resources"].get(_GPU) for worker in self._workers) else None

    def _look(self) -> list[Any]:
        if time.monotonic() - self._looked >= _LOOK:
            self._workers = list(self._client.scheduler_info(n_workers=-1)["workers"].values())
            self._looked = time.monotonic()
        return self._workers
