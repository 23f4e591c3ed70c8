#!/usr/bin/env bash
# Builds the extension module into python/ctwds, so that the package is imported from the clone: tests and development
# (an installed package has its own). scripts/extension.sh [CARGO-OPTION...], such as --release.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

profile=debug
for option in "$@"; do
    if [ "$option" = --release ]; then profile=release; fi
done
cargo build --package ctwds-native "$@"
# Under a name of its own first: a process that has the old file open keeps it.
cp "${CARGO_TARGET_DIR:-target}/$profile/libctwds_native.so" "python/ctwds/.new.$$"
mv "python/ctwds/.new.$$" python/ctwds/_native.abi3.so
