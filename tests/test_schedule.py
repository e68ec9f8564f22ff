from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from ltchm_geo import cancellation, schedule
from ltchm_geo.errors import UsageError
from ltchm_geo.schedule import Ticker, run_shards, worker_count
from ltchm_geo.types import TileIndex

SHARDS = [TileIndex(iy, ix) for iy in range(5) for ix in range(4)]


@pytest.mark.parametrize("workers", [1, 3])
def test_every_shard_once_and_never_too_many_at_a_time(workers: int) -> None:
    lock, held, most, seen = threading.Lock(), 0, 0, []

    def work(shard: TileIndex) -> None:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        time.sleep(0.005)
        with lock:
            held -= 1
            seen.append(shard)

    run_shards(work, SHARDS, workers)
    assert sorted(seen) == SHARDS
    assert most == workers
    if workers == 1:
        assert seen == SHARDS  # row by row


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_first_error_ends_the_run_when_others_have_ended(error: type[BaseException]) -> None:
    begun, ended = [], []

    def work(shard: TileIndex) -> None:
        begun.append(shard)
        if shard == SHARDS[1]:
            raise error("stop")
        time.sleep(0.1)
        ended.append(shard)

    with pytest.raises(error, match="stop"):
        run_shards(work, SHARDS, 3)
    assert len(begun) <= 5
    assert sorted(ended) == sorted(set(begun) - {SHARDS[1]})
    time.sleep(0.15)
    assert len(ended) == len(begun) - 1


def test_nothing_to_do() -> None:
    run_shards(lambda shard: pytest.fail("no shard"), [], 2)


def test_shards_are_taken_as_they_are_worked_on() -> None:
    """There may be millions."""
    taken, ahead = 0, []

    def shards() -> Iterator[TileIndex]:
        nonlocal taken
        for shard in SHARDS:
            taken += 1
            yield shard

    run_shards(lambda shard: ahead.append(taken - SHARDS.index(shard)), shards(), 2)
    assert len(ahead) == len(SHARDS)
    assert max(ahead) <= 2


def test_worker_count(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores in (1, 2, 64):  # that this process may use, which may be fewer than there are
        monkeypatch.setattr(schedule, "core_count", lambda cores=cores: cores)
        assert worker_count(None) == min(cores, 2)
    assert worker_count(7) == 7
    for bad in (0, -1, 65):
        with pytest.raises(UsageError):
            worker_count(bad)


def test_ticker() -> None:
    seen: list[tuple[int, int]] = []
    ticker = Ticker(5, lambda *step: seen.append(step))
    ticker.add(2)
    ticker.add(3)
    assert seen == [(0, 5), (2, 5), (5, 5)]
    Ticker(5, None).add(1)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_shards_in_hand_stop_at_their_next_check(error: type[BaseException]) -> None:
    stopped = []

    def work(shard: TileIndex) -> None:
        if shard == SHARDS[0]:
            time.sleep(0.05)
            raise error("stop")
        for _ in range(1000):
            try:
                cancellation.check()
            except cancellation.Stopped:
                stopped.append(shard)
                raise
            time.sleep(0.01)

    began = time.perf_counter()
    with pytest.raises(error, match="stop"):
        run_shards(work, SHARDS, 3)
    assert time.perf_counter() - began < 2
    assert sorted(stopped) == SHARDS[1:3]
