#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Everything at once at the module in a VM, for MINUTES (2): configuration, namespaces, floods, garbage,
# transfers, insmod and rmmod. What it does and what must hold stands in kmod-ipvs-mwlc/selftest/soak.py. SEED
# (1) selects another course of events.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tests=$here/../kmod-ipvs-mwlc/selftest
: "${MINUTES:=2}" "${SEED:=1}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$tests" "$work/selftest"
echo "$MINUTES $SEED" >"$work/selftest/wanted"
cargo build --quiet --locked --package cssns-tests --bin vm-packets --bin netlink-garbage \
    --manifest-path "$here/../Cargo.toml"
programs=$here/../target/debug
# A round that has begun is ended, and an emulated guest on a busy machine is slow.
TIMEOUT=$(awk "BEGIN { print int(60 * $MINUTES) + 900 }") MEM=${MEM:-1024} \
    "$here/kmod-vm.sh" "$tests/soak.sh" "$work/selftest" "$programs/vm-packets" "$programs/netlink-garbage"
