#!/bin/sh
# The work of one session, as /lab/control/settings and /lab/control/script say: the wished domUs, then the script.
. /lab/control/settings
script=/lab/control/script

if [ ! -f "$script" ]; then
    [ -n "$domus" ] || exit 0
    exec /lab/bin/lab-domus $domus
fi
if [ -n "$domus" ]; then
    /lab/bin/lab-domus --hold $domus >&2 || exit
fi
chmod +x "$script"
case $(head -c 2 "$script") in
'#!') exec "$script" ;;
*) exec /bin/sh "$script" ;;
esac
