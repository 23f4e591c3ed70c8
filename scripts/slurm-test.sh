#!/usr/bin/env bash
# Runs jobs of a real Slurm on this machine (tests/python/test_slurm.py): arrays that convert, tasks that are cancelled,
# out of time, out of memory. It takes two minutes, most of them for Slurm's shortest time limit.
#
# As root, because limits bind only so, and where control groups of version 1 can be mounted. Slurm's packages are installed if they are missing; its daemons end with the test.
# Arguments go to pytest. CTWDS_FS=PATH tests another binary and builds none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ "$(id -u)" -eq 0 ] || { echo "slurm-test: only root can start a Slurm whose limits bind" >&2; exit 1; }
scripts/setup.sh --slurm
if [ -z "${CTWDS_FS:-}" ]; then
    scripts/extension.sh --release
    export CTWDS_FS=${CARGO_TARGET_DIR:-$PWD/target}/release/ctwds-fs
fi
export CTWDS_TEST_SLURM=1 # no Slurm is a failure
exec .venv/bin/python -m pytest -v -rs tests/python/test_slurm.py "$@"
