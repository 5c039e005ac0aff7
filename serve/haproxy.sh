#!/bin/sh
# HAProxy as Ray Serve starts it, but with its own statistics on this machine alone: Ray's file opens them to everybody.
before=
for word; do
    [ "$before" = -f ] && sed -i -E 's/^([[:space:]]*bind )\*?:([0-9]+)$/\1127.0.0.1:\2/' "$word"
    before=$word
done
exec "$PODRACER_HAPROXY" "$@"
