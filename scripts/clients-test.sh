#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Runs what others wrote against the module in a VM: scripts/clients-test.sh [TEST...] (names of functions in
# kmod-ipvs-mwlc/selftest/clients). The guest is Debian 13 from the clients' disk, on the stock kernel.
#
# Environment: TIMEOUT (5400, seconds for the guest, on however busy a machine), DIRECTOR (ipvs_mwlc; `ip_vs` runs the
# same on the stock module, to compare), MEM (1024, MB), ACCEL (tcg,thread=single).
set -euo pipefail
. "$(dirname "$0")/kmod-lib.sh"

# What the tests need of the kernel's modules, with what these depend on; loaded when asked for.
GUEST_MODULES="veth bridge tun dummy macvlan ipip virtio_net virtio_rng nf_tables nft_reject_inet
    nft_reject_ipv4 nft_reject_ipv6 nft_counter nft_ct nft_limit sch_tbf
    ip_vs ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_wlc ip_vs_sed ip_vs_nq ip_vs_sh ip_vs_mh ip_vs_dh
    ip_vs_fo ip_vs_ovf ip_vs_twos ip_vs_lblc ip_vs_lblcr"
# What it takes to get at the disk; loaded first.
BOOT_MODULES="virtio_blk overlay"
# The kernel's own test of ip_vs and what it sources: GPL, so it comes from the kernel's source package and is
# no part of this tree.
KERNEL_TESTS="net/lib.sh net/netfilter/lib.sh net/netfilter/ipvs.sh"
: "${DIRECTOR:=ipvs_mwlc}" "${ACCEL:=tcg,thread=single}" "${MEM:=1024}" "${TIMEOUT:=5400}"

work=$(mktemp -d)
guests=()
cleanup() {
    local guest
    # They are gone already unless this script was interrupted.
    for guest in "${guests[@]}"; do kill "$guest" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

# closure NAME...: these modules and what they need, in order of insertion, as files.
closure() {
    modprobe -d "${KERNEL_MODULES_DIR%/lib/modules/*}" -S "$KVER" -a -D "$@" 2>/dev/null |
        sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++'
}

# The module stands where `modprobe ip_vs`, which keepalived and Docker run, finds it: as `make install` sets it up.
stage_modules() {
    local to=$work/stage/lib/modules/$KVER file
    # shellcheck disable=SC2086  # one word a module
    for file in $(closure $GUEST_MODULES $BOOT_MODULES); do
        install -D -m 644 "$file" "$to/${file#"$KERNEL_MODULES_DIR"/}"
    done
    install -D -m 644 "$KMOD_BUILD/ipvs_mwlc.ko" "$to/updates/ipvs_mwlc.ko"
    cp "$KERNEL_MODULES_DIR"/modules.{builtin,builtin.modinfo,order} "$to/"
    depmod -b "$work/stage" -a "$KVER"
    mkdir -p "$work/root/payload/usr/lib/modules" "$work/root/payload/etc/modprobe.d"
    mv "$to" "$work/root/payload/usr/lib/modules/"
    [ "$DIRECTOR" = ip_vs ] || echo "alias ip_vs ipvs_mwlc" >"$work/root/payload/etc/modprobe.d/ipvs_mwlc.conf"
}

make_initrd() {
    local to=$work/root file
    mkdir -p "$to"/{bin,dev,proc,sys,disk,rw,new,boot-modules} "$to/payload/usr/bin" "$to/payload/selftest"
    cp "$TRIXIE_ROOT/usr/bin/busybox" "$to/bin/"
    cp "$TRIXIE_ROOT/usr/bin/busybox" "$to/payload/usr/bin/"
    # shellcheck disable=SC2086
    for file in $(closure $BOOT_MODULES); do
        cp "$file" "$to/boot-modules/" && basename "$file"
    done >"$to/boot-modules/order"
    stage_modules
    cp -r "$KMOD_TOP/kmod-ipvs-mwlc/selftest/." "$to/payload/selftest/"
    cp "$KMOD_TOP/install/keepalived.conf.example" "$to/payload/selftest/"
    printf '%s\n' "$@" >"$to/payload/selftest/wanted"
    for file in $KERNEL_TESTS; do
        install -D "$KERNEL_TREE/tools/testing/selftests/$file" "$to/payload/kselftest/$file"
    done
    install -m 755 "$KMOD_TOP/kmod-ipvs-mwlc/selftest/clients/guest.sh" "$to/payload/start"
    install -m 755 "$KMOD_TOP/kmod-ipvs-mwlc/selftest/clients/initramfs.sh" "$to/init"
    (cd "$to" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initrd"
}

# boot NAME ROLE QEMU_ARGUMENT...: a guest whose console is the fifo NAME.serial.
boot() {
    local name=$1 role=$2
    shift 2
    rm -f "$work/$name.serial"
    mkfifo "$work/$name.serial"
    timeout "$TIMEOUT" qemu-system-x86_64 -accel "$ACCEL" -smp 1 -m "$MEM" \
        -nographic -no-reboot -monitor none -serial stdio -nic none -device virtio-rng-pci \
        -drive "file=$CLIENTS_IMAGE,format=raw,if=virtio,readonly=on" "$@" \
        -kernel "$KERNEL_IMAGE" -initrd "$work/initrd" \
        -append "quiet console=ttyS0 loglevel=6 panic=-1 director=$DIRECTOR role=$role ${APPEND:-}" \
        </dev/null >"$work/$name.serial" &
    guests+=($!)
}

# Obeys what the lab asks of its host, a line `@host VERB NAME` on its console: it can neither start nor kill a machine.
obey() {
    local line director=
    while IFS= read -r line; do
        printf '%s\n' "$line"
        case $line in
            *"@host boot director"*)
                boot director director -netdev "stream,id=cable,server=off,addr.type=unix,addr.path=$work/cable" \
                    -device virtio-net-pci,netdev=cable,mac=52:54:00:00:00:02
                cat "$work/director.serial" >"$work/director.console" &
                director=${guests[-1]}
                ;;
            *"@host kill director"*)
                # QEMU, not the guest in it, hears this: for the guest it is a power cut.
                kill "$director" 2>/dev/null && wait "$director" || true
                ;;
        esac
    done
}

main() {
    "$KMOD_TOP/scripts/clients-env.sh"
    # shellcheck source=/dev/null
    . "$KMOD_BUILD/env"
    # shellcheck source=/dev/null
    . "$KMOD_BUILD/clients-env"
    make_initrd "$@"
    boot lab lab -netdev "stream,id=cable,server=on,addr.type=unix,addr.path=$work/cable" \
        -device virtio-net-pci,netdev=cable,mac=52:54:00:00:00:01
    obey < <(tee "$work/console" <"$work/lab.serial")
    wait "${guests[0]}" || true
    grep -q 'guest exit status: 0' "$work/console"
}

main "$@"
