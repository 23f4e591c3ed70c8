#!/usr/bin/env bash
# Builds what is given to others, into dist/: the wheel, which is the package ctwds with its extension, for every CPython
# from 3.10 on, and the program ctwds-fs; both run on every Linux with glibc 2.17 or newer, which auditwheel checks. And of
# the same program a tarball and a .deb, with manual pages and completions (scripts/archives.sh).
# `pip install .` builds a wheel for this machine, and needs Rust and a C compiler alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly GLIBC=2.17
die() { printf 'package: %s\n' "$*" >&2; exit 1; }

scripts/setup.sh --package
PATH="$PWD/.venv-package/bin:$PATH" # cargo-zigbuild asks `python3` for zig
machine=$(uname -m)
triple=$(rustc --print host-tuple 2>/dev/null || rustc -vV | sed -n 's/^host: //p')
platform=manylinux_${GLIBC/./_}_$machine

# What an earlier build has left there would be packed as well, also what is no longer part of the package.
rm -rf build dist/ctwds_fs-*.whl
CARGO=cargo-zigbuild CARGO_BUILD_TARGET=$triple.$GLIBC \
    .venv-package/bin/python -m build --wheel --no-isolation --outdir build/wheel .
wheel=$(echo build/wheel/ctwds_fs-*.whl)
[ -f "$wheel" ] || die "not one wheel was built: $wheel"

.venv-package/bin/auditwheel show "$wheel"
.venv-package/bin/auditwheel repair --plat "$platform" --only-plat --wheel-dir dist "$wheel"
made=$(echo dist/ctwds_fs-*.whl)
case "$made" in
    dist/ctwds_fs-*-cp310-abi3-*"$platform".whl) ;; # manylinux2014 is the older name of the same
    *) die "the wheel is not for CPython 3.10 and $platform: $made" ;;
esac
printf 'package: %s, %s bytes\n' "$made" "$(stat -c %s "$made")"

# The program of the wheel as it was checked, in a tarball and a .deb.
rm -rf build/program dist/ctwds-fs[-_]*
mkdir -p build/program
.venv-package/bin/python -m zipfile -e "$made" build/program
program=$(echo build/program/ctwds_fs-*.data/scripts/ctwds-fs)
[ -f "$program" ] || die "the wheel has no program: $program"
chmod 755 "$program" # an archive of Python's zipfile has no modes
scripts/archives.sh "$program" dist
