#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Starts PostgreSQL as the official image does: the same variables, the same defaults, the same access rules.
# One thing is better: the cluster is made in a directory of its own and moved into place when it is whole, so a
# container that is killed in its first seconds starts over instead of serving a database without users.
set -Eeuo pipefail

fail() {
    echo "error: $*" >&2
    exit 1
}

# NAME from the environment, or from the file that NAME_FILE names (a Docker secret), or a default.
file_env() {
    local name=$1 file_name="$1_FILE" default=${2:-}
    if [ -n "${!name:-}" ] && [ -n "${!file_name:-}" ]; then
        fail "both $name and $file_name are set (but are exclusive)"
    fi
    local value=${!name:-$default}
    if [ -n "${!file_name:-}" ]; then
        [ -r "${!file_name}" ] || fail "$file_name names ${!file_name}, which cannot be read"
        value=$(<"${!file_name}")
    fi
    export "$name=$value"
    unset "$file_name"
}

read_environment() {
    file_env POSTGRES_PASSWORD
    file_env POSTGRES_USER postgres
    file_env POSTGRES_DB "$POSTGRES_USER"
    file_env POSTGRES_INITDB_ARGS
    : "${POSTGRES_HOST_AUTH_METHOD:=}"
}

make_directories() {
    mkdir -p "$PGDATA" /var/run/postgresql
    # Another owner's directory may refuse the modes; PostgreSQL itself then says so, more precisely.
    chmod 0700 "$PGDATA" || :
    chmod 3775 /var/run/postgresql || :
    if [ "$(id -u)" = 0 ]; then
        find "$PGDATA" \! -user postgres -exec chown postgres '{}' +
        find /var/run/postgresql \! -user postgres -exec chown postgres '{}' +
    fi
}

refuse_without_password() {
    [ -z "$POSTGRES_PASSWORD" ] && [ "$POSTGRES_HOST_AUTH_METHOD" != trust ] || return 0
    cat >&2 <<'TEXT'
Error: Database is uninitialized and superuser password is not specified.
       You must specify POSTGRES_PASSWORD (or POSTGRES_PASSWORD_FILE) to a non-empty value for the superuser,
       or set POSTGRES_HOST_AUTH_METHOD=trust to allow all connections without a password, which is not recommended.
TEXT
    exit 1
}

refuse_foreign_files() {
    local foreign
    foreign=$(find "$PGDATA" -mindepth 1 -maxdepth 1 \! -name .initializing \! -name lost+found -print -quit)
    [ -z "$foreign" ] || fail "$PGDATA is no PostgreSQL cluster, yet not empty (it has $foreign): give it a volume of its own"
}

make_cluster() {
    # shellcheck disable=SC2086 # POSTGRES_INITDB_ARGS holds several words
    initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") $POSTGRES_INITDB_ARGS
    # The local socket and the container's own loopback stay on trust, which is initdb's default; all else logs in.
    local method=${POSTGRES_HOST_AUTH_METHOD:-$(postgres -C password_encryption)}
    printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
}

sql() {
    PGHOST='' PGHOSTADDR='' psql -v ON_ERROR_STOP=1 --no-psqlrc --no-password --username "$POSTGRES_USER" "$@"
}

create_database() {
    [ "$POSTGRES_DB" != postgres ] || return 0
    sql --dbname postgres --set db="$POSTGRES_DB" <<<'CREATE DATABASE :"db";'
}

run_init_files() {
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh)
                echo "$0: running $file"
                # As in the official image: an executable runs, another is read into this shell.
                # shellcheck disable=SC1090
                if [ -x "$file" ]; then "$file"; else . "$file"; fi
                ;;
            *.sql) echo "$0: running $file" && sql --dbname "$POSTGRES_DB" -f "$file" ;;
            *.sql.gz) echo "$0: running $file" && gunzip -c "$file" | sql --dbname "$POSTGRES_DB" ;;
            *.sql.xz) echo "$0: running $file" && xzcat "$file" | sql --dbname "$POSTGRES_DB" ;;
            *.sql.zst) echo "$0: running $file" && zstd -dc "$file" | sql --dbname "$POSTGRES_DB" ;;
            *'/*') ;;
            *) echo "$0: ignoring $file" ;;
        esac
    done
}

initialize() {
    local final=$PGDATA staging="$PGDATA/.initializing"
    if [ ! -e "$staging/.complete" ]; then
        refuse_without_password
        refuse_foreign_files
        # Unreadable, the directory would look empty and its files would silently not run.
        ls /docker-entrypoint-initdb.d/ >/dev/null
        rm -rf "$staging"
        export PGDATA=$staging
        make_cluster
        # On the socket only: nobody can reach a database that is not finished.
        pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start
        create_database
        run_init_files
        pg_ctl -D "$PGDATA" -m fast -w stop
        export PGDATA=$final
        sync
        touch "$staging/.complete"
    fi
    # PG_VERSION makes a directory a cluster, so it moves last; a kill before that is resumed at the next start.
    find "$staging" -mindepth 1 -maxdepth 1 \! -name PG_VERSION \! -name .complete -exec mv -t "$final" '{}' +
    mv "$staging/PG_VERSION" "$final/"
    echo 'PostgreSQL init process complete; ready for start up.'
}

is_server() {
    [ "$1" = postgres ] || return 1
    local word
    for word in "$@"; do
        case $word in -'?' | --help | --describe-config | -V | --version) return 1 ;; esac
    done
}

main() {
    [ "${1:0:1}" != '-' ] || set -- postgres "$@"
    if is_server "$@"; then
        read_environment
        make_directories
        if [ "$(id -u)" = 0 ]; then
            exec setpriv --reuid=postgres --regid=postgres --init-groups "${BASH_SOURCE[0]}" "$@"
        fi
        if [ -s "$PGDATA/PG_VERSION" ]; then
            echo 'PostgreSQL Database directory appears to contain a database; Skipping initialization'
        else
            initialize
        fi
        rm -rf "$PGDATA/.initializing"
    fi
    exec "$@"
}

main "$@"
