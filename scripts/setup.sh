#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Installs what building and the demo need on Debian 12 or 13, with `test` the test runner and what it runs too,
# and with `test-posix` or `test-programs` what the make targets of these names run besides. Prints nothing and
# takes a moment where all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

# cargo and rustc are looked for apart: a toolchain that did not come from a package is as good.
PACKAGES=(
    gcc libc6-dev make pkg-config ca-certificates                    # crates that build C
    fuse3 util-linux attr acl                                        # mounts and their tests
    iproute2 iputils-ping nginx-light curl procps                    # the demo's cluster and its clients
    fonts-dejavu-core                                                # words in the PNG figures of the experiment
    # The director's VM, its module.
    qemu-system-x86 busybox-static cpio kmod xz-utils mmdebstrap debian-archive-keyring arch-test
)
# With the module in this machine's own kernel, its own ipvsadm configures it.
[ "${HOST:-0}" != 1 ] || PACKAGES+=(ipvsadm)
# Programs that tests run on a mount.
TEST_PACKAGES=(git rsync sqlite3 perl-base python3-minimal)
TEST_POSIX_PACKAGES=(fio dbench stress-ng)
# Python's tests come with its version in their package's name.
PYTHON_VERSION=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
    PYTHON_VERSION=3
TEST_PROGRAMS_PACKAGES=(postgresql python3 "libpython$PYTHON_VERSION-testsuite" nfs-ganesha-vfs libnfs-utils)
case ${1-} in
    test) PACKAGES+=("${TEST_PACKAGES[@]}") ;;
    test-posix) PACKAGES+=("${TEST_PACKAGES[@]}" "${TEST_POSIX_PACKAGES[@]}") ;;
    test-programs) PACKAGES+=("${TEST_PROGRAMS_PACKAGES[@]}") ;;
esac
RUST_VERSION_MIN=1.85
# The newest that Rust 1.85 builds.
NEXTEST_VERSION=0.9.100
PJDFSTEST_VERSION=0.2.2
FSX_VERSION=0.3.2
APT=(apt-get -q -y -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0)
LOG=build/log/setup.log
mkdir -p build/log

fail() { echo "setup: $*" >&2; exit 1; }

install_packages() {
    [ "$(id -u)" = 0 ] || fail "these packages are missing and only root can install them: $*"
    echo "setup: installing $*" >&2
    # An nginx that its package starts would take port 80 from whatever runs here; the demo starts its own.
    local policy=/usr/sbin/policy-rc.d made=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod +x "$policy"; made=1
    fi
    local status=0
    { "${APT[@]}" update && DEBIAN_FRONTEND=noninteractive "${APT[@]}" install --no-install-recommends "$@"; } \
        >"$LOG" 2>&1 || status=$?
    [ -z "$made" ] || rm -f "$policy"
    [ "$status" = 0 ] || { tail -n 20 "$LOG" >&2; fail "apt-get failed: see $LOG"; }
}

missing_packages() {
    local package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || printf '%s\n' "$package"
    done
}

version_at_least() { printf '%s\n%s\n' "$2" "$1" | sort -V -C; }

rust_is_there() {
    local version
    version=$(cargo --version 2>/dev/null | awk '{ print $2 }') && [ -n "$version" ] &&
        version_at_least "$version" "$RUST_VERSION_MIN"
}

# Debian 13's cargo is new enough; Debian 12 keeps a newer one beside its own under another name.
rust_packages() {
    local candidate
    candidate=$(apt-cache policy cargo 2>/dev/null | awk '/Candidate:/ { print $2 }')
    # A library version such as 0.66 is what Debian 12 calls Rust 1.63.
    if version_at_least "${candidate:-0}" "$RUST_VERSION_MIN"; then
        echo cargo rustc rustfmt rust-clippy
    else
        echo cargo-web rustc-web rustfmt-web rust-web-clippy
    fi
}

command -v apt-get >/dev/null || fail "this is no Debian: install by hand ${PACKAGES[*]}"
mapfile -t missing < <(missing_packages "${PACKAGES[@]}")
[ "${#missing[@]}" = 0 ] || install_packages "${missing[@]}"
# shellcheck disable=SC2046  # one word a package
rust_is_there || install_packages $(rust_packages)
# program_from_cargo PROGRAM CRATE VERSION
program_from_cargo() {
    [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/$1" ] || command -v "$1" >/dev/null || {
        echo "setup: building $2 (a few minutes, once)" >&2
        cargo install --quiet --locked --version "$3" "$2" >"$LOG" 2>&1 ||
            { tail -n 20 "$LOG" >&2; fail "cargo install $2 failed: see $LOG"; }
    }
}

if [ "${1-}" = test ]; then
    program_from_cargo cargo-nextest cargo-nextest "$NEXTEST_VERSION"
    program_from_cargo pjdfstest pjdfstest "$PJDFSTEST_VERSION"
    program_from_cargo fsx fsx "$FSX_VERSION"
fi
