# SPDX-License-Identifier: MIT
# What kmod-env.sh and kmod-build.sh share: where things are kept, how the user hears of progress. Sourced, not run.

KMOD_TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/kmod-version
. "$KMOD_TOP/scripts/kmod-version"

KMOD_CACHE=${CSSNS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cssns}
KMOD_BUILD=${KMOD_OUT:-$KMOD_TOP/build/kmod}
KMOD_LOGS=$KMOD_BUILD/logs

say() { printf 'kmod: %s\n' "$*" >&2; }
die() {
    printf 'kmod: error: %s\n' "$*" >&2
    exit 1
}

# step TEXT LOG COMMAND...: announces, runs with its output in LOG, and on failure shows the end of it.
step() {
    local text=$1 log=$KMOD_LOGS/$2 started=$SECONDS status=0
    shift 2
    mkdir -p "$KMOD_LOGS"
    say "$text"
    # A condition would switch `set -e` off inside a function, so the status is taken from a subshell.
    set +e
    (
        set -e
        "$@"
    ) >"$log" 2>&1
    status=$?
    set -e
    if [ "$status" != 0 ]; then
        tail -n 25 "$log" >&2
        die "that failed; the whole output is in $log"
    fi
    say "  done in $((SECONDS - started)) s"
}

# in_root COMMAND...: runs inside the build root with the cache's kernels at /kernels, this checkout read-only
# at /src and build/kmod at /out. The mounts live in a mount namespace of their own and vanish with the command.
in_root() {
    mkdir -p "$KMOD_BUILD" "$KMOD_CACHE/kernels"
    unshare --mount --propagation private bash -ec '
        root=$1 kernels=$2 src=$3 out=$4
        shift 4
        mkdir -p "$root/kernels" "$root/src" "$root/out"
        mount --bind "$kernels" "$root/kernels"
        mount --bind "$src" "$root/src"
        mount -o remount,bind,ro "$root/src"
        mount --bind "$out" "$root/out"
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
            ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} "$@"
    ' in_root "$TRIXIE_ROOT" "$KMOD_CACHE/kernels" "$KMOD_TOP" "$KMOD_BUILD" "$@"
}

KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e "$KEYRING" ] || KEYRING=${KEYRING%.gpg}.pgp
APT="apt-get -q -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0"

# The Debian mirror that this machine's own apt uses, security archives left out.
debian_mirror() {
    apt-get indextargets --format '$(REPO_URI)|$(ORIGIN)|$(LABEL)' 'Created-By: Packages' |
        awk -F'|' '$2 == "Debian" && $3 == "Debian" { print $1; exit }'
}

# Debian 12 gets the signing keys of 13 with a point release of debian-archive-keyring; apt verifies that
# package itself.
need_keyring() {
    [ -e /usr/share/keyrings/debian-archive-$KSUITE-stable.gpg ] ||
        [ -e /usr/share/keyrings/debian-archive-$KSUITE-stable.pgp ] ||
        step "updating debian-archive-keyring" apt-keyring.log $APT install -y debian-archive-keyring
}

# debian_root DIR PACKAGES TEXT: makes a root of KSUITE with these packages (separated by commas), unless it is there.
debian_root() {
    local root=$1 packages=$2 text=$3 mirror proxy
    [ ! -e "$root/.complete" ] || return 0
    mirror=$(debian_mirror)
    if [ -z "$mirror" ]; then
        # What a mirror is the origin of is known only after its lists were read.
        step "reading the package lists" apt-update.log $APT update
        mirror=$(debian_mirror)
    fi
    [ -n "$mirror" ] || die \
        "this machine's apt configuration names no Debian mirror (see /etc/apt/sources.list.d): add one"
    proxy=$(apt-config dump --format '%f "%v";%n' Acquire::http::Proxy)
    need_keyring
    rm -rf "$root" "$root.part"
    step "$text" mmdebstrap.log \
        mmdebstrap --mode=root --variant=apt --include="$packages" --keyring="$KEYRING" --skip=check/qemu \
        --aptopt='APT::Install-Recommends "false"' --aptopt='APT::Sandbox::User "root"' ${proxy:+--aptopt="$proxy"} \
        "$KSUITE" "$root.part" \
        "deb $mirror $KSUITE main" "deb $mirror $KSUITE-updates main" "deb $mirror $KSUITE-backports main"
    mv "$root.part" "$root"
    touch "$root/.complete"
}
