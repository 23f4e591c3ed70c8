#!/usr/bin/env bash
# Fuzzes every parser of bytes that others wrote, or the named ones, each for SECONDS (default 60):
# scripts/fuzz.sh [SECONDS [TARGET...]]
# What is found lies in fuzz/artifacts/TARGET/; put it into fuzz/corpus/TARGET/, which `cargo test` replays without a
# fuzzer. Inputs that reach new code are kept outside the repository, in fuzz/target/corpus/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly SECONDS_EACH=${1:-60}
die() { printf 'fuzz: %s\n' "$*" >&2; exit 1; }

[[ "$SECONDS_EACH" =~ ^[1-9][0-9]*$ ]] || die "'$SECONDS_EACH' is no number of seconds"
command -v cargo >/dev/null || die "cargo is not on the PATH; install a stable Rust toolchain first"
cargo fuzz --version >/dev/null 2>&1 || die "cargo-fuzz is missing: cargo install cargo-fuzz (the corpus is replayed by \`cargo test --test corpus\` without it)"
command -v c++ >/dev/null || die "a C++ compiler is missing, which builds libFuzzer: apt-get install g++"

targets=("${@:2}")
if [ ${#targets[@]} -eq 0 ]; then
    for file in fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
for name in "${targets[@]}"; do
    [ -f "fuzz/fuzz_targets/$name.rs" ] || die "no target '$name'; there are: $(basename -s .rs fuzz/fuzz_targets/*.rs | xargs)"
done

export RUSTC_BOOTSTRAP=1 # the sanitizer's flags, on a stable toolchain
for name in "${targets[@]}"; do
    found=fuzz/target/corpus/$name
    mkdir -p "$found"
    seeds=("fuzz/corpus/$name")
    [ "$name" = npz ] && seeds+=(tests/npz)
    printf '== %s, %s s\n' "$name" "$SECONDS_EACH"
    # 5 s for one input is a hang; 512 MiB is more than any input accounts for.
    nice -n 10 cargo fuzz run "$name" "$found" "${seeds[@]}" -- \
        -max_total_time="$SECONDS_EACH" -timeout=5 -rss_limit_mb=512 -max_len=16384 -print_final_stats=1
done
