#!/bin/sh
# Install what is needed into .venv, check style and types, run all tests; with arguments for pytest, only those it finds.
set -eu
cd "$(dirname "$0")/.."
python3 -m venv .venv
. .venv/bin/activate
pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
if [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ]; then  # elsewhere, tests that need these say that they were skipped
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gdal-bin chromium > /dev/null
fi
ruff check .
ruff format --check .
mypy
# One torch thread per worker: tests are many small tensors, and threads that wait for each other only cost time.
OMP_NUM_THREADS=1 pytest -q -n "${TEST_WORKERS:-2}" --durations=10 "$@"
[ $# -gt 0 ] || sh tests/qgis/run.sh
