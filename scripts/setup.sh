#!/usr/bin/env bash
# Installs what building and testing need, and nothing that is there already: a second run takes well under a second.
#
#   Debian packages  a C toolchain, cmake (the tests build zlib-ng from source), fuse3, and Python with NumPy and PyTorch
#   chromium         only with --browser: Debian's, 290 MB, for tests/python/test_report.py
#   .venv-s3/        only with --s3: two servers of object storage, s3s-fs (built by cargo, with a Rust of 2026) and moto,
#                    for test_object_storage.py, 200 MB
#   slurm            only with --slurm: Debian's, 22 MB, for tests/python/test_slurm.py
#   .venv/           a virtual environment with the pinned packages of scripts/requirements.txt, 570 MB
#   .venv-dali/      only with --dali: NVIDIA DALI, 820 MB, for its test in tests/python/test_index_readers.py
#   .venv-datasets/  only with --datasets: Hugging Face datasets, 305 MB, for its test in test_loader_readers.py
#   .venv-frameworks/  only with --frameworks: PyTorch of today, Lightning, Accelerate, torchdata and MONAI, 1.5 GB, for
#                    test_loader_frameworks.py and test_monai.py
#   .venv-streams/   only with --streams: MosaicML's StreamingDataset and litdata, 1.7 GB, for rows of scripts/bench.sh
#   .venv-package/   only with --package: what scripts/package.sh builds a wheel with, 420 MB
#
# The tests that need one of these are skipped, and say so, where it is not there.
#
# Rust is not installed here: a toolchain is the user's choice, so a missing cargo is only reported.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Debian's interpreter by its full path: only it can see Debian's python3-torch, whatever `python3` is on the PATH.
readonly PYTHON=/usr/bin/python3
readonly PACKAGES=(
    build-essential ca-certificates cmake fuse3 pkg-config strace tar util-linux
    python3 python3-numpy python3-torch python3-venv python3-yaml
)

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

missing_packages() {
    # dpkg-query complains about unknown packages and exits 1: those are just the missing ones.
    local installed package
    installed=$(dpkg-query --show --showformat='${Package} ${db:Status-Status}\n' "${PACKAGES[@]}" 2>/dev/null || true)
    for package in "${PACKAGES[@]}"; do
        grep -qx "$package installed" <<<"$installed" || printf '%s\n' "$package"
    done
}

install_packages() {
    command -v dpkg-query >/dev/null || die "this script knows Debian only; install by other means: ${PACKAGES[*]}"
    local missing
    mapfile -t missing < <(missing_packages)
    [ "${#missing[@]}" -eq 0 ] && return
    [ "$(id -u)" -eq 0 ] || die "not root; please run: apt-get install --no-install-recommends ${missing[*]}"
    say "installing with apt: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq -o DPkg::Lock::Timeout=300 update
    apt-get -qq -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "${missing[@]}" >/dev/null
}

# install_extra PROGRAM PACKAGE...: what a few tests alone need, which are skipped without it: no reason to end here.
install_extra() {
    command -v "$1" >/dev/null && return
    shift
    say "installing with apt: $*"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get -qq -o DPkg::Lock::Timeout=300 update &&
        apt-get -qq -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@" >/dev/null; } ||
        say "$* could not be installed (apt needs root and a mirror): the tests that need it are skipped"
}

# without_gpu FOLDER: let the PyTorch of an environment run without NVIDIA's libraries, 4 GB, which a machine without a
# GPU never calls. It is linked with them and would not start, so libraries stand in for them in which every function
# fails. The CUDA runtime alone is the real one: it is asked whether there is a GPU.
without_gpu() (
    cd "$1"
    mapfile -t libraries < <(readelf -dW ./*.so* | sed -n 's/.*(NEEDED).*\[\(lib\(cu\|nccl\|nv\).*\)\]/\1/p' |
        grep -v -e libcudart -e libcuda.so | sort -u)
    names() { nm -D "$1" --format=just-symbols ./*.so* | sed 's/@.*//' | sort -u; }
    comm -23 <(names --undefined-only) <(names --defined-only) | grep -E '^(cu[a-z]*[A-Z]|nv|nccl)' |
        sed 's/.*/int &(void) { return 999; }/' | gcc -shared -fPIC -fno-builtin -o libno-gpu.so -x c -
    for library in "${libraries[@]}"; do
        gcc -shared -o "$library" -Wl,-soname,"$library" -Wl,-rpath,'$ORIGIN' -L. -Wl,--no-as-needed -lno-gpu
    done
)

# install_venv FOLDER REQUIREMENTS IMPORTS
install_venv() {
    # The stamp names everything that the environment was made from; a changed pin or a new Python remakes it.
    local wanted
    wanted="$(sha256sum "$2") $("$PYTHON" -VV) $PWD"
    [ "$(cat "$1/stamp" 2>/dev/null)" = "$wanted" ] && return
    say "making $1 from $PYTHON with the packages of $2"
    rm -rf "$1"
    "$PYTHON" -m venv --system-site-packages "$1"
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$2"
    local torch
    for torch in "$1"/lib/*/site-packages/torch/lib; do
        if [ -d "$torch" ]; then without_gpu "$torch"; fi
    done
    "$1/bin/python" -c "import $3" || die "the Python packages do not import"
    printf '%s\n' "$wanted" >"$1/stamp"
}

# A server of object storage over a folder, built beside moto.
install_s3s_fs() {
    [ -x .venv-s3/bin/s3s-fs ] && return
    say "building s3s-fs"
    # Not optimised: two minutes less, and the tests ask it for little.
    cargo install --quiet --debug --locked --root .venv-s3 --target-dir "${CARGO_TARGET_DIR:-target}/s3s-fs" \
        --features binary s3s-fs@0.14.1 || say "s3s-fs could not be built: the tests that need it are skipped"
}

for option in "$@"; do
    case "$option" in
        --browser | --dali | --datasets | --frameworks | --package | --s3 | --slurm | --streams) ;;
        *)
            die "unknown option $option; there are --browser, --dali, --datasets, --frameworks, --package, --s3," \
                "--slurm and --streams"
            ;;
    esac
done
install_packages
install_venv .venv scripts/requirements.txt "numpy, pandas, pytest, torch, webdataset, wids"
for option in "$@"; do
    case "$option" in
        --browser) install_extra chromium chromium ;;
        --s3)
            install_venv .venv-s3 scripts/requirements-s3.txt "boto3, moto.server"
            install_s3s_fs
            ;;
        --slurm) install_extra slurmd slurmctld slurmd slurm-client slurm-wlm-basic-plugins ;;
        --dali) install_venv .venv-dali scripts/requirements-dali.txt "numpy, nvidia.dali" ;;
        --datasets) install_venv .venv-datasets scripts/requirements-datasets.txt "torch, datasets" ;;
        --package)
            install_venv .venv-package scripts/requirements-package.txt "auditwheel, build, setuptools_rust, ziglang"
            ;;
        --streams)
            install_venv .venv-streams scripts/requirements-streams.txt "torch, streaming, litdata"
            ;;
        --frameworks)
            install_venv .venv-frameworks scripts/requirements-frameworks.txt \
                "lightning.pytorch, accelerate, torchdata.stateful_dataloader, monai, pytest"
            ;;
    esac
done
command -v cargo >/dev/null || die "cargo is not on the PATH; install a stable Rust toolchain first"
