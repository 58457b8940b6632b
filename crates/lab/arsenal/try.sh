#!/bin/sh
# try.sh PAYLOAD [COMMAND [ARGUMENT...]], in dom0: applies a payload of the arsenal, runs a command, reverts and unloads it.
# What the payload said of itself goes to standard error. Exit code: the command's; 3 if it could not be applied, 4 if it could not be
# taken back.
payload=$1
shift
xen-livepatch load "$(dirname "$0")/$payload.livepatch" >&2 || exit 3
xen-livepatch list >&2
"$@"
code=$?
xen-livepatch revert "$payload" >&2 && xen-livepatch unload "$payload" >&2 || exit 4
xl dmesg | grep "arsenal: $payload:" >&2
exit $code
