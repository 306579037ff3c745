#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0-only
# The first program of a guest: mounts the clients' disk, with memory on top for what is written, and goes on there.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in $(cat /boot-modules/order); do insmod "/boot-modules/$module" || echo "init: no module $module"; done
mount -t ext4 -o ro /dev/vda /disk
mount -t tmpfs -o size=70% rw /rw
mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/disk,upperdir=/rw/upper,workdir=/rw/work overlay /new
cp -a /payload/. /new/
umount /proc
exec switch_root /new /start
