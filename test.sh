#!/bin/sh
# The tests that a change should pass: some eight minutes on two cores. Arguments are pytest's.
#
#     sh test.sh
#     sh test.sh -k bootstrap
#     sh test.sh -m long          # the rest: many processes, kills, simulations; .ci/run has it too
set -eu
cd "$(dirname "$0")"
export PYTHONDONTWRITEBYTECODE=  # so that what is imported is compiled only once
[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/python -m pip install -q --no-compile -r requirements.txt -r requirements-optional.txt \
    -r tests/requirements.txt
# One process per core, each with one thread: the models of the tests are too small for more.
OMP_NUM_THREADS=1 exec .venv/bin/python -m pytest -q -n auto --dist worksteal "$@"
