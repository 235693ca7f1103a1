#!/bin/sh
# pip for the images' environment: pinned, never stored in an image (it is mounted while a layer is made).
#   /wheels          wheels given by the builder, preferred to those of an index
#   /run/secrets/ca  certificates of a network that inspects TLS; absent elsewhere
set -eu
if [ -s /run/secrets/ca ]; then
    export PIP_CERT=/run/secrets/ca
fi
export PIP_FIND_LINKS=/wheels PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_PROGRESS_BAR=off
export PIP_CACHE_DIR=/pip-cache PIP_DEFAULT_TIMEOUT=120
case "$1" in
install) exec /opt/tools/bin/pip --python /opt/venv/bin/python "$@" ;;
*) exec /opt/tools/bin/pip "$@" ;;
esac
