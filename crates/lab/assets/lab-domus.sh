#!/bin/sh
# lab-domus [--hold] KIND...: starts the ready-made domU of each kind (pv, pvh, hvm) and sees it boot.
# Without --hold each does a little work, shuts down, and the next one follows; with it they stay up.
# Exit code: 0 when all did what they should, 1 otherwise.
patience=120

# started KIND: its console shows that user space runs.
started() { grep -q '^lab: up' "/var/log/xen/console/guest-$1.log" 2>/dev/null; }

# gone KIND: it has been destroyed, or waits dead to be.
gone() { ! xl domid "$1" >/dev/null 2>&1; }

# wait_for CONDITION KIND: waits until it holds; with "started", a guest that has gone never will.
wait_for() {
    waited=0
    until "$1" "$2"; do
        [ "$1" = gone ] || ! gone "$2" || started "$2" || return 1
        [ $waited -lt $patience ] || return 1
        sleep 1
        waited=$((waited + 1))
    done
}

# fail KIND TEXT: says so, with the end of the guest's console.
fail() {
    echo "$1: $2" >&2
    tail -n 12 "/var/log/xen/console/guest-$1.log" 2>/dev/null | sed "s/^/$1: | /" >&2
    xl destroy "$1" 2>/dev/null
    failed=1
}

one() {
    kind=$1
    rm -f "/var/log/xen/console/guest-$kind.log"
    extra="console=hvc0 quiet panic=1 lab.kind=$kind$hold"
    if ! xl create "/lab/domu/$kind.cfg" "extra='$extra'" >/run/lab.create 2>&1; then
        cat /run/lab.create >&2
        fail "$kind" "xl create failed"
    elif ! wait_for started "$kind"; then
        fail "$kind" "did not boot within $patience s"
    elif [ -n "$hold" ]; then
        echo "$kind: running"
    elif echo "$kind: running" && ! wait_for gone "$kind"; then
        fail "$kind" "did not shut down within $patience s"
    else
        echo "$kind: shut down"
    fi
}

hold= failed=0
[ "$1" = --hold ] && hold=" lab.hold" && shift
for kind; do
    if [ -f "/lab/domu/$kind.cfg" ]; then one "$kind"; else fail "$kind" "no such kind of domU"; fi
done
exit $failed
