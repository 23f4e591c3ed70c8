#!/usr/bin/env bash
# Builds the program and the extension module, and copies the latter into python/ctwds, so that the package is imported
# from the clone: for tests and development (an installed package has its own). scripts/extension.sh [--release]
# Both in one command: alone, each would have its dependencies with other features, which are then built twice.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case "${*:-}" in
    "") profile=debug ;;
    --release) profile=release ;;
    *) printf 'extension: unknown option %s; there is --release\n' "$*" >&2; exit 2 ;;
esac
cargo build --package ctwds-fs --package ctwds-native "$@"
# Under a name of its own first: a process that has the old file open keeps it.
cp "${CARGO_TARGET_DIR:-target}/$profile/libctwds_native.so" "python/ctwds/.new.$$"
mv "python/ctwds/.new.$$" python/ctwds/_native.abi3.so
