#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Installs the programs, the mount helpers and the man pages: scripts/install.sh DESTDIR PREFIX
set -euo pipefail
cd "$(dirname "$0")/.."
dest=${1-} prefix=${2:-/usr/local}

for program in pvfs-mgr pvfs-iod pvfs-fuse mwlcadm; do
    install -D -m 755 "target/release/$program" "$dest$prefix/sbin/$program"
done
for program in pvfs cssns; do
    install -D -m 755 "target/release/$program" "$dest$prefix/bin/$program"
done
for page in docs/man/*.[1-8]; do
    install -D -m 644 "$page" "$dest$prefix/share/man/man${page##*.}/$(basename "$page")"
done
# mount(8) looks for its helpers in /sbin and nowhere else.
install -d "$dest/sbin"
for helper in mount.fuse.pvfs mount.pvfs; do
    ln -sfn "$prefix/sbin/pvfs-fuse" "$dest/sbin/$helper"
done
echo "installed under $dest$prefix, mount helpers in $dest/sbin" >&2
