"""Work under way stops within a batch of tiles, on whatever thread it is."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ltchm_geo import cancellation
from ltchm_geo.engine import load_engine
from ltchm_geo.timing import StageClock


def test_checks_heed_only_what_watches_over_them() -> None:
    cancellation.check()
    outer, inner = threading.Event(), threading.Event()
    inner.set()
    with cancellation.watched(outer):
        with pytest.raises(cancellation.Stopped), cancellation.watched(inner):
            cancellation.check()
        cancellation.check()
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(cancellation.current).result() is None
        assert cancellation.current() is outer
    assert cancellation.current() is None


@pytest.mark.parametrize("verb", ["analyse", "synthesise", "decode_latents"])
def test_the_engine_stops_after_the_tiles_in_hand(tiny, verb: str) -> None:
    engine = load_engine("tiny-random", "cpu")
    tiles = np.random.default_rng(0).random((8, 3, 256, 256), np.float32)
    stop, begun = threading.Event(), []

    class Clock(StageClock):
        def __call__(self, stage: str):
            begun.append(stage)
            stop.set()
            return super().__call__(stage)

    y, _ = engine.analyse(tiles, 56)
    streams = engine.encode(tiles, 56)
    calls = {
        "analyse": lambda: engine.analyse(tiles, 56, Clock()),
        "synthesise": lambda: engine.synthesise(y, 56, Clock()),
        "decode_latents": lambda: engine.decode_latents(streams, 56, 256, Clock()),
    }
    with cancellation.watched(stop), pytest.raises(cancellation.Stopped):
        calls[verb]()
    assert len(begun) <= 2 * engine.threads
