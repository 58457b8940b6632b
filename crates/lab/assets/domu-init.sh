#!/bin/busybox sh
# The whole user space of the ready-made domUs: says that it is up, does a little work, shuts down.
# `lab.hold` on the kernel's command line makes it stay up instead.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /tmp
echo "lab: up ($(cat /sys/hypervisor/type 2>/dev/null), $(uname -r))"

if grep -qw lab.hold /proc/cmdline; then
    echo "lab: staying up"
    while :; do sleep 3600; done
fi

round=0
while [ $round -lt 3 ]; do
    dd if=/dev/zero of=/tmp/block bs=64k count=16 2>/dev/null
    md5sum /tmp/block >/dev/null
    cat /proc/meminfo /proc/interrupts >/tmp/state
    sleep 1
    round=$((round + 1))
done
echo "lab: shutting down"
poweroff -f
