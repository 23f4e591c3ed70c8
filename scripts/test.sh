#!/usr/bin/env bash
# Checks of the project, in the order in which they are quickest to fail; stops at the first failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'END'
Usage: scripts/test.sh [--quick | --help]

  (no option)  every check, as continuous integration runs it
  --quick      format, lint, types, Rust unit tests, the rules of tests/tidy, and some Python tests with the debug build:
               under a minute, once the Rust code is compiled
  --help       this text

CTWDS_SKIP_FUSE=1 leaves out what needs a mount; a machine without /dev/fuse fails otherwise.
END
}

quick=false
for option in "$@"; do
    case "$option" in
        --quick) quick=true ;;
        --help | -h) usage; exit 0 ;;
        *)
            printf 'test.sh: unknown option %s; there are --quick and --help\n' "$option" >&2
            exit 2
            ;;
    esac
done

# What --quick runs of tests/python: 25 s with the debug build. pytest fails if one of these files is not there.
readonly QUICK_TESTS=(
    test_marks.py test_docs.py test_standalone.py test_api.py test_plan.py test_bad_input.py test_config.py
    test_manifest.py test_exclude.py test_select.py test_estimate.py test_goldens_tables.py test_verify_voxels.py
    test_verify_sources.py test_compressed.py test_reclaim.py
)

# Always named together: alone, each has its dependencies with other features, and all of them are built once more.
readonly PACKAGES=(--package ctwds-fs --package ctwds-native)

times=()
current=setup
finished=false # a signal ends the script with the status of the step before it
summary() {
    local status=$?
    printf '\n== times\n'
    printf '%s\n' "${times[@]}"
    if ! $finished; then
        printf '\ntest.sh: FAILED at: %s (exit code %s)\n' "$current" "$status" >&2
    elif $quick; then
        printf '\ntest.sh: all quick steps passed; without --quick there are more\n'
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

# By Ctrl-C, after which pytest still says what has failed. A process that waits for a dead file system ignores
# everything but SIGKILL.
python_tests() { timeout --signal=INT --kill-after=60 1800 .venv/bin/python -m pytest "$@"; }

# Three files at a time, as tests wait more than they compute; each file is one process's, as its tests share a data set
# or a mount. Each process has a mount table of its own: `status` looks into all mounts of a user, and meanwhile another
# test could not unmount its own. Where that is not allowed, as to users without root, one file runs at a time.
together() {
    local apart="unshare --mount --propagation private" processes="1*popen//python=.venv/bin/python"
    if $apart true 2>/dev/null; then processes="3*popen//python=$apart .venv/bin/python"; fi
    python_tests --tx "$processes" --dist loadfile --durations 25 -m "not alone" "$@"
}

# What ships is what is tested: the program and the extension of the wheel, which also need no build of their own.
take_the_wheel() {
    scripts/package.sh
    scripts/extension.sh --packaged
    CTWDS_FS=${CTWDS_FS:-$(echo "$PWD"/build/program/ctwds_fs-*.data/scripts/ctwds-fs)}
    export CTWDS_FS
}

# A crate added to Cargo.toml alone would be refused only by the fuzz targets, a quarter of an hour later.
lock_files() {
    local host manifest
    host=$(rustc -vV | sed -n 's/^host: //p')
    for manifest in Cargo.toml fuzz/Cargo.toml; do
        cargo metadata --locked --format-version 1 --filter-platform "$host" --manifest-path "$manifest" >/dev/null
    done
}

if $quick; then step "setup" scripts/setup.sh; else step "setup" scripts/setup.sh --frameworks --browser ${CI:+--s3}; fi
if [ "${CTWDS_SKIP_FUSE:-}" != 1 ] && [ ! -e /dev/fuse ]; then
    current="/dev/fuse (set CTWDS_SKIP_FUSE=1 to go without the tests that mount)"
    exit 1
fi
step "lock files" lock_files
step "formatting" cargo fmt --all --check
step "Python formatting" .venv/bin/ruff format --check
step "Python lint" .venv/bin/ruff check
step "Python types" .venv/bin/mypy
step "clippy" cargo clippy "${PACKAGES[@]}" --all-targets -- -D warnings
if $quick; then
    step "Rust unit tests" cargo test "${PACKAGES[@]}" --lib --bins --test tidy
    step "debug build" scripts/extension.sh
    CTWDS_FS=${CTWDS_FS:-${CARGO_TARGET_DIR:-target}/debug/ctwds-fs}
    export CTWDS_FS
    step "quick Python tests" python_tests "${QUICK_TESTS[@]/#/tests/python/}"
    finished=true
    exit 0
fi
step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items
step "Rust tests" cargo test "${PACKAGES[@]}"
step "fuzz targets" cargo check --locked --manifest-path fuzz/Cargo.toml --target-dir "${CARGO_TARGET_DIR:-target}/fuzz"
step "inflate against zlib-ng" cargo test "${PACKAGES[@]}" --package ctwds-fs-zlib-ng --lib --test corpus -- \
    inflate gzip every_input flate2
step "wheel" take_the_wheel
step "Python tests" together tests/python
step "Python tests, one by one" python_tests --durations 10 -m alone tests/python
if [ "${CTWDS_SKIP_FUSE:-}" = 1 ]; then
    printf '\n== demo: left out, CTWDS_SKIP_FUSE=1\n'
else
    step "demo" scripts/demo.sh
fi
finished=true
