#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds build/kmod/ipvs_mwlc.ko for the stock kernel that scripts/kmod-version names. Calls kmod-env.sh first,
# so from nothing it takes some minutes and afterwards seconds. KSERIES=7.2 builds for that series.
# KMOD_KERNEL=debug builds for the debugging kernel; set KMOD_OUT then, so that the stock kernel's module stays.
set -euo pipefail
. "$(dirname "$0")/kmod-lib.sh"

# What a panicking expression in Rust compiles to. The module must have none: a panic stops the whole machine.
PANIC_SYMBOLS='panic|unwrap_failed|expect_failed|slice_.*_fail|bounds_check|option_expect|result_unwrap'

# With `MO=` every output goes to a folder of its own, so the checkout stays clean and `make clean` harms nothing.
# Kbuild rebuilds an external module for a changed compiler or source, but not for a kernel that was configured anew.
build_module() {
    in_root bash -ec '
        [ ! "/kernels/$0/tree/include/generated/autoconf.h" -nt "/out/obj-$0/.made" ] || rm -rf "/out/obj-$0"
        mkdir -p "/out/obj-$0"
        make -C "/kernels/$0/tree" ARCH=x86 CC="$1" KERNELRELEASE="$0" \
            M=/src MO="/out/obj-$0" KBUILD_MODPOST_WARN= -j"$(nproc)" modules
        touch "/out/obj-$0/.made"
        cp "/out/obj-$0/kmod-ipvs-mwlc/ipvs_mwlc.ko" /out/ipvs_mwlc.ko.part' "$KVER" "$KERNEL_CC"
}

# Fails if the pure code, compiled alone, refers to a panic, or the module as a whole does.
check_no_panic() {
    local object found
    for object in "obj-$KVER/kmod-ipvs-mwlc/director_check.o" ipvs_mwlc.ko.part; do
        found=$(in_root nm -u --demangle "/out/$object" | grep -E "$PANIC_SYMBOLS" || true)
        [ -z "$found" ] || die "$object can panic: $found
Use get, checked_*, saturating_* or wrapping_*, and push_within_capacity.
Find the place with: objdump -dr $KMOD_BUILD/$object"
    done
}

# Fails if the module needs a symbol that the stock kernel does not export; modpost only warns about some.
check_symbols() {
    local missing
    missing=$(in_root bash -ec '
        nm -u /out/ipvs_mwlc.ko.part | sed "s/^ *U //" | sort -u |
            comm -23 - <(cut -f2 "/kernels/$0/tree/Module.symvers" | sort -u)' "$KVER")
    [ -z "$missing" ] || die "the stock kernel $KVER does not export: $missing"
}

main() {
    # Two builds into the same folder would tread on each other.
    mkdir -p "$KMOD_BUILD"
    exec 8>"$KMOD_BUILD/.lock"
    flock 8
    "$KMOD_TOP/scripts/kmod-env.sh" "${KMOD_KERNEL:-build}"
    # shellcheck source=/dev/null
    . "$KMOD_BUILD/env"
    step "building ipvs_mwlc.ko for $KVER" build.log build_module
    check_no_panic
    check_symbols
    mv "$KMOD_BUILD/ipvs_mwlc.ko.part" "$KMOD_BUILD/ipvs_mwlc.ko"
    say "build/kmod/ipvs_mwlc.ko is ready for $KVER"
}

main "$@"
