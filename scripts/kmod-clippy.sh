#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Checks the module's formatting, and lints it with clippy and the kernel's own choice of lints; any warning
# fails. For `make check`.
set -euo pipefail
. "$(dirname "$0")/kmod-lib.sh"

KMOD_BUILD=$KMOD_BUILD/clippy

lint() {
    in_root bash -ec '
        command -v clippy-driver >/dev/null || apt-get -q install -y --no-install-recommends rust-clippy ||
            { apt-get -q update && apt-get -q install -y --no-install-recommends rust-clippy; }
        rm -rf /out/obj && mkdir -p /out/obj
        make -C "/kernels/$0/tree" ARCH=x86 CC=x86_64-linux-gnu-gcc-14 KERNELRELEASE="$0" \
            M=/src MO=/out/obj CLIPPY=1 -j"$(nproc)" modules' "$KVER"
}

rustfmt --edition 2021 --check "$KMOD_TOP/kmod-ipvs-mwlc/ipvs_mwlc_main.rs" \
    "$KMOD_TOP/kmod-ipvs-mwlc/director_check.rs" >&2 ||
    die "the module is not formatted: rustfmt --edition 2021 kmod-ipvs-mwlc/ipvs_mwlc_main.rs"
KMOD_OUT=$KMOD_BUILD "$KMOD_TOP/scripts/kmod-env.sh" build
# shellcheck source=/dev/null
. "$KMOD_BUILD/env"
KMOD_LOGS=$KMOD_BUILD/logs
step "linting the module" clippy.log lint
if grep -qE '^(warning|error)' "$KMOD_LOGS/clippy.log"; then
    grep -E '^(warning|error)' -A 12 "$KMOD_LOGS/clippy.log" >&2
    die "clippy has complaints about the module"
fi
