"""Tasks in a child of this process that was forked, and so has none of its threads."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable

import pytest

__all__ = ["exit_code", "needs_fork"]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


def exit_code(task: Callable[[], object]) -> int | None:
    """The exit code of a child that does it; that of being killed if it takes more than a minute."""
    child = multiprocessing.get_context("fork").Process(target=task)
    child.start()
    child.join(60)
    child.kill()
    child.join()
    return child.exitcode
