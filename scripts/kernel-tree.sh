#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Prepares a kernel tree in which Rust modules for a stock Debian kernel can be built. Debian's headers packages
# carry no Rust metadata, so the same version's source is configured exactly as Debian did and `prepare`d;
# Module.symvers comes from the headers, so no vmlinux is built. Two minutes and 2 GB.
#
#   kernel-tree.sh KVER HEADERS SOURCE TREE
#
# KVER is `uname -r`, HEADERS Debian's /usr/src/linux-headers-KVER, SOURCE its linux-source-X.Y.tar.xz, TREE
# what is made. It runs on Debian 13, or in a root of it.
set -euo pipefail
[ $# = 4 ] || { echo "usage: kernel-tree.sh KVER HEADERS SOURCE TREE" >&2; exit 2; }
kver=$1 headers=$2 source=$3 tree=$4

# The compiler that built the kernel: its modules must be built with the same.
compiler=$(sed -n 's/^CONFIG_CC_VERSION_TEXT="\([^ ]*\) .*/\1/p' "$headers/.config")

rm -rf "$tree"
mkdir -p "$tree"
tar -C "$tree" --strip-components=1 -xf "$source"
cp "$headers/.config" "$tree/.config"
cd "$tree"
sed -i -e 's/^CONFIG_MODULE_SIG_KEY=.*/CONFIG_MODULE_SIG_KEY=""/' \
    -e 's/^CONFIG_SYSTEM_TRUSTED_KEYS=.*/CONFIG_SYSTEM_TRUSTED_KEYS=""/' .config
make -j"$(nproc)" ARCH=x86 CC="$compiler" KERNELRELEASE="$kver" olddefconfig prepare modules_prepare
grep -q '^CONFIG_RUST=y' .config ||
    { echo "kernel $kver was built without Rust, or this machine's rustc or bindgen is too old for it" >&2; exit 1; }
cp "$headers/Module.symvers" .
