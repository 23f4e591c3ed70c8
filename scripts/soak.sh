#!/usr/bin/env bash
# Everything at once for SECONDS (default 600): scripts/soak.sh [SECONDS]
# Readers of every kind, mounts that come and go, `materialize` beside them, sources that break; the invariants are in
# tests/python/test_soak.py, which runs for a minute among the other tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly LENGTH=${1:-600}
[[ "$LENGTH" =~ ^[1-9][0-9]*$ ]] || { printf "soak: '%s' is no number of seconds\n" "$LENGTH" >&2; exit 1; }
scripts/setup.sh
[ -n "${CTWDS_FS:-}" ] || cargo build --release
# Other tests copy the machine's mount namespace: a mount of this one would live on in the copies.
own=()
[ "$(id -u)" -ne 0 ] || own=(unshare --mount --propagation private)
# The tests have deadlines of their own; this one is for a process that nothing else can end.
CTWDS_SOAK_SECONDS=$LENGTH exec "${own[@]}" timeout --kill-after=10 $((LENGTH + 300)) \
    .venv/bin/python -m pytest -q tests/python/test_soak.py
