#!/usr/bin/env bash
# Every check of the project, in the order in which they are quickest to fail; stops at the first failure.
# CTWDS_SKIP_FUSE=1 leaves out what needs a mount; a machine without /dev/fuse fails otherwise.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

times=()
current=setup
summary() {
    local status=$?
    printf '\n== times\n'
    printf '%s\n' "${times[@]}"
    if [ "$status" -ne 0 ]; then
        printf '\ntest.sh: FAILED at: %s (exit code %s)\n' "$current" "$status" >&2
    else
        printf '\ntest.sh: all steps passed\n'
    fi
}
trap summary EXIT

# step NAME COMMAND...: run it, and remember how long it took.
step() {
    current=$1
    shift
    local begin=$SECONDS
    printf '\n== %s\n' "$current"
    "$@"
    times+=("$(printf '%5d s  %s' $((SECONDS - begin)) "$current")")
}

# A process that waits for a dead file system ignores everything but SIGKILL.
python_tests() { timeout --kill-after=10 1800 .venv/bin/python -m pytest tests/python "$@"; }

step "setup" scripts/setup.sh --frameworks
if [ "${CTWDS_SKIP_FUSE:-}" != 1 ] && [ ! -e /dev/fuse ]; then
    current="/dev/fuse (set CTWDS_SKIP_FUSE=1 to go without the tests that mount)"
    exit 1
fi
step "formatting" cargo fmt --check
step "Python formatting" .venv/bin/ruff format --check
step "Python lint" .venv/bin/ruff check
step "Python types" .venv/bin/mypy
step "clippy" cargo clippy --all-targets -- -D warnings
step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items
step "Rust tests" cargo test
step "release build" cargo build --release
step "Python tests" python_tests
if [ "${CTWDS_SKIP_FUSE:-}" = 1 ]; then
    printf '\n== demo: left out, CTWDS_SKIP_FUSE=1\n'
else
    step "demo" scripts/demo.sh
fi
