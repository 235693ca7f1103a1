# Redis 7 of Debian 12, with the folder and user of the upstream image. Only for deploy/base-image.sh.
FROM tradewind-base:bookworm
RUN apt-get update \
 && apt-get install --yes --no-install-recommends redis-server \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb \
 && install --directory --owner redis --group redis --mode 0700 /data
WORKDIR /data
USER redis
CMD ["redis-server", "--bind", "*", "--protected-mode", "no"]
