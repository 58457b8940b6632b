#!/bin/sh
# window.sh FILE COMMAND [ARGUMENT...]: runs a command in dom0 inside a fenced window of Xen's own trace.
#
#   1  pins each of dom0's vCPUs to the pCPU of its number, so that marks reach every pCPU; to those that are left, the
#      first vCPU goes for each mark
#   2  starts xentrace into FILE, and waits until it traces
#   3  makes mark 3 on every pCPU          hcall --mark: sched_op(0x48590003), which Xen's trace shows with its command
#   4  runs the command, its output on standard error
#   5  makes mark 4 on every pCPU, stops xentrace
#
# What happened on a pCPU between its marks 3 and 4 is the witness (1 and 2 belong to the guests). Exit code: the command's, or 3 when there is no trace.
# To get FILE out of the machine: `gzip -c FILE` as the only thing on standard output, which reaches the host byte for byte.
#
# Settings, by variables:
#   hcall   the program that makes the marks (/lab/files/hcall)
#   mask    the events: 0x002a3000, PV calls and traps, inner calls, HVM exits and VMMCALLs, scheduling;
#           0x00223000 without those of HVM; 0x00203000 without scheduling either: then nobody knows whose a call was
#   pages   Xen's buffer for each pCPU (4096: 16 MiB). Only the first window of a boot sets it.
hcall=${hcall:-/lab/files/hcall} mask=${mask:-0x002a3000} pages=${pages:-4096}
file=$1
shift

mark_all() {
    cpu=$cpus
    while [ $cpu -lt "$pcpus" ]; do
        xl vcpu-pin Domain-0 0 $cpu >&2 && "$hcall" --cpu 0 --mark "$1" >/dev/null || exit 3
        cpu=$((cpu + 1))
    done
    [ "$pcpus" -le "$cpus" ] || xl vcpu-pin Domain-0 0 0 >&2 || exit 3
    cpu=0
    while [ $cpu -lt "$cpus" ]; do
        "$hcall" --cpu $cpu --mark "$1" >/dev/null || exit 3
        cpu=$((cpu + 1))
    done
}

cpus=$(nproc) pcpus=$(xl info nr_cpus)
cpu=0
while [ $cpu -lt "$cpus" ]; do
    xl vcpu-pin Domain-0 $cpu $cpu >&2 || exit 3
    cpu=$((cpu + 1))
done

rm -f "$file"
xentrace -D -s 20 -S "$pages" -e "$mask" "$file" >&2 &
tracer=$!
# It writes when it traces: something happens on every machine within a moment.
tries=0
until [ -s "$file" ]; do
    tries=$((tries + 1))
    kill -0 $tracer 2>/dev/null && [ $tries -lt 100 ] || { echo "window: no trace" >&2; exit 3; }
    usleep 50000
done

mark_all 3
"$@" >&2
code=$?
mark_all 4
kill -INT $tracer
wait $tracer
exit $code
