#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Fills the cache with what the director module is built with and booted on, and says where it is.
#
#   scripts/kmod-env.sh boot     the trixie root and the stock kernel image with its modules: enough to boot a VM
#   scripts/kmod-env.sh          that, and the prepared kernel tree: enough to build the module
#   scripts/kmod-env.sh debug    the same for the debugging kernel (kmod-debug.config), which it
#                                builds from the same source
#
# Writes build/kmod/env (KMOD_OUT instead of build/kmod, if set), to be sourced by a shell:
#   KVER                kernel release, as `uname -r` prints it
#   KERNEL_IMAGE        bzImage to boot
#   KERNEL_MODULES_DIR  its stock modules, uncompressed, with modules.dep: <dir>/kernel/net/netfilter/ipvs/ip_vs.ko ...
#   TRIXIE_ROOT         a Debian root of that kernel's release: toolchain, stock ipvsadm, iproute2, kmod, busybox
#   KERNEL_TREE         prepared kernel tree (only after a run without `boot`)
#   KERNEL_CC           the compiler that it was prepared with
#
# Environment: KSERIES (see scripts/kmod-version), CSSNS_CACHE (where the cache is), KREFRESH=1 (ask the archive
# for newer kernels). Everything is idempotent and keyed by version; with a full cache it takes well under a
# second and needs no network.
set -euo pipefail
. "$(dirname "$0")/kmod-lib.sh"
# shellcheck source=scripts/kmod-debug-kernel.sh
. "$KMOD_TOP/scripts/kmod-debug-kernel.sh"

# The toolchain that built the stock kernel, and the tools that a VM's initramfs is made of.
ROOT_PACKAGES=rustc,rust-src,bindgen,clang,libclang-dev,gcc-14,make,flex,bison,libelf-dev,libssl-dev,bc,kmod
ROOT_PACKAGES+=,xz-utils,zstd,pahole,cpio,python3-minimal,ipvsadm,iproute2,busybox-static,ca-certificates
HOST_PACKAGES="mmdebstrap qemu-system-x86 cpio busybox-static kmod xz-utils debian-archive-keyring arch-test"
host_packages_missing() {
    dpkg-query -W -f '${Package} ${Status}\n' $HOST_PACKAGES 2>/dev/null |
        awk -v want="$HOST_PACKAGES" '/ install ok installed$/ { have[$1] = 1 }
            END { n = split(want, w, " "); for (i = 1; i <= n; i++) if (!(w[i] in have)) printf "%s ", w[i] }'
}

install_host_packages() {
    local missing
    missing=$(host_packages_missing)
    [ -z "$missing" ] && return
    step "installing on this machine: $missing" apt-host.log \
        bash -c "$APT update && DEBIAN_FRONTEND=noninteractive $APT install -y --no-install-recommends $missing"
}

make_root() {
    TRIXIE_ROOT=$KMOD_CACHE/$KSUITE-$(printf %s "$ROOT_PACKAGES" | cksum | cut -d' ' -f1)
    debian_root "$TRIXIE_ROOT" "$ROOT_PACKAGES" "making a $KSUITE root with the toolchain (about 60 s, 2 GB)"
}

root_apt_update() {
    cp -L /etc/resolv.conf "$TRIXIE_ROOT/etc/resolv.conf" 2>/dev/null || true
    step "reading $KSUITE's package lists" apt-root.log in_root apt-get -q update
}

# Newest kernel release of the series, else the newest of all. Remembered, so that a cached build asks nobody.
choose_kernel() {
    local memo=$KMOD_CACHE/kernels/series-$KSERIES-$KFLAVOUR all
    if [ -z "${KREFRESH:-}" ] && [ -s "$memo" ]; then
        KVER=$(cat "$memo")
        return
    fi
    root_apt_update
    all=$(in_root apt-cache pkgnames linux-image- | sed -n "s/^linux-image-\([0-9].*-$KFLAVOUR\)\$/\1/p" | sort -V)
    KVER=$(printf '%s\n' "$all" | grep "^${KSERIES//./\\.}\." | tail -n 1) || KVER=
    if [ -z "$KVER" ]; then
        KVER=$(printf '%s\n' "$all" | tail -n 1)
        [ -n "$KVER" ] || die "$KSUITE has no linux-image-*-$KFLAVOUR: choose another KFLAVOUR in scripts/kmod-version"
        say "$KSUITE has no kernel $KSERIES any more; taking the newest, $KVER"
    fi
    mkdir -p "$KMOD_CACHE/kernels"
    printf '%s\n' "$KVER" >"$memo"
}

