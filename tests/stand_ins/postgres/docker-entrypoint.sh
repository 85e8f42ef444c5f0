#!/bin/bash
# Initialize an empty data directory from POSTGRES_* as the official image does, then start the server.
set -Eeuo pipefail

from_file() {
	local name=$1 file=${1}_FILE
	if [ -n "${!name:-}" ] && [ -n "${!file:-}" ]; then
		echo "error: both $name and $file are set" >&2
		exit 1
	fi
	[ -z "${!file:-}" ] || export "$name=$(<"${!file}")"
	[ -n "${!name:-}" ] || export "$name=${2:-}"
	unset "$file"
}

initialize() {
	from_file POSTGRES_PASSWORD
	from_file POSTGRES_USER postgres
	from_file POSTGRES_DB "$POSTGRES_USER"
	from_file POSTGRES_INITDB_ARGS
	if [ -z "$POSTGRES_PASSWORD" ] && [ "${POSTGRES_HOST_AUTH_METHOD:-}" != trust ]; then
		echo "Error: Database is uninitialized and superuser password is not specified." >&2
		exit 1
	fi
	eval "initdb --username=\"\$POSTGRES_USER\" --pwfile=<(printf '%s\n' \"\$POSTGRES_PASSWORD\") $POSTGRES_INITDB_ARGS"
	echo "host all all all ${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
	pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start
	local sql=(psql --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --no-psqlrc)
	if [ "$POSTGRES_DB" != postgres ]; then
		"${sql[@]}" --dbname=postgres --set=db="$POSTGRES_DB" <<<'CREATE DATABASE :"db";'
	fi
	local script
	for script in /docker-entrypoint-initdb.d/*; do
		case $script in
		*.sh) . "$script" ;;
		*.sql) "${sql[@]}" --dbname="$POSTGRES_DB" --file="$script" ;;
		esac
	done
	pg_ctl -D "$PGDATA" -m fast -w stop
	echo "PostgreSQL init process complete; ready for start up."
}

[ "${1:0:1}" != - ] || set -- postgres "$@"
if [ "$1" = postgres ]; then
	if [ "$PG_MAJOR" -ge 18 ] && grep -q ' /var/lib/postgresql/data ' /proc/self/mountinfo; then
		echo "Error: in 18+, these Docker images are configured to store database data in $PGDATA" >&2
		exit 1
	fi
	mkdir -p "$PGDATA"
	chmod 0700 "$PGDATA" || :
	chmod 03775 /var/run/postgresql || :
	if [ "$(id -u)" = 0 ]; then
		chown -R postgres "$PGDATA" /var/run/postgresql
		exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
	fi
	[ -s "$PGDATA/PG_VERSION" ] || initialize
fi
exec "$@"
