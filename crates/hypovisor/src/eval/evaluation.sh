# What `hypovisor eval` has dom0 do, behind workloads.sh: with a PV and a PVH Linux guest and a small HVM guest, the benign workloads;
# then the cost of rules is measured, and domains wait for campaigns.
/lab/bin/lab-domus --hold pv >&2 || exit 1
/lab/bin/lab-domus --hold pvh >&2 || /lab/bin/lab-domus --hold pvh >&2 || /lab/bin/lab-domus --hold pvh >&2 || exit 1

# With quick=yes nothing of this is done.
benign() {
    [ -n "$quick" ] || workload "$@"
}

benign administration administration
benign ballooning ballooning
benign pinning pinning
benign pausing pausing
benign storms storms
benign life-cycles life_cycles
benign firmware firmware
benign saving saving
[ -n "$quick" ] || network
benign disk-and-network-pv disk_and_network pv
benign disk-and-network-pvh disk_and_network_pvh

# The call that does least, timed by a guest of its own with rules and without, by turns.
[ -n "$quick" ] || for round in 1 2 3; do
    for rules in with without; do
        echo "cost $rules"
        # For hypovisor to take the rules out of force, or put them back.
        sleep 1
        xl create /lab/files/null-pv.cfg 'extra="rounds=200 calls=1000 warmup=20000 marks=0"' >&2 && ended null-pv
        sed -n 's/.*median_ticks=\([0-9]*\) min_ticks=\([0-9]*\).*/ticks \1 \2/p' \
            /var/log/xen/console/guest-null-pv.log | tail -n 1
    done
done

xl create /lab/files/hold-hvm.cfg >&2
echo domains
xl list | tail -n +2 | while read -r name id rest; do echo "domain $id $name"; done
echo campaigns
while :; do sleep 1; done
