"""Every fuzz target on its kept corpus, and on bytes that hypothesis makes up: always the same ones."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import program_targets  # noqa: F401 - registers its targets
import pytest
import scene_targets  # noqa: F401
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
#: How many made-up inputs are enough where each takes long.
SLOW = {
    "network": 12,
    "latents": 10,
    "components": 10,
    "scene": 40,
    "command_line": 40,
    "stored_preview": 30,
    "description": 60,
}
MOST_SECONDS = 1.0  # of the thread's own time for one input, whatever else the machine does


@pytest.fixture(scope="module", autouse=True)
def _ready() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTCHM_WEIGHTS", "")  # targets set it, and no test after these is to see that
        for name in ("network", "latents", "components", "command_line"):
            TARGETS[name](b"")  # the first input makes weights and loads commands
        yield


def run(name: str, data: bytes) -> None:
    began = time.thread_time()
    TARGETS[name](data)
    assert time.thread_time() - began < MOST_SECONDS


@pytest.mark.filterwarnings("ignore")  # odd input may well be warned of
@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str) -> None:
    files = sorted((CORPUS / name).iterdir())
    assert files, "every target has a corpus"
    for file in files:
        run(name, file.read_bytes())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_made_up(name: str) -> None:
    @settings(
        derandomize=True,
        database=None,
        deadline=None,
        max_examples=SLOW.get(name, 150),
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.binary(max_size=80))
    def check(data: bytes) -> None:
        run(name, data)

    check()


def test_every_corpus_has_a_target() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)
    assert sum(file.stat().st_size for file in CORPUS.rglob("*")) < 1_000_000