# fetch_unpack DIR PACKAGE... : downloads with the root's own apt (which checks signatures), unpacks into
# /kernels/KVER/DIR.
fetch_unpack() {
    in_root bash -ec '
        unpack=$1
        shift
        cd "/kernels/$0" && rm -rf "$unpack" "$unpack.dl" && mkdir -p "$unpack" "$unpack.dl" && cd "$unpack.dl"
        apt-get -q download "$@" || { apt-get -q update && apt-get -q download "$@"; } ||
            { echo "If the archive has a newer kernel instead, KREFRESH=1 makes the next run take it."; exit 1; }
        for deb in *.deb; do dpkg-deb -x "$deb" "../$unpack"; done
        cd .. && rm -rf "$unpack.dl"' "$KVER" "$@"
}

# Newer kernels are split into linux-{image,binary,base,modules}-KVER; whatever the image depends on of that
# version is it.
fetch_image() {
    local parts
    parts=$(in_root apt-cache depends "linux-image-$KVER" |
        sed -n "s/^ *Depends: \(linux-[a-z]*-${KVER//./\\.}\)\$/\1/p")
    # shellcheck disable=SC2086  # one word per package
    fetch_unpack image.deb "linux-image-$KVER" $parts
    in_root bash -ec '
        cd "/kernels/$0" && rm -rf lib && mkdir -p lib/modules
        mv image.deb/usr/lib/modules/"$0" lib/modules/ 2>/dev/null || mv image.deb/lib/modules/"$0" lib/modules/
        mv lib/modules/"$0"/vmlinuz vmlinuz 2>/dev/null || mv image.deb/boot/vmlinuz-"$0" vmlinuz
        find lib/modules -name "*.ko.xz" -print0 | xargs -0r -n 64 -P 2 xz -d
        find lib/modules -name "*.ko.zst" -print0 | xargs -0r -n 64 -P 2 zstd -q -d --rm
        depmod -b . -a "$0"
        rm -rf image.deb' "$KVER"
}

get_image() {
    KDIR=$KMOD_CACHE/kernels/$KVER
    [ -e "$KDIR/.image" ] && return
    mkdir -p "$KDIR"
    step "fetching the stock kernel $KVER (about 30 s)" kernel-image.log fetch_image
    touch "$KDIR/.image"
}

# The version of Debian's source that the kernel was built from.
stock_source_version() {
    local version
    version=$(in_root apt-cache show "linux-headers-$1" | sed -n 's/^Version: //p' | head -n 1)
    [ -n "$version" ] || {
        root_apt_update >&2
        version=$(in_root apt-cache show "linux-headers-$1" | sed -n 's/^Version: //p' | head -n 1)
    }
    printf '%s\n' "$version"
}

prepare_tree() {
    local source_version
    source_version=$(stock_source_version "$KVER")
    fetch_unpack tree.deb "linux-headers-$KVER" "linux-source-$(printf %s "$KVER" | cut -d. -f1-2)=$source_version"
    in_root bash -ec '
        cd "/kernels/$0"
        /src/scripts/kernel-tree.sh "$0" "$PWD/tree.deb/usr/src/linux-headers-$0" \
            "$PWD"/tree.deb/usr/src/linux-source-*.tar.xz "$PWD/tree"
        rm -rf tree.deb' "$KVER"
}

get_tree() {
    [ -e "$KDIR/.tree" ] && return
    step "preparing the kernel tree for $KVER (about 150 s, 2 GB)" kernel-tree.log prepare_tree
    touch "$KDIR/.tree"
}

write_env() {
    mkdir -p "$KMOD_BUILD"
    {
        printf 'KVER=%q\n' "$KVER"
        printf 'KERNEL_IMAGE=%q\n' "$KDIR/vmlinuz"
        printf 'KERNEL_MODULES_DIR=%q\n' "$KDIR/lib/modules/$KVER"
        printf 'TRIXIE_ROOT=%q\n' "$TRIXIE_ROOT"
        [ ! -e "$KDIR/.tree" ] || printf 'KERNEL_TREE=%q\nKERNEL_CC=%q\n' "$KDIR/tree" "$KERNEL_CC"
    } >"$KMOD_BUILD/env.part"
    cmp -s "$KMOD_BUILD/env.part" "$KMOD_BUILD/env" 2>/dev/null || mv "$KMOD_BUILD/env.part" "$KMOD_BUILD/env"
    rm -f "$KMOD_BUILD/env.part"
}

# What built Debian's kernel.
KERNEL_CC=x86_64-linux-gnu-gcc-14

main() {
    local stage=${1:-build}
    case $stage in
        boot | build | debug) ;;
        *) die "usage: kmod-env.sh [boot|build|debug]" ;;
    esac
    [ "$(id -u)" = 0 ] || die "only root can make the build root and mount in it: run this as root"
    command -v apt-get >/dev/null || die "this needs a Debian 12 or 13 machine (no apt-get here)"
    mkdir -p "$KMOD_CACHE"
    exec 9>"$KMOD_CACHE/.lock"
    flock 9
    install_host_packages
    make_root
    choose_kernel
    if [ "$stage" = debug ]; then
        exec 9>&-
        get_debug_kernel
        write_env
        return
    fi
    get_image
    write_env
    if [ "$stage" = build ]; then
        get_tree
        write_env
    fi
}

main "$@"
