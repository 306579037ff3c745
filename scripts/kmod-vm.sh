#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Boots the stock kernel with the module at hand and runs a shell script in it as root; its output and exit
# status are ours. For trying the module by itself; the cluster has its own VM (tools/cssns).
#
#   scripts/kmod-vm.sh SCRIPT [FILE...]
#
# In the guest: / is a RAM disk with dash, busybox, ip, ipvsadm (stock), python3 and the kernel's own modules;
# /ipvs_mwlc.ko is the module, the FILEs lie in /. Environment: CPUS (2), MEM (768, in MB), ACCEL
# (tcg,thread=single: TCG with a thread for each CPU breaks the kernel's patching of its own code), TIMEOUT
# (300, in seconds), MODULES (more of the kernel's), RNG (the random number device; empty for none), QEMU_ARGS
# (more arguments). The stock ip_vs with its schedulers lies in /lib/modules/stock, not loaded.
set -euo pipefail
. "$(dirname "$0")/kmod-lib.sh"

[ $# -ge 1 ] || die "usage: kmod-vm.sh SCRIPT [FILE...]"
[ -e "$KMOD_BUILD/env" ] || "$KMOD_TOP/scripts/kmod-env.sh" boot
# shellcheck source=/dev/null
. "$KMOD_BUILD/env"

# What the scripts need of the kernel's modules, and what these depend on.
GUEST_MODULES="veth tun pktgen bridge 8021q bonding macvlan nf_conntrack sch_ingress cls_matchall act_mirred
    act_gact act_skbedit nf_tables virtio_rng ${MODULES:-}"
STOCK_MODULES="ip_vs ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_wlc ip_vs_sed ip_vs_nq ip_vs_sh ip_vs_mh ip_vs_fo
    ip_vs_ovf ip_vs_twos"
PROGRAMS="/usr/bin/dash /usr/sbin/ip /usr/sbin/tc /usr/sbin/ipvsadm /usr/bin/python3"
# What a Rust program (mwlcadm) loads beside libc.
PROGRAMS="$PROGRAMS /usr/lib/x86_64-linux-gnu/libgcc_s.so.1"

work=$(mktemp -d)
guest=
# `timeout` passes the signal on to QEMU.
cleanup() {
    # It is gone already unless this script was interrupted.
    [ -z "$guest" ] || kill "$guest" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

# with_libraries DIR PROGRAM...: copies programs of the trixie root with the libraries they load.
with_libraries() {
    local to=$1
    shift
    in_root bash -ec 'for p in "$@"; do echo "$p"; ldd "$p" | grep -o "/[^ ]*"; done | sort -u' programs "$@" |
        while read -r file; do install -D "$TRIXIE_ROOT$file" "$to$file"; done
}

# with_modules DIR MODULE...: copies the kernel's modules with what they depend on; DIR/order has the order of insmod.
with_modules() {
    local to=$1 module
    shift
    mkdir -p "$to"
    for module in "$@"; do
        modprobe -d "${KERNEL_MODULES_DIR%/lib/modules/*}" -S "$KVER" -D "$module" 2>/dev/null ||
            say "$KVER has no module $module" >&2
    done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' >"$work/list"
    while read -r module; do
        cp "$module" "$to/"
        basename "$module"
    done <"$work/list" >"$to/order"
}

make_root() {
    local to=$work/root
    mkdir -p "$to"/{bin,dev,proc,sys,tmp,run,etc,lib64,usr/lib}
    cp "$TRIXIE_ROOT/usr/bin/busybox" "$to/bin/"
    with_libraries "$to" $PROGRAMS
    mkdir -p "$to/usr/lib/python3.13"
    cp -r "$TRIXIE_ROOT"/usr/lib/python3*/. "$to/usr/lib/python3.13/"
    [ -e "$to/lib64/ld-linux-x86-64.so.2" ] || cp -L "$TRIXIE_ROOT/lib64/ld-linux-x86-64.so.2" "$to/lib64/"
    mkdir -p "$to/lib/modules/$KVER"
    with_modules "$to/lib/modules" $GUEST_MODULES
    with_modules "$to/lib/modules/stock" $STOCK_MODULES
    cp "$KMOD_BUILD/ipvs_mwlc.ko" "$to/"
    cp "$1" "$to/script"
    shift
    [ $# = 0 ] || cp -r "$@" "$to/"
    cat >"$to/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
# The sh of busybox would prefer its own ip to the real one.
ln -sf /usr/bin/dash /bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /run/netns /dev/net /var/run
for m in $(cat /lib/modules/order); do insmod /lib/modules/$m || echo "init: no module $m"; done
ip link set lo up
/usr/bin/dash /script
echo "guest exit status: $?"
poweroff -f
INIT
    chmod +x "$to/init"
    (cd "$to" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initrd"
}

make_root "$@"
mkfifo "$work/serial"
tee "$work/console" <"$work/serial" &
shown=$!
timeout "${TIMEOUT:-300}" qemu-system-x86_64 -accel "${ACCEL:-tcg,thread=single}" -smp "${CPUS:-2}" -m "${MEM:-768}" \
    -nographic -no-reboot -monitor none -serial stdio -nic none ${RNG--device virtio-rng-pci} ${QEMU_ARGS:-} \
    -kernel "$KERNEL_IMAGE" -initrd "$work/initrd" \
    -append "console=ttyS0 quiet loglevel=6 panic=-1 no_timer_check ${APPEND:-}" \
    </dev/null >"$work/serial" &
guest=$!
wait "$guest" || true
wait "$shown"
# None, where it did not come so far.
status=$(grep -o 'guest exit status: [0-9]*' "$work/console" | tail -n 1) || true
status=${status##* }
exit "${status:-1}"
