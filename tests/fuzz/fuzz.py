"""Fuzz one target with atheris, coverage-guided, until stopped.

    python tests/fuzz/fuzz.py TARGET [libFuzzer options]

The inputs found go to ``tests/fuzz/found/TARGET`` (not kept in git), an input that breaks something to
``tests/fuzz/crash-TARGET-...``. Needs ``pip install atheris``; --help-targets lists the targets.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_DISABLE_JIT", "0")
HERE = Path(__file__).parent
MEMORY = 6 << 30  # of address space; PyTorch's libraries alone map two

import atheris  # noqa: E402

sys.path[:0] = [str(HERE), str(HERE.parent)]
# numba could not compile what atheris has instrumented.
COMPILED = [
    f"ltchm_geo.{name}" for name in ("_numba", "_predictive_kernels", "entropy._kernels", "entropy._byte_kernels")
]
with atheris.instrument_imports(include=["ltchm_geo", "zipfile", "json"], exclude=COMPILED):
    import program_targets  # noqa: F401 - these register their targets
    import scene_targets  # noqa: F401
    from targets import TARGETS


def main() -> None:
    """Fuzz."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: fuzz.py TARGET [libFuzzer options]; targets: {', '.join(TARGETS)}")
    name = sys.argv.pop(1)
    found, kept = HERE / "found" / name, HERE / "corpus" / name
    found.mkdir(parents=True, exist_ok=True)
    kept.mkdir(parents=True, exist_ok=True)
    options = ["-timeout=5", "-rss_limit_mb=4096", "-max_len=4096", f"-artifact_prefix={HERE}/crash-{name}-"]
    TARGETS[name](b"")  # loads and compiles what takes memory, before that is limited
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    atheris.Setup([sys.argv[0], *options, *sys.argv[1:], str(found), str(kept)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
