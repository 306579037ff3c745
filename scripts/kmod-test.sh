#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Tests the module in a VM with the stock kernel: scripts/kmod-test.sh [TEST...] (names of functions in kmod-ipvs-mwlc/selftest).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tests=$here/../kmod-ipvs-mwlc/selftest
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$tests" "$work/selftest"
printf '%s\n' "$@" >"$work/selftest/wanted"
cargo build --quiet --locked --package mwlcadm --package mwlcd --manifest-path "$here/../Cargo.toml"
TIMEOUT=${TIMEOUT:-1500} "$here/kmod-vm.sh" "$tests/guest.sh" "$work/selftest" "$here/../target/debug/mwlcadm" "$here/../target/debug/mwlcd"
