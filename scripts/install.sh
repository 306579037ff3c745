#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Installs on a Debian 13 host: scripts/install.sh [install|uninstall|module] [DESTDIR [PREFIX]]
#
#   install    programs, mount helpers, manual pages, completions, systemd units, and the module's source for DKMS
#   uninstall  takes exactly these away again; configuration and data stay
#   module     has DKMS build and install the module for this kernel, from what `install` put under /usr/src
#
# Programs, pages, completions and units go to DESTDIR/PREFIX; what the system looks for in one place only
# (mount helpers, module sources) goes below DESTDIR alone. BINARIES is where the programs are (target/release).
set -euo pipefail
cd "$(dirname "$0")/.."
verb=${1:-install} dest=${2-} prefix=${3:-/usr/local}
binaries=${BINARIES:-target/release}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
source_dir=/usr/src/ipvs-mwlc-$version

SBIN_PROGRAMS="pvfs-mgr pvfs-iod pvfs-fuse mwlcadm mwlcd"
BIN_PROGRAMS="pvfs cssns"
MOUNT_HELPERS="mount.fuse.pvfs mount.pvfs"
COMPLETED_PROGRAMS="mwlcadm pvfs"
BASH_COMPLETIONS=share/bash-completion/completions
ZSH_COMPLETIONS=share/zsh/site-functions
FISH_COMPLETIONS=share/fish/vendor_completions.d
DOCUMENTS=share/doc/ipvs-mwlc

say() { echo "install: $*" >&2; }
die() { say "$*"; exit 1; }

install_programs() {
    local program helper
    for program in $SBIN_PROGRAMS; do install -D -m 755 "$binaries/$program" "$dest$prefix/sbin/$program"; done
    for program in $BIN_PROGRAMS; do install -D -m 755 "$binaries/$program" "$dest$prefix/bin/$program"; done
    # mount(8) looks for its helpers in /sbin and nowhere else.
    install -d "$dest/sbin"
    for helper in $MOUNT_HELPERS; do ln -sfn "$prefix/sbin/pvfs-fuse" "$dest/sbin/$helper"; done
}

install_documents() {
    local page
    for page in docs/man/*.[1-8]; do
        install -D -m 644 "$page" "$dest$prefix/share/man/man${page##*.}/$(basename "$page")"
    done
    install -D -m 644 -t "$dest$prefix/$DOCUMENTS" install/keepalived.conf.example docs/OPERATING.md \
        LICENSE-GPL-2.0 LICENSE-MIT
    # Written by the program itself, so that they fit it.
    local program
    for program in $COMPLETED_PROGRAMS; do
        complete_for "$program" bash "$BASH_COMPLETIONS/$program"
        complete_for "$program" zsh "$ZSH_COMPLETIONS/_$program"
        complete_for "$program" fish "$FISH_COMPLETIONS/$program.fish"
    done
}

complete_for() {
    install -d "$(dirname "$dest$prefix/$3")"
    "$binaries/$1" completions "$2" >"$dest$prefix/$3"
}

install_units() {
    local unit
    for unit in install/systemd/*.service; do
        install -d "$dest$prefix/lib/systemd/system"
        sed "s|@SBIN@|$prefix/sbin|g" "$unit" >"$dest$prefix/lib/systemd/system/$(basename "$unit")"
    done
    install -D -m 644 install/modprobe.conf "$dest$prefix/lib/modprobe.d/ipvs-mwlc.conf"
}

install_source() {
    local to=$dest$source_dir
    rm -rf "$to"
    install -d "$to/kmod-ipvs-mwlc" "$to/dkms"
    cp Kbuild LICENSE-GPL-2.0 LICENSE-MIT "$to/"
    cp -r kmod-ipvs-mwlc/Kbuild kmod-ipvs-mwlc/*.rs kmod-ipvs-mwlc/{director,kapi,state,datapath,upkeep,control} \
        "$to/kmod-ipvs-mwlc/"
    install -m 755 install/dkms/prepare install/dkms/build install/dkms/forget scripts/kernel-tree.sh "$to/dkms/"
    sed "s/@VERSION@/$version/" install/dkms/dkms.conf.in >"$to/dkms.conf"
}

uninstall() {
    local program helper page unit
    for program in $SBIN_PROGRAMS; do rm -f "$dest$prefix/sbin/$program"; done
    for program in $BIN_PROGRAMS; do rm -f "$dest$prefix/bin/$program"; done
    for helper in $MOUNT_HELPERS; do
        [ "$(readlink "$dest/sbin/$helper" || true)" != "$prefix/sbin/pvfs-fuse" ] || rm "$dest/sbin/$helper"
    done
    for page in docs/man/*.[1-8]; do rm -f "$dest$prefix/share/man/man${page##*.}/$(basename "$page")"; done
    for program in $COMPLETED_PROGRAMS; do
        rm -f "$dest$prefix/$BASH_COMPLETIONS/$program" "$dest$prefix/$ZSH_COMPLETIONS/_$program" \
            "$dest$prefix/$FISH_COMPLETIONS/$program.fish"
    done
    rm -rf "$dest$prefix/$DOCUMENTS"
    for unit in install/systemd/*.service; do rm -f "$dest$prefix/lib/systemd/system/$(basename "$unit")"; done
    rm -f "$dest$prefix/lib/modprobe.d/ipvs-mwlc.conf"
    if [ -z "$dest" ] && command -v dkms >/dev/null && [ -n "$(dkms status -m ipvs-mwlc -v "$version")" ]; then
        dkms remove "ipvs-mwlc/$version" --all
    fi
    rm -rf "$dest$source_dir"
}

build_module() {
    [ -z "$dest" ] || die "the module is built on the host that runs it: leave DESTDIR out"
    command -v dkms >/dev/null || die "apt-get install dkms linux-headers-$(uname -r) first"
    [ -e "$source_dir/dkms.conf" ] || die "$source_dir is missing: run make install first"
    dkms install --force "ipvs-mwlc/$version"
}

case $verb in
    install)
        install_programs
        install_documents
        install_units
        install_source
        say "under $dest$prefix, mount helpers in $dest/sbin, the module's source in $dest$source_dir"
        say "on a director: make install-module, then mwlcadm save >/etc/ipvs-mwlc.rules and systemctl enable ipvs-mwlc"
        ;;
    uninstall) uninstall ;;
    module) build_module ;;
    *) die "usage: scripts/install.sh [install|uninstall|module] [DESTDIR [PREFIX]]" ;;
esac
