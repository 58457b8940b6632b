#!/bin/busybox sh
# The whole user space of the ready-made domUs: says that it is up, does a little work, shuts down.
# `lab.hold` on the kernel's command line makes it stay up instead, `lab.io` use its disk and network first.
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

# Gives up after ten seconds without the device.
wait_for() {
    tries=0
    until [ -e "$1" ] || [ $tries -ge 100 ]; do
        usleep 100000
        tries=$((tries + 1))
    done
    [ -e "$1" ]
}

# Writes and reads the whole disk, and sends it to the other end of the network, by turns.
use_disk_and_network() {
    while read -r module; do insmod "/modules/$module"; done </modules/order
    wait_for /dev/xvda && wait_for /sys/class/net/eth0 || return
    ifconfig eth0 10.99.0.2 netmask 255.255.255.0 up
    ping -c 1 -w 10 10.99.0.1 >/dev/null || return
    for round in 1 2 3; do
        dd if=/dev/zero of=/dev/xvda bs=64k conv=fsync 2>/dev/null
        dd if=/dev/xvda of=/dev/null bs=64k 2>/dev/null || return
        ping -c 5 -i 0.1 10.99.0.1 >/dev/null || return
        dd if=/dev/xvda bs=64k 2>/dev/null | nc -w 5 10.99.0.1 9000 || return
    done
}

if grep -qw lab.io /proc/cmdline; then
    use_disk_and_network && echo "lab: used disk and network" || echo "lab: no disk or network"
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
