#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Fuzzes the director's pure code (kmod-ipvs-mwlc/fuzz/targets.rs) and what PVFS takes from the network
# (tests/fuzz/targets.rs) with cargo-fuzz, on the stable toolchain: the code has no unsafe blocks, so no
# sanitizer is needed, only coverage.
#
#   scripts/fuzz.sh [TARGET...]        each target (all) for FUZZ_SECONDS (60); finds go to build/fuzz
#   scripts/fuzz.sh keep [TARGET...]   the finds that reach new code become part of the corpus in the tree
#
# An input that makes a target fail is left in build/fuzz/TARGET-crash-*; put it into the corpus with the fix.
set -euo pipefail
cd "$(dirname "$0")/.."

CARGO_FUZZ_VERSION=0.13.2
# Inputs of more bytes reach no more code: headers, requests and loads are short.
INPUT_BYTES_MAX=512
# What is kept is bounded, for it is read at every test.
CORPUS_FILES_MAX=200

seconds=${FUZZ_SECONDS:-60}
folders=(kmod-ipvs-mwlc/fuzz tests/fuzz)
out=build/fuzz

keep=
[ "${1:-}" != keep ] || { keep=1 && shift; }
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(
    for folder in "${folders[@]}"; do (cd "$folder/fuzz_targets" && printf '%s\n' *.rs | sed 's/\.rs$//'); done
)

command -v cargo-fuzz >/dev/null ||
    { echo "fuzz: installing cargo-fuzz $CARGO_FUZZ_VERSION (some minutes)" &&
        cargo install --locked cargo-fuzz --version $CARGO_FUZZ_VERSION; }

# folder_of TARGET: where it is.
folder_of() {
    local folder
    for folder in "${folders[@]}"; do
        [ ! -f "$folder/fuzz_targets/$1.rs" ] || { echo "$folder" && return; }
    done
    echo "fuzz: there is no target $1" >&2
    exit 1
}

# run TARGET ARGUMENT...: the target's program with libFuzzer's arguments.
run() {
    local target=$1
    shift
    (cd "$fuzz/.." && cargo fuzz run --sanitizer none --target-dir ../target/fuzz "$target" "$@")
}

for target in "${targets[@]}"; do
    fuzz=$(folder_of "$target")
    mkdir -p "$out/$target"
    if [ -n "$keep" ]; then
        echo "fuzz: keeping what $target found"
        run "$target" "fuzz/corpus/$target" "../$out/$target" -- -merge=1 -use_counters=0 -max_len=$INPUT_BYTES_MAX
        kept=$(find "$fuzz/corpus/$target" -type f | wc -l)
        [ "$kept" -le $CORPUS_FILES_MAX ] ||
            echo "fuzz: $target has $kept inputs now; more than $CORPUS_FILES_MAX are too many to keep"
    else
        echo "fuzz: $target for $seconds s"
        run "$target" "../$out/$target" "fuzz/corpus/$target" -- -max_total_time="$seconds" -max_len=$INPUT_BYTES_MAX \
            -artifact_prefix="../$out/$target-" -print_final_stats=1 2>&1 | tee "$out/$target.log" |
            grep -E '^(Done|stat::|SUMMARY)|panicked|crash|ERROR' ||
            { tail -n 30 "$out/$target.log" && exit 1; }
    fi
done
