#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Tests the module in a VM with the stock kernel: scripts/kmod-test.sh [TEST...]: names of functions or of files
# in kmod-ipvs-mwlc/selftest; -NAME takes away. FLOOD (30000) is how many clients the flood of SYNs has; from
# 1000000 on templates are filled up to their bound by the RAM too.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tests=$here/../kmod-ipvs-mwlc/selftest
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$tests" "$work/selftest"
printf '%s\n' "$@" >"$work/selftest/wanted"
echo "${FLOOD:-30000}" >"$work/selftest/flood_clients"
cargo build --quiet --locked --package mwlcadm --package mwlcd --package cssns-tests --bin mwlcadm --bin mwlcd \
    --bin vm-packets \
    --manifest-path "$here/../Cargo.toml"
programs=$here/../target/debug
TIMEOUT=${TIMEOUT:-1500} "$here/kmod-vm.sh" "$tests/guest.sh" "$work/selftest" "$programs/mwlcadm" \
    "$programs/mwlcd" "$programs/vm-packets"
