#!/usr/bin/env bash
# Makes the database on an empty data folder, then becomes the server. Settings, order, refusals and log lines
# are those of the official image, as its documentation gives them: POSTGRES_USER, _PASSWORD, _DB, _INITDB_ARGS,
# _INITDB_WALDIR, _HOST_AUTH_METHOD, each but the last two also as _FILE, and /docker-entrypoint-initdb.d.
set -Eeo pipefail

# from_file NAME DEFAULT: NAME, else the content of the file that NAME_FILE names, else DEFAULT.
from_file() {
    local name=$1 file_name="$1_FILE"
    if [ -n "${!name:-}" ] && [ -n "${!file_name:-}" ]; then
        echo "error: both $name and $file_name are set (but are exclusive)" >&2
        exit 1
    fi
    if [ -n "${!file_name:-}" ]; then
        export "$name"="$(<"${!file_name}")"
    else
        export "$name"="${!name:-$2}"
    fi
    unset "$file_name"
}

read_settings() {
    from_file POSTGRES_PASSWORD ''
    from_file POSTGRES_USER postgres
    from_file POSTGRES_DB "$POSTGRES_USER"
    from_file POSTGRES_INITDB_ARGS ''
    : "${POSTGRES_HOST_AUTH_METHOD:=}"
}

make_folders() {
    local -a folders=("$PGDATA")
    [ -z "${POSTGRES_INITDB_WALDIR:-}" ] || folders+=("$POSTGRES_INITDB_WALDIR")
    mkdir -p "${folders[@]}"
    chmod 700 "${folders[@]}" || true
    [ "$(id -u)" -ne 0 ] || find "${folders[@]}" /var/run/postgresql \! -user postgres -exec chown postgres '{}' +
}

refuse_without_password() {
    if [ -z "$POSTGRES_PASSWORD" ] && [ "$POSTGRES_HOST_AUTH_METHOD" != trust ]; then
        echo 'Error: Database is uninitialized and superuser password is not specified.
       You must specify POSTGRES_PASSWORD to a non-empty value for the superuser, or
       POSTGRES_HOST_AUTH_METHOD=trust to allow all connections without a password.' >&2
        exit 1
    fi
    if [ "$POSTGRES_HOST_AUTH_METHOD" = trust ]; then
        echo 'WARNING: POSTGRES_HOST_AUTH_METHOD is "trust": anyone who reaches the port needs no password.' >&2
    fi
}

# init_database SERVER_ARGUMENT...
init_database() {
    local -a initdb_args=()
    [ -z "$POSTGRES_INITDB_ARGS" ] || eval "initdb_args=($POSTGRES_INITDB_ARGS)"   # quotes in it count, as officially
    [ -z "${POSTGRES_INITDB_WALDIR:-}" ] || initdb_args+=(--waldir "$POSTGRES_INITDB_WALDIR")
    initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") "${initdb_args[@]}"
    local method=${POSTGRES_HOST_AUTH_METHOD:-$(postgres -C password_encryption "$@")}
    printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
}

# What scripts in /docker-entrypoint-initdb.d may call, too.
docker_process_sql() {
    PGHOST='' PGHOSTADDR='' psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --no-password --no-psqlrc \
        --dbname "$POSTGRES_DB" "$@"
}

make_database() {
    [ "$POSTGRES_DB" != postgres ] || return 0
    docker_process_sql --dbname postgres --set db="$POSTGRES_DB" <<<'CREATE DATABASE :"db" ;'
}

run_init_files() {
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        case "$file" in
            *.sh)
                if [ -x "$file" ]; then echo "$0: running $file"; "$file"
                else echo "$0: sourcing $file"; . "$file"; fi ;;
            *.sql) echo "$0: running $file"; docker_process_sql -f "$file" ;;
            *.sql.gz) echo "$0: running $file"; gunzip -c "$file" | docker_process_sql ;;
            *.sql.xz) echo "$0: running $file"; xzcat "$file" | docker_process_sql ;;
            *.sql.zst) echo "$0: running $file"; zstd -dc "$file" | docker_process_sql ;;
            *) echo "$0: ignoring $file" ;;
        esac
    done
}

# make_cluster SERVER_ARGUMENT...: on a server that only the socket reaches, so that who waits for the port, or
# for the second "ready to accept connections", meets the finished database.
make_cluster() {
    ls /docker-entrypoint-initdb.d/ >/dev/null   # unreadable: better now than with half a database
    init_database "$@"
    export PGPASSWORD="${PGPASSWORD:-$POSTGRES_PASSWORD}"
    PGUSER="${PGUSER:-$POSTGRES_USER}" pg_ctl -D "$PGDATA" -w start \
        -o "$(printf '%q ' "$@" -c listen_addresses= -p "${PGPORT:-5432}")"
    make_database
    run_init_files
    PGUSER="${PGUSER:-postgres}" pg_ctl -D "$PGDATA" -m fast -w stop
    unset PGPASSWORD
    printf '\nPostgreSQL init process complete; ready for start up.\n\n'
}

[ "${1:0:1}" != - ] || set -- postgres "$@"
case " $* " in
    *' -? '* | *' --help '* | *' --describe-config '* | *' -V '* | *' --version '*) ;;
    ' postgres '*)
        if [ "$(id -u)" -eq 0 ]; then
            make_folders
            exec gosu postgres "${BASH_SOURCE[0]}" "$@"
        fi
        read_settings
        make_folders
        if [ -s "$PGDATA/PG_VERSION" ]; then
            printf '\nPostgreSQL Database directory appears to contain a database; Skipping initialization\n\n'
        else
            refuse_without_password
            make_cluster "${@:2}"
        fi ;;
esac
exec "$@"
