#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Starts one process and becomes it, so that signals reach it. Nothing else happens here: what must happen once
# (migrations, the visitors' slots) is a service's of its own, never every container's.
set -eu

ENTRYPOINT_VERSION="1.2.0"
role=${1:-web}
echo "entrypoint ENTRYPOINT_VERSION=$ENTRYPOINT_VERSION role=$role"

case $role in
    web) exec gunicorn --config /app/gunicorn.conf.py studio.wsgi ;;
    worker) exec python manage.py worker ;;
    migrate) exec python manage.py migrate --noinput ;;
    pool) exec python manage.py create_visitor_pool --at-start ;;
    *) exec "$@" ;;
esac
