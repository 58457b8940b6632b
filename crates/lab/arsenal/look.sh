#!/bin/sh
# look.sh [OPTION...], in dom0: all that the detector kit finds, on standard output: what the payload `detector` sees and times (options are
# xen-livepatch's), what Xen says of the control blocks of its guests, and how long hypercalls take from dom0. Boot Xen with
# conring_size=256k. Exit code: 3 if the payload could not be applied, 4 if it could not be taken back.
here=$(dirname "$0")
xl dmesg -c >/dev/null
xen-livepatch load "$here/detector.livepatch" "$@" >&2 || exit 3
xen-livepatch revert detector >&2 && xen-livepatch unload detector >&2 || exit 4
xl debug-keys v
sleep 2
xl dmesg | grep -e 'trials: ' -e 'detector: saw '
xl dmesg | sed -n 's/.*cr_intercepts = \([0-9a-fx]*\) .*/detector: saw vmcb_cr_intercepts \1/p'
exec "$here/time_calls"
