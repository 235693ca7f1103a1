#!/usr/bin/env bash
# Makes the images that a registry would give, for a machine that reaches none: Debian packages in, images out.
#
#   tradewind-base:bookworm   in place of python:3.11-slim-bookworm   (BASE_IMAGE)
#   tradewind-postgres:15     in place of postgres:17-bookworm        (POSTGRES_IMAGE)
#   tradewind-redis:7         in place of redis:7-bookworm            (REDIS_IMAGE)
#
# Needs root, debootstrap and a running Docker engine. MIRROR names another Debian mirror.
set -euo pipefail

MIRROR=${MIRROR:-http://deb.debian.org/debian}
SUITE=bookworm
here=$(cd "$(dirname "$0")" && pwd)

for program in debootstrap docker; do
    command -v "$program" >/dev/null || { echo "$program is needed: apt-get install debootstrap docker.io" >&2; exit 1; }
done
[ "$(id -u)" = 0 ] || { echo "debootstrap needs root: run with sudo" >&2; exit 1; }

root=$(mktemp -d)
trap 'rm -rf --one-file-system "$root"' EXIT
chmod 0755 "$root"

echo "Debian $SUITE from $MIRROR"
debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv "$SUITE" "$root" "$MIRROR" >"$root.log" 2>&1 || {
    tail -n 20 "$root.log" >&2
    echo "debootstrap failed; $root.log has everything" >&2
    exit 1
}
rm -f "$root.log"
cat >"$root/etc/apt/sources.list" <<SOURCES
deb $MIRROR $SUITE main
deb $MIRROR $SUITE-updates main
deb http://deb.debian.org/debian-security $SUITE-security main
SOURCES
{
    chroot "$root" apt-get update
    DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get upgrade --yes --no-install-recommends
} >"$root.log" 2>&1 || { tail -n 20 "$root.log" >&2; exit 1; }
rm -f "$root.log"
rm -rf "$root"/var/cache/apt/{*.bin,archives/*.deb} "$root"/var/lib/apt/lists/* "$root"/var/log/*.log \
    "$root"/usr/share/{doc,man,locale,info}/*
tar --directory "$root" --create . | docker import \
    --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8' \
    --change 'CMD ["python3"]' - tradewind-base:bookworm

docker build --quiet --tag tradewind-postgres:15 --file "$here/offline/postgres.Dockerfile" "$here/offline"
docker build --quiet --tag tradewind-redis:7 --file "$here/offline/redis.Dockerfile" "$here/offline"
docker image ls --filter 'reference=tradewind-*'
