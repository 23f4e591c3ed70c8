#!/usr/bin/env bash
# Measures the program against what one would do without it, in one command: installs what is missing, builds, writes a
# data set into a temporary folder, measures, and prints the table of targets. Arguments go to scripts/bench, e.g.
#   scripts/bench.sh                      everything, about 20 minutes on two cores
#   scripts/bench.sh --quick              one run on small data, to see that everything works
#   scripts/bench.sh --rows 'cold/*'      some rows (see --list)
#   scripts/bench.sh --render FILE.json   the table and the plot again from the raw samples
# The data set needs up to 12 GB below ${TMPDIR:-/tmp}, and memory to hold it; --keep leaves it there.
# CTWDS_FS=PATH measures another binary and builds none.
set -euo pipefail
here=$PWD # what relative arguments refer to
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH=$PWD/scripts
readonly DEADLINE=3600 # seconds; a full run takes a quarter of that

keep=false
for argument in "$@"; do
    case $argument in
    --keep) keep=true ;;
    --render | --render=* | --list | --help | -h) exec /usr/bin/env python3 -m bench --base "$here" "$@" ;;
    esac
done

scripts/setup.sh
if [ -z "${CTWDS_FS:-}" ]; then
    scripts/extension.sh --release
    CTWDS_FS=${CARGO_TARGET_DIR:-$PWD/target}/release/ctwds-fs
fi
CTWDS_FS=$(realpath "$CTWDS_FS")
[ -e /dev/fuse ] || { echo "bench: there is no /dev/fuse here, so nothing can be mounted" >&2; exit 1; }

work=$(realpath "$(mktemp -d -t ctwds-bench-XXXXXX)")
child=
# Mounts of this run; there are none left unless the measuring process was killed.
mounts() { awk -v below="$work/" 'index($2, below) == 1 { print $1, $2 }' /proc/self/mounts; }
cleanup() {
    local status=$? source point
    if [ -n "$child" ] && kill -TERM "$child" 2>/dev/null; then
        wait "$child" || true
    fi
    while read -r source point; do
        kill -KILL "${source#ctwds-fs:}" 2>/dev/null || true
        umount --force --lazy "$point" || fusermount3 -u -z "$point" || true
    done < <(mounts)
    if $keep; then
        echo "bench: the data is kept in $work" >&2
    else
        rm -rf --one-file-system "$work"
    fi
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# In the background, because bash runs a trap only once the command in the foreground has ended. PyTorch's workers leave
# temporary folders behind, so these go where everything is removed.
TMPDIR=$work timeout --kill-after=60 "$DEADLINE" \
    .venv/bin/python -m bench --base "$here" --program "$CTWDS_FS" --work "$work" "$@" &
child=$!
status=0
wait "$child" || status=$?
child=
exit "$status"
