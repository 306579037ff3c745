#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The guest's only service: mounts what programs expect, runs the tests, powers off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL=C.UTF-8 NO_COLOR=1 PYTHON_COLORS=0 PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/selftest:/selftest/clients:/opt/pyroute2
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
busybox mount -t tmpfs run /run
busybox mount -t tmpfs tmp /tmp
ln -s /proc/self/fd /dev/fd
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
mkdir -p /run/netns /dev/shm /run/lock
ip link set lo up
python3 /selftest/clients/run.py $(cat /selftest/wanted)
echo "guest exit status: $?"
busybox poweroff -f
