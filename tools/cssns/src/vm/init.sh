#!/bin/busybox sh
# SPDX-License-Identifier: MIT
# Process 1 of the guest: mounts what programs expect, then serves the control channel.
#
# The protocol, one line each way, base64 so that a line is a line (see control.rs):
#   host:  RUN <id> <timeout_s> <base64 of a shell script>
#   host:  OFF
#   guest: READY
#   guest: END <id> <exit status> <base64 of stdout> <base64 of stderr>
# Scripts run at the same time as each other. One writer process sends all replies, in the order
# in which the scripts end, so that two replies never mix.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /root /var/log /bin /sbin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
mkdir -p /dev/pts && mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
mkdir -p /run/jobs /run/netns /run/lock
ln -sf /proc/self/mounts /etc/mtab
ip link set lo up
hostname director

output_bytes_max=8388608
port=
waited=0
while [ -z "$port" ]; do
    for entry in /sys/class/virtio-ports/*; do
        [ "$(cat "$entry/name" 2>/dev/null)" = cssns.control ] && port=/dev/${entry##*/}
    done
    [ -n "$port" ] && [ -c "$port" ] && break
    waited=$((waited + 1))
    [ "$waited" -gt 600 ] && echo "cssns: no control port appeared" >/dev/console && poweroff -f
    usleep 50000
done

mkfifo /run/ended
exec 3<>"$port" 4<>/run/ended
(
    while read -r id status <&4; do
        job=/run/jobs/$id
        {
            printf 'END %s %s ' "$id" "$status"
            head -c "$output_bytes_max" "$job/out" | base64 | tr -d '\n'
            printf ' '
            head -c "$output_bytes_max" "$job/err" | base64 | tr -d '\n'
            printf '\n'
        } >&3
        rm -rf "$job"
    done
) &
echo READY >&3

while :; do
    # End of file means that nobody is connected at the other end; a kept guest waits for the next.
    read -r verb id limit script <&3 || { usleep 200000; continue; }
    case $verb in
    RUN)
        job=/run/jobs/$id
        mkdir -p "$job"
        echo "$script" | base64 -d >"$job/script"
        (
            exec 3<&-
            cd /root
            timeout -s KILL "$limit" /bin/sh "$job/script" </dev/null >"$job/out" 2>"$job/err"
            echo "$id $?" >&4
        ) &
        ;;
    HELLO) echo READY >&3 ;;
    OFF) sync; poweroff -f ;;
    esac
done
