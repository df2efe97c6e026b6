#!/usr/bin/env bash
# Makes the database cluster at the first start, then runs the given command: what the public image does with
# POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB, POSTGRES_INITDB_ARGS (each also as ..._FILE),
# POSTGRES_HOST_AUTH_METHOD, PGDATA and /docker-entrypoint-initdb.d.
set -euo pipefail

# from_file NAME DEFAULT: the value of NAME, else the content of the file which NAME_FILE names, else DEFAULT.
from_file() {
    local file_name=$1_FILE
    if [ -n "${!1:-}" ] && [ -n "${!file_name:-}" ]; then
        echo "both $1 and $file_name are set" >&2
        return 1
    fi
    if [ -n "${!1:-}" ]; then
        printf '%s' "${!1}"
    elif [ -n "${!file_name:-}" ]; then
        cat "${!file_name}"
    else
        printf '%s' "$2"
    fi
}

run_init_files() {
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh)
                # shellcheck disable=SC1090
                if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
            *.sql) sql -f "$file" ;;
            *.sql.gz) gunzip -c "$file" | sql ;;
        esac
    done
}

# The last -d counts.
sql() { psql -v ON_ERROR_STOP=1 --no-psqlrc --no-password -U "$POSTGRES_USER" -d "$POSTGRES_DB" "$@"; }

first_start() {
    local password_given arguments nss=''
    POSTGRES_USER=$(from_file POSTGRES_USER postgres)
    POSTGRES_DB=$(from_file POSTGRES_DB "$POSTGRES_USER")
    POSTGRES_INITDB_ARGS=$(from_file POSTGRES_INITDB_ARGS '')
    password_given=$(from_file POSTGRES_PASSWORD '')
    export POSTGRES_USER POSTGRES_DB
    local method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
    if [ -z "$password_given" ] && [ "$method" != trust ]; then
        echo 'POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE is needed for a new database.' >&2
        exit 1
    fi

    # The variable is a piece of command line, with quotes where values have spaces.
    eval "arguments=($POSTGRES_INITDB_ARGS)"
    (
        # initdb insists on a name for its user id, which `--user` of the engine does not give.
        if ! getent passwd "$(id -u)" >/dev/null; then
            nss=$(mktemp -d)
            printf 'postgres:x:%s:%s::%s:/bin/false\n' "$(id -u)" "$(id -g)" "$PGDATA" >"$nss/passwd"
            printf 'postgres:x:%s:\n' "$(id -g)" >"$nss/group"
            export LD_PRELOAD=libnss_wrapper.so NSS_WRAPPER_PASSWD=$nss/passwd NSS_WRAPPER_GROUP=$nss/group
        fi
        # The line end is for the empty password, as an empty file is refused.
        initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$password_given") \
            ${arguments[@]+"${arguments[@]}"}
        if [ -n "$nss" ]; then rm -r "$nss"; fi
    )
    printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"

    # On the socket only, so that nobody takes the server for ready before it is; with the options of the later
    # server, which may be needed for the set-up.
    export PGPASSWORD=${PGPASSWORD:-$password_given}
    shift
    PGUSER=$POSTGRES_USER pg_ctl -D "$PGDATA" -w \
        -o "$(printf '%q ' "$@" -c listen_addresses= -p "${PGPORT:-5432}")" start
    if [ "$POSTGRES_DB" != postgres ]; then
        sql -d postgres -v name="$POSTGRES_DB" <<<'CREATE DATABASE :"name"'
    fi
    run_init_files
    pg_ctl -D "$PGDATA" -m fast -w stop
    unset PGPASSWORD
}

case ${1:-} in -*) set -- postgres "$@" ;; esac

informs_only=no
for argument in "$@"; do
    case $argument in -\? | --help | --describe-config | -V | --version) informs_only=yes ;; esac
done

if [ "${1:-}" = postgres ] && [ $informs_only = no ]; then
    mkdir -p "$PGDATA"
    # May fail on a mount of another owner; then the server says what is wrong with it.
    chmod 700 "$PGDATA" || true
    if [ "$(id -u)" = 0 ]; then
        find "$PGDATA" /var/run/postgresql ! -user postgres -exec chown postgres {} +
        exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
    fi
    if [ ! -s "$PGDATA/PG_VERSION" ]; then first_start "$@"; fi
fi
exec "$@"
