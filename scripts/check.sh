#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The rules that a machine can check: formatting, lints, documentation, tidiness, dependencies, shell scripts.
set -euo pipefail
cd "$(dirname "$0")/.."

# The newest that Rust 1.85 builds.
DENY_VERSION=0.18.3

run() { echo "check: $*" >&2; "$@"; }

run cargo fmt --all --check
run cargo clippy --locked --workspace --all-targets -- -D warnings
run cargo clippy --locked -p cssns-simulation --features simulation --all-targets -- -D warnings
RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" run cargo doc --locked --workspace --no-deps \
    --quiet --lib
run cargo run --quiet --locked -p cssns-tidy
run scripts/kmod-clippy.sh
for script in scripts/*.sh .ci/run; do run bash -n "$script"; done

cargo deny --version >/dev/null 2>&1 || {
    echo "check: building cargo-deny (a few minutes, once)" >&2
    cargo install --quiet --locked --version "$DENY_VERSION" cargo-deny
}
run cargo deny --locked check bans licenses sources
# The advisory database comes over the network; a machine that cannot reach it still checks the rest, and says so.
if cargo deny --locked fetch db 2>/dev/null; then
    run cargo deny --locked check advisories
else
    echo "check: the advisory database cannot be fetched here: advisories were NOT checked" >&2
fi
