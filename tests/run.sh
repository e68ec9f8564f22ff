#!/bin/sh
# Install what is needed into .venv, check style and types, run all tests.
set -eu
cd "$(dirname "$0")/.."
python3 -m venv .venv
. .venv/bin/activate
pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
ruff check .
ruff format --check .
mypy
# One torch thread per worker: tests are many small tensors, and threads that wait for each other only cost time.
OMP_NUM_THREADS=1 pytest -q -n "${TEST_WORKERS:-2}" --durations=10 "$@"
