#!/bin/sh
# dom0's init: brings up the toolstack, tells the host about it, does the host's work, powers off. With `lab.host` on the
# kernel's command line there is no Xen below: this is then a KVM host with the files of the machine underneath.
#
# Talks to the host over three virtio-serial ports, found by their names:
#   lab.control   lines; to the host: here, stage TEXT, ready, domain ID NAME, gone ID, exit CODE, failed TEXT;
#                 from the host: hello (it listens), stop (power off now)
#   lab.stdout    the work's standard output, byte for byte
#   lab.stderr    its standard error
# A closed control port means that the host is gone: dom0 then powers off by itself.
xen_bin=$(echo /usr/lib/xen-[0-9]*/bin)
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$xen_bin HOME=/root TERM=dumb

tell() { echo "$*" >&7; }

mount_all() {
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t devtmpfs dev /dev
    mkdir -p /dev/pts /dev/shm
    ln -s /proc/self/fd /dev/fd
    ln -s /proc/self/fd/0 /dev/stdin
    ln -s /proc/self/fd/1 /dev/stdout
    ln -s /proc/self/fd/2 /dev/stderr
    mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
    mount -t tmpfs tmpfs /dev/shm
    mount -t tmpfs tmpfs /run
    mount -t tmpfs tmpfs /tmp
    mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
    mkdir -p /run/xen /run/lock
}

# find_port NAME prints the device of the virtio-serial port of that name.
find_port() {
    tries=0
    while [ $tries -lt 50 ]; do
        for port in /sys/class/virtio-ports/*; do
            [ "$(cat "$port/name" 2>/dev/null)" = "$1" ] && [ -c "/dev/${port##*/}" ] && echo "/dev/${port##*/}" && return
        done
        usleep 100000
        tries=$((tries + 1))
    done
    echo "lab: no port $1" >&2
    return 1
}

# find_disk SERIAL prints the virtio disk of that serial number.
find_disk() {
    for disk in /sys/block/vd*; do
        [ "$(cat "$disk/serial" 2>/dev/null)" = "$1" ] && echo "/dev/${disk##*/}" && return
    done
    return 1
}

# Waits for the host's greeting, then watches the control port in the background.
open_control() {
    modprobe -q virtio_console
    control=$(find_port lab.control) && stdout=$(find_port lab.stdout) && stderr=$(find_port lab.stderr) || poweroff -f
    exec 7<>"$control"
    # A machine that was reset is greeted again only if it asks.
    tell here
    line=
    until [ "$line" = hello ]; do
        read -r line <&7 || usleep 20000
    done
    { while read -r line <&7; do [ "$line" = stop ] && break; done; poweroff -f; } &
}

load_modules() {
    for module in xen-evtchn xen-gntdev xen-gntalloc xen-privcmd xenfs xen-blkback xen-netback loop; do
        modprobe -q "$module" || echo "lab: no module $module"
    done
    mount -t xenfs xenfs /proc/xen
}

# give_up TEXT reports that dom0 cannot be made ready.
give_up() {
    echo "lab: $*"
    tell "failed $*"
    poweroff -f
}

start_toolstack() {
    "$xen_bin/xenstored" || give_up "xenstored does not start"
    tries=0
    until xenstore-exists / 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || give_up "xenstored does not answer"
        usleep 50000
    done
    "$xen_bin/xen-init-dom0" >/dev/null || give_up "xen-init-dom0 failed"
    "$xen_bin/xenconsoled" --log=guest --log-dir=/var/log/xen/console || give_up "xenconsoled does not start"
}

# Tells the host of every domain that the toolstack names, and of every one that goes.
watch_domains() {
    xenstore-watch /local/domain | while read -r path; do
        rest=${path#/local/domain/}
        case $rest in
        *[!0-9]*/* | /*) ;;
        [1-9]*/name)
            name=$(xenstore-read "$path" 2>/dev/null) && [ -n "$name" ] && tell "domain ${rest%/name} $name"
            ;;
        *[!0-9]*) ;;
        [1-9]*)
            xenstore-exists "$path" || tell "gone $rest"
            ;;
        esac
    done
}

# What the KVM host needs: KVM, and the files of the machine underneath, with this machine's own /dev and the like in them.
prepare_host() {
    modprobe kvm_amd nested=1 || modprobe kvm_intel nested=1 || give_up "this machine has no KVM"
    modprobe -a 9pnet_virtio 9p || give_up "no driver for shared files"
    mount_share root /host ro
    while read -r tag path; do mount_share "$tag" "$path" rw; done </lab/control/shares
    for dir in dev dev/pts dev/shm proc sys; do mount --bind "/$dir" "/host/$dir"; done
    mount -t tracefs tracefs /host/sys/kernel/tracing
    mount -t tmpfs tmpfs /host/run
    mkdir -m 1777 /host/run/lab
}

# mount_share TAG PATH ro|rw
mount_share() {
    mkdir -p "$2" 2>/dev/null
    mount -t 9p -o "trans=virtio,version=9p2000.L,msize=524288,cache=loose,$3" "$1" "$2" || give_up "cannot mount $2"
}

fetch_work() {
    mkdir -p /lab/control /lab/files
    disk=$(find_disk lab-control) || give_up "no control disk"
    (cd /lab/control && busybox cpio -idm <"$disk" 2>/dev/null) || give_up "the control disk is not readable"
    . /lab/control/settings
    if disk=$(find_disk lab-files); then
        mount -o ro "$disk" /lab/files || give_up "the files' disk cannot be mounted"
    fi
}

# Runs the work with its output on the host's ports. The pipes in between let it reopen /dev/stderr, which a port refuses.
run_work() {
    mkfifo /run/lab.out /run/lab.err
    cat /run/lab.out >"$stdout" &
    out=$!
    cat /run/lab.err >"$stderr" &
    err=$!
    (cd /root && exec /lab/bin/lab-work) >/run/lab.out 2>/run/lab.err </dev/null 7>&-
    code=$?
    # What the work left running may hold the pipes open: what it writes later is not waited for.
    tries=0
    while [ $tries -lt 30 ] && { kill -0 $out || kill -0 $err; } 2>/dev/null; do
        usleep 100000
        tries=$((tries + 1))
    done
    kill $out $err 2>/dev/null
    return $code
}

mount_all
hostname lab
ip link set lo up
open_control
if grep -qw lab.host /proc/cmdline; then
    fetch_work
    prepare_host
else
    tell "stage dom0 is up, starting the toolstack"
    load_modules
    start_toolstack
    watch_domains &
    fetch_work
fi
tell ready
run_work
tell "exit $?"
sync
if [ "$stay" = 1 ]; then
    while :; do sleep 3600; done
fi
poweroff -f
