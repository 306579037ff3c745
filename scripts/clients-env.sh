#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Fills the cache with what others wrote and the director must serve: a disk image of Debian 13 with keepalived,
# ipvsadm, the Prometheus node exporter, pyroute2 and a program on moby/ipvs. Nothing of it is in this tree.
# Idempotent, keyed by content.
#
# Writes build/kmod/clients-env, to be sourced by a shell:
#   CLIENTS_IMAGE       the disk, ext4, mounted read-only by guests
set -euo pipefail
. "$(dirname "$0")/kmod-lib.sh"

# What runs in the guest. Debian's archive pins the versions: a stable release changes them for security only.
GUEST_PACKAGES=keepalived,ipvsadm,prometheus-node-exporter,python3,curl,socat,iproute2,iputils-ping
GUEST_PACKAGES+=,iputils-arping,procps,kmod,nftables,nginx-light,openssl,ca-certificates
# What the library comes from (docker's packaging ships moby/ipvs), and what compiles a program on it.
GO_PACKAGES=golang-go,golang-github-docker-docker-dev,golang-github-vishvananda-netlink-dev
GO_PACKAGES+=,golang-github-vishvananda-netns-dev
# A library for the family on PyPI: pure Python, so its wheel is all there is.
PYROUTE2_VERSION=0.9.7
# What Go needs to build is no part of the disk.
NOT_ON_DISK="usr/lib/go-1.24 usr/share/go-1.24 usr/share/gocode usr/share/doc var/cache/apt var/lib/apt/lists
    usr/share/locale usr/share/man"
IMAGE_MIB=900

CLIENT_SOURCES=$KMOD_TOP/kmod-ipvs-mwlc/selftest/clients

# Compiled in the root and for it, from Debian's own sources, in GOPATH mode: nothing is fetched.
build_go_program() {
    TRIXIE_ROOT=$CLIENTS_ROOT in_root env GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=/out/gocache \
        GOFLAGS=-trimpath \
        go build -o /out/moby-ipvs /src/kmod-ipvs-mwlc/selftest/clients/moby/main.go
    install -D "$KMOD_BUILD/moby-ipvs" "$CLIENTS_ROOT/usr/local/bin/moby-ipvs"
}

fetch_pyroute2() {
    local pip=(python3 -m pip)
    "${pip[@]}" --version >/dev/null 2>&1 || $APT install -y --no-install-recommends python3-pip
    rm -rf "$CLIENTS_ROOT/opt/pyroute2"
    "${pip[@]}" install --quiet --no-deps --no-compile --root-user-action=ignore --python-version 3.13 \
        --only-binary :all: \
        --target "$CLIENTS_ROOT/opt/pyroute2" "pyroute2==$PYROUTE2_VERSION"
}

# The folders that stay away are hidden under empty ones in a mount namespace of their own.
make_image() {
    rm -f "$CLIENTS_IMAGE.part"
    # shellcheck disable=SC2086,SC2016  # one word a folder; expanded by the inner shell
    unshare --mount --propagation private bash -ec '
        root=$1 image=$2 mib=$3
        shift 3
        for folder; do [ ! -d "$root/$folder" ] || mount -t tmpfs none "$root/$folder"; done
        mke2fs -q -t ext4 -O ^has_journal -m 0 -d "$root" "$image" "${mib}M"
    ' make_image "$CLIENTS_ROOT" "$CLIENTS_IMAGE.part" "$IMAGE_MIB" $NOT_ON_DISK
    mv "$CLIENTS_IMAGE.part" "$CLIENTS_IMAGE"
}

main() {
    [ "$(id -u)" = 0 ] || die "only root can make the clients' root and mount in it: run this as root"
    [ -e "$KMOD_BUILD/env" ] || "$KMOD_TOP/scripts/kmod-env.sh" boot
    mkdir -p "$KMOD_CACHE"
    exec 9>"$KMOD_CACHE/.lock"
    flock 9
    local packages=$GUEST_PACKAGES,$GO_PACKAGES content
    CLIENTS_ROOT=$KMOD_CACHE/clients-$(printf %s "$packages" | cksum | cut -d' ' -f1)
    content=$(cat "$0" "$CLIENT_SOURCES"/moby/*.go | cksum | cut -d' ' -f1)
    CLIENTS_IMAGE=$CLIENTS_ROOT-$content.ext4
    if [ ! -e "$CLIENTS_IMAGE" ]; then
        debian_root "$CLIENTS_ROOT" "$packages" \
            "making a $KSUITE root with keepalived and other clients (about 90 s, 1 GB)"
        rm -f "$CLIENTS_ROOT"-*.ext4
        step "fetching pyroute2 $PYROUTE2_VERSION" pyroute2.log fetch_pyroute2
        step "building a program on moby/ipvs" moby.log build_go_program
        step "making the clients' disk" clients-image.log make_image
    fi
    printf 'CLIENTS_IMAGE=%q\n' "$CLIENTS_IMAGE" >"$KMOD_BUILD/clients-env"
}

main "$@"
