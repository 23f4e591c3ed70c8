#!/usr/bin/env bash
# Builds the program and the extension module, and copies the latter into python/ctwds, so that the package is imported
# from the clone: for tests and development (an installed package has its own). scripts/extension.sh [--release]
# Both in one command: alone, each would have its dependencies with other features, which are then built twice.
# --packaged builds nothing: it takes the extension of the wheel that scripts/package.sh has made.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case "${*:-}" in
    "") built=${CARGO_TARGET_DIR:-target}/debug/libctwds_native.so ;;
    --release) built=${CARGO_TARGET_DIR:-target}/release/libctwds_native.so ;;
    --packaged) built=build/program/ctwds/_native.abi3.so ;;
    *) printf 'extension: unknown option %s; there are --release and --packaged\n' "$*" >&2; exit 2 ;;
esac
if [ "${1:-}" != --packaged ]; then
    cargo build --package ctwds-fs --package ctwds-native "$@"
elif [ ! -f "$built" ]; then
    printf 'extension: %s is not there: scripts/package.sh makes it\n' "$built" >&2
    exit 1
fi
# Under a name of its own first: a process that has the old file open keeps it.
cp "$built" "python/ctwds/.new.$$"
mv "python/ctwds/.new.$$" python/ctwds/_native.abi3.so
