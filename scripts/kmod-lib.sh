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

# in_root COMMAND...: runs inside the build root with the cache's kernels at /kernels, this checkout read-only at /src and
# build/kmod at /out. The mounts live in a mount namespace of their own and vanish with the command.
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
