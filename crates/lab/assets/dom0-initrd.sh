#!/bin/busybox sh
# First process of dom0: loads what the root disk needs, mounts it and hands over to /lab/init there.
# /modules/order lists the module files in the order they have to be loaded.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev

while read -r module; do
    insmod "/modules/$module" || echo "lab: cannot load $module"
done </modules/order

tries=0
while [ $tries -lt 100 ]; do
    for disk in /sys/block/vd*; do
        [ "$(cat "$disk/serial" 2>/dev/null)" = lab-root ] && root=/dev/${disk##*/}
    done
    [ -n "$root" ] && break
    usleep 100000
    tries=$((tries + 1))
done
mount -t ext4 -o noatime "$root" /root || { echo "lab: no root disk"; poweroff -f; }
umount /sys /dev
umount /proc
exec switch_root /root /lab/init
