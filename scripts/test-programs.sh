#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Programs that others wrote, on a PVFS mount: an NFS server that exports it; PostgreSQL's initdb, a server and
# pgbench for PGBENCH_SECONDS (20), its data checked afterwards; and those of Python's own tests that use files
# (test.regrtest). Needs what setup.sh test-programs installs, and root; the programs run as user nobody.
set -euo pipefail
cd "$(dirname "$0")/.."
SECONDS_OF_LOAD=${PGBENCH_SECONDS:-20}
BIN=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -n "$BIN" ] && [ -x "$BIN/pgbench" ] || { echo "test-programs: run scripts/setup.sh test-programs" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "test-programs: only root can mount" >&2; exit 1; }
PROFILE=${PROFILE:-debug}
WORK=$(mktemp -d /tmp/pvfs-programs.XXXXXX)
chmod 755 "$WORK"
PIDS=()
PYTHON_TESTS=(test_{bz2,dbm,dbm_dumb,fcntl,file,fileinput,fileio,genericpath,glob,gzip,import,io}
    test_{largefile,logging,lzma,mailbox,mmap,os}
    test_{pathlib,posix,posixpath,shelve,shutil,stat,tarfile,tempfile,zipfile})
as_nobody() { setpriv --reuid=nobody --regid=nogroup --clear-groups env HOME=/tmp "$@"; }
cleanup() {
    local status=$?
    as_nobody "$BIN/pg_ctl" -D "$WORK/mnt/pg" -m immediate stop >/dev/null 2>&1 || true
    umount "$WORK/mnt" 2>/dev/null || umount -l "$WORK/mnt" 2>/dev/null || true
    for pid in "${PIDS[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    [ "$status" = 0 ] || tail -n 20 "$WORK"/*.log >&2
    rm -rf --one-file-system "$WORK"
}
trap cleanup EXIT

# start NAME COMMAND...: a daemon; its ready line's last word is printed.
start() {
    local name=$1; shift
    "$@" >"$WORK/$name.out" 2>"$WORK/$name.log" &
    PIDS+=($!)
    timeout 60 sh -c "until grep -q ^ready '$WORK/$name.out'; do sleep 0.1; done"
}
"target/$PROFILE/pvfs-mgr" --init --data "$WORK/mgr"
start mgr "target/$PROFILE/pvfs-mgr" --data "$WORK/mgr" --listen 127.0.0.1:0
MGR=$(awk '/^ready/ { print $2 }' "$WORK/mgr.out")
for n in 0 1 2; do
    "target/$PROFILE/pvfs-iod" --init --data "$WORK/iod$n"
    start "iod$n" "target/$PROFILE/pvfs-iod" --data "$WORK/iod$n" --mgr "$MGR" --listen 127.0.0.1:0
done
mkdir "$WORK/mnt"
start mount "target/$PROFILE/pvfs-fuse" "$MGR:/" "$WORK/mnt" -f -o allow_other
install -d -o nobody -g nogroup -m 700 "$WORK/mnt/pg"

# An NFS server exports the mount. It names files by handles, which the kernel resolves also when it has forgotten them.
NFS_PORT=${NFS_PORT:-22049}
nfs() { timeout 60 "$1" "nfs://127.0.0.1/mnt/nfs$2?version=4&nfsport=$NFS_PORT" 2>>"$WORK/nfs.log"; }
mkdir -p "$WORK/mnt/nfs/deep/er" /run/ganesha
head -c 3000000 /dev/urandom >"$WORK/mnt/nfs/deep/er/file"
cat >"$WORK/ganesha.conf" <<END
NFS_CORE_PARAM { Protocols = 4; NFS_Port = $NFS_PORT; Enable_NLM = false; Enable_RQUOTA = false; }
NFSV4 { Graceless = true; }
EXPORT {
    Export_Id = 1; Path = $WORK/mnt; Pseudo = /mnt; Access_Type = RO; Squash = No_Root_Squash; Protocols = 4;
    SecType = sys; Transports = TCP; Filesystem_Id = 77.1; FSAL { Name = VFS; }
}
END
ganesha.nfsd -F -L "$WORK/ganesha.log" -f "$WORK/ganesha.conf" -p "$WORK/ganesha.pid" &
GANESHA=$!
PIDS+=("$GANESHA")
for _ in $(seq 60); do nfs nfs-ls /deep >"$WORK/nfs.list" && break; sleep 1; done
for _ in 1 2 3; do
    echo 2 >/proc/sys/vm/drop_caches
    nfs nfs-ls /deep/er | grep -q ' file$' && nfs nfs-cat /deep/er/file | cmp - "$WORK/mnt/nfs/deep/er/file" || {
        echo "test-programs: an NFS client sees something else than the mount" >&2; exit 1; }
done
kill "$GANESHA"
wait "$GANESHA" || true
echo "test-programs: an NFS client sees what the mount has"

time as_nobody "$BIN/initdb" -D "$WORK/mnt/pg" -A trust -U postgres >"$WORK/initdb.log"
SOCKETS=$WORK/sockets
install -d -o nobody -g nogroup -m 700 "$SOCKETS"
as_nobody "$BIN/pg_ctl" -w -D "$WORK/mnt/pg" -l "$WORK/mnt/pg/log" -o "-c listen_addresses= -k $SOCKETS" start \
    >/dev/null
sql() { as_nobody "$BIN/psql" -h "$SOCKETS" -U postgres -qAtX -v ON_ERROR_STOP=1 "$@"; }
as_nobody "$BIN/pgbench" -h "$SOCKETS" -U postgres -q -i -s 2 postgres 2>>"$WORK/pgbench.log"
as_nobody "$BIN/pgbench" -h "$SOCKETS" -U postgres -T "$SECONDS_OF_LOAD" -c 4 postgres 2>>"$WORK/pgbench.log" |
    grep -E '^(tps|number of (transactions|failed))'
# A second server on the same data finds the first one's lock.
if as_nobody "$BIN/postgres" -D "$WORK/mnt/pg" -c listen_addresses= -k "$SOCKETS" >/dev/null 2>&1; then
    echo "test-programs: a second server started on the same data" >&2; exit 1
fi
# The crash of the server loses nothing that was committed: pgbench's sums agree after its recovery.
as_nobody "$BIN/pg_ctl" -m immediate -D "$WORK/mnt/pg" stop >/dev/null
as_nobody "$BIN/pg_ctl" -w -D "$WORK/mnt/pg" -l "$WORK/mnt/pg/log" -o "-c listen_addresses= -k $SOCKETS" start \
    >/dev/null
[ "$(sql -c 'select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)
    and (select sum(bbalance) from pgbench_branches) =
        (select sum(tbalance) from pgbench_tellers)' postgres)" = t ] || {
    echo "test-programs: pgbench's sums differ" >&2; exit 1; }
as_nobody "$BIN/pg_ctl" -m fast -D "$WORK/mnt/pg" stop >/dev/null
echo "test-programs: PostgreSQL's sums agree"

install -d -o nobody -g nogroup -m 700 "$WORK/mnt/python"
cd "$WORK/mnt/python"
# Without optional modules or a terminal some of its tests skip themselves and say so.
as_nobody TMPDIR="$WORK/mnt/python" /usr/bin/python3 -m test --tempdir "$WORK/mnt/python" -j2 "${PYTHON_TESTS[@]}"
