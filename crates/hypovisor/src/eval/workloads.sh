# The benign workloads of `hypovisor eval`, run in dom0 with a PV and a PVH Linux guest. Each tells when it begins and ends; one
# that fails is told too, and counts for as far as it went.
# With quick=yes none is run.
workload() {
    [ -z "$quick" ] || return 0
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

# A PVH Linux panics in its first user process in one boot of eight, watched or not, so it gets more than one try.
/lab/bin/lab-domus --hold pv >&2 || exit 1
/lab/bin/lab-domus --hold pvh >&2 || /lab/bin/lab-domus --hold pvh >&2 || /lab/bin/lab-domus --hold pvh >&2 || exit 1

workload administration administration
workload ballooning ballooning
workload pinning pinning
workload pausing pausing
workload storms storms
workload life-cycles life_cycles
workload firmware firmware
workload saving saving
echo domains
xl list | tail -n +2 | while read -r name id rest; do echo "domain $id $name"; done
echo campaigns
while :; do sleep 1; done
