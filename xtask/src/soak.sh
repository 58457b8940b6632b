# What `cargo xtask soak` has dom0 do, behind workloads.sh: busy domains for `seconds`, time and again. `linux_pvh` is "yes" where a PVH
# Linux boots.
seconds_up() {
    cut -d. -f1 /proc/uptime
}

# Small guests that call and leave as fast as they can.
small_guests() {
    xl create /lab/files/null-pv.cfg 'extra="rounds=200 calls=1000 warmup=1000 marks=0"' &&
        xl create /lab/files/null-pvh.cfg 'extra="rounds=50 calls=100 warmup=100 marks=0"' || return 1
    ended null-pv && ended null-pvh
}

stop=$(($(seconds_up) + seconds))
/lab/bin/lab-domus --hold pv >&2 || exit 1
if [ "$linux_pvh" = yes ]; then
    /lab/bin/lab-domus --hold pvh >&2 || /lab/bin/lab-domus --hold pvh >&2 || /lab/bin/lab-domus --hold pvh >&2 || exit 1
else
    xl create /lab/files/hold-pvh.cfg 'name="pvh"' >&2 || exit 1
fi
network
while [ "$(seconds_up)" -lt $stop ]; do
    workload administration administration
    workload ballooning ballooning
    workload pinning pinning
    workload pausing pausing
    workload storms storms
    workload small-guests small_guests
    workload life-cycles life_cycles
    workload saving saving
    workload disk-and-network-pv disk_and_network pv
    if [ "$linux_pvh" = yes ]; then
        workload firmware firmware
        workload disk-and-network-pvh disk_and_network_pvh
    fi
done
