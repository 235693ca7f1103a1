#!/bin/sh
# Makes the database at the first start from POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB, then becomes the server.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    : "${POSTGRES_PASSWORD:?is needed to make the database}"
    user=${POSTGRES_USER:-postgres}
    # Made beside and moved when complete: an interrupted first start leaves nothing half done.
    new="$PGDATA/new"
    rm -rf "$new"
    words=$(mktemp)
    printf '%s\n' "$POSTGRES_PASSWORD" >"$words"
    initdb --pgdata "$new" --username "$user" --pwfile "$words" --auth-host scram-sha-256 --auth-local trust \
        --encoding UTF8 --locale C.UTF-8
    rm -f "$words"
    echo 'host all all all scram-sha-256' >>"$new/pg_hba.conf"
    if [ "${POSTGRES_DB:-$user}" != postgres ]; then
        printf 'CREATE DATABASE "%s";\n' "${POSTGRES_DB:-$user}" | postgres --single -D "$new" postgres >/dev/null
    fi
    mv "$new"/base "$new"/global "$new"/pg_* "$new"/post* "$PGDATA"/
    mv "$new"/PG_VERSION "$PGDATA"/
    rmdir "$new"
fi
if [ "$1" = postgres ]; then
    shift
    set -- postgres -c listen_addresses='*' "$@"
fi
exec "$@"
