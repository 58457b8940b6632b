# Benign workloads of dom0's, with a guest `pv`, a guest `pvh`, and some that come and go: for `hypovisor eval` and `cargo xtask soak`.
# Each tells when it begins and ends; one that fails is told too, and counts for as far as it went.
workload() {
    echo "begin $1"
    shift
    if "$@" >/tmp/workload.log 2>&1; then echo "end ok"; else echo "end failed: $(tail -n 1 /tmp/workload.log)"; fi
}

administration() {
    for round in 1 2 3 4 5; do
        xl list && xl info && xl vcpu-list && xl dmesg >/dev/null && xl domid pv || return 1
    done
}

ballooning() {
    for size in 180 160 200 220 256; do
        xl mem-set pv $size && sleep 0.5 || return 1
    done
}

pinning() {
    for cpu in 0 1 0 1 all; do
        xl vcpu-pin pv 0 $cpu && xl vcpu-pin pvh 0 $cpu || return 1
    done
}

pausing() {
    for round in 1 2 3 4 5; do
        xl pause pv && xl unpause pv && xl pause pvh && xl unpause pvh || return 1
    done
}

saving() {
    xl save pv /tmp/pv.save && xl restore /tmp/pv.save
}

life_cycles() {
    for round in 1 2 3; do
        xl create /lab/files/hold-pv.cfg && xl create /lab/files/hold-pvh.cfg && sleep 2 || return 1
        xl destroy hold-pv
        xl destroy hold-pvh || return 1
    done
    true
}

storms() {
    # Channels and grants of dom0 itself, and the call that does least.
    /lab/files/hcall --loop 20000 17 0 && /lab/files/hcall --loop 5000 32 5 @f07f000001000000 &&
        /lab/files/hcall --loop 5000 12 2
}

firmware() {
    # An HVM guest as far as its firmware goes.
    xl create /lab/domu/hvm.cfg && sleep 8
    xl destroy hvm
}

# Waits for a domain to end by itself.
ended() {
    tries=0
    while xl domid "$1" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || return 1
        sleep 0.2
    done
}

network() {
    ip link add lab0 type bridge && ip addr add 10.99.0.1/24 dev lab0 && ip link set lab0 up || return 1
    # Where the guests send what they read.
    while :; do nc -l -p 9000 >/dev/null; done &
}

# A guest of this kind that writes and reads a disk and sends it over the network, by the paravirtual drivers.
disk_and_network() {
    rm -f /var/log/xen/console/guest-io.log
    dd if=/dev/zero of=/tmp/io.img bs=1M count=8 2>/dev/null
    xl create /lab/domu/pv.cfg 'name="io"' "type=\"$1\"" 'extra="console=hvc0 quiet panic=1 lab.io"' \
        "disk=['/tmp/io.img,raw,xvda,w']" "vif=['bridge=lab0']" || return 1
    ended io || xl destroy io
    grep -q "used disk and network" /var/log/xen/console/guest-io.log
}

# A PVH Linux panics in its first user processes in one boot of eight, watched or not, so it gets more than one try.
disk_and_network_pvh() {
    disk_and_network pvh || disk_and_network pvh || disk_and_network pvh
}
