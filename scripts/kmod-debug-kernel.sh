# SPDX-License-Identifier: MIT
# The debugging kernel of `make test-kasan`: the stock kernel's own source, configured by kmod-debug.config
# alone. Sourced by kmod-env.sh, whose functions it uses.

DEBUG_CONFIG=$KMOD_TOP/scripts/kmod-debug.config

# What the kernel was made of: another stock kernel or another configuration needs another one.
debug_stamp() { printf '%s %s\n' "$1" "$(grep '^CONFIG' "$DEBUG_CONFIG" | cksum)"; }

# KASAN with Rust takes clang (init/Kconfig says so). Options that Kconfig dropped would be checks that are not made.
build_debug_kernel() {
    local stock=$1 source_version
    source_version=$(stock_source_version "$stock")
    mkdir -p "$KMOD_CACHE/kernels/$KVER"
    fetch_unpack source.deb "linux-source-$(printf %s "$stock" | cut -d. -f1-2)=$source_version"
    cp "$DEBUG_CONFIG" "$KMOD_CACHE/kernels/$KVER/fragment"
    in_root bash -ec '
        cd "/kernels/$0" && rm -rf tree && mkdir tree
        tar -C tree --strip-components=1 -xf source.deb/usr/src/linux-source-*.tar.xz
        rm -rf source.deb
        cd tree
        kmake() { make ARCH=x86 CC=clang KERNELRELEASE="$0" -j"$(nproc)" "$@"; }
        kmake KCONFIG_ALLCONFIG="/kernels/$0/fragment" allnoconfig
        missing=$(grep "^CONFIG" ../fragment | grep -vxFf .config || true)
        [ -z "$missing" ] || { echo "this kernel has not: $missing"; exit 1; }
        kmake bzImage modules
        kmake INSTALL_MOD_PATH="/kernels/$0" modules_install
        cp arch/x86/boot/bzImage ../vmlinuz' "$KVER"
}

# Sets KVER and KDIR to the debugging kernel's, which it builds if need be.
get_debug_kernel() {
    local stock=$KVER
    KVER=${stock%%[+-]*}-debug
    KDIR=$KMOD_CACHE/kernels/$KVER
    KERNEL_CC=clang
    # It takes long, and who builds for the stock kernel meanwhile should not wait.
    exec 7>"$KMOD_CACHE/.lock-debug"
    flock 7
    [ "$(cat "$KDIR/.debug" 2>/dev/null)" != "$(debug_stamp "$stock")" ] || return 0
    rm -f "$KDIR/.debug"
    step "building the debugging kernel $KVER (15 minutes or more of two processors, 4 GB)" kernel-debug.log \
        build_debug_kernel "$stock"
    debug_stamp "$stock" >"$KDIR/.debug"
    touch "$KDIR/.tree"
}
