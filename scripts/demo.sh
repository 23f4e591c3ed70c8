#!/usr/bin/env bash
# Shows everything in a minute, on a fresh machine too: installs what is missing, builds, and runs `ctwds-fs demo`; then
# writes another data set, mounts it, reads it with webdataset, materialises it, compares, unmounts. Arguments go to scripts/demo.py, e.g.
#   scripts/demo.sh --volumes 50 --size 512 512 200
# CTWDS_FS=PATH demonstrates another binary and builds none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/setup.sh
if [ -z "${CTWDS_FS:-}" ]; then
    cargo build --release
    CTWDS_FS=${CARGO_TARGET_DIR:-$PWD/target}/release/ctwds-fs
fi
[ -e /dev/fuse ] || { echo "demo: there is no /dev/fuse here, so nothing can be mounted" >&2; exit 1; }

work=$(mktemp -d -t ctwds-demo-XXXXXX)
cleanup() {
    local status=$?
    if [ "$status" -ne 0 ] && [ -s "$work/log" ]; then
        echo "demo: the last lines of the mount's log:" >&2
        tail -n 20 "$work/log" >&2
    fi
    # Only after a failure is it still mounted; the data below must not be removed through it.
    if mountpoint -q "$work/mount" 2>/dev/null || grep -qsF " $work/mount " /proc/self/mounts; then
        timeout 20 "$CTWDS_FS" unmount "$work/mount" ||
            umount --force --lazy "$work/mount" || fusermount3 -u -z "$work/mount" || true
    fi
    rm -rf --one-file-system "$work"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$CTWDS_FS" demo "$work/demo"
.venv/bin/python scripts/demo.py "$@" "$CTWDS_FS" "$work"
