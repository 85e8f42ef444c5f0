#!/bin/bash
# Initialize an empty data directory from MARIADB_* or MYSQL_* as the official image does, then start the server.
set -eo pipefail
shopt -s nullglob

# Set MARIADB_NAME from MARIADB_NAME_FILE, MYSQL_NAME or MYSQL_NAME_FILE.
from_file() {
	local name=MARIADB_$1 file=MARIADB_${1}_FILE old=MYSQL_$1 old_file=MYSQL_${1}_FILE
	if [ -z "${!name}" ] && [ -n "${!file}" ]; then export "$name=$(<"${!file}")"; fi
	if [ -z "${!name}" ] && [ -n "${!old}" ]; then export "$name=${!old}"; fi
	if [ -z "${!name}" ] && [ -n "${!old_file}" ]; then export "$name=$(<"${!old_file}")"; fi
	unset "$file" "$old_file"
}

quote() {
	local text=${1//\\/\\\\}
	echo "${text//\'/\\\'}"
}

initialize() {
	local socket=/run/mysqld/mysqld.sock
	if [ -z "$MARIADB_ROOT_PASSWORD$MARIADB_ALLOW_EMPTY_ROOT_PASSWORD$MARIADB_RANDOM_ROOT_PASSWORD" ]; then
		echo "Database is uninitialized and password option is not specified" >&2
		exit 1
	fi
	mariadb-install-db --datadir=/var/lib/mysql --rpm --auth-root-authentication-method=normal --skip-test-db \
		--skip-log-bin
	"$@" --skip-networking --socket="$socket" &
	local server=$!
	for _ in {1..300}; do
		mariadb --socket="$socket" --user=root mysql <<<'SELECT 1' &>/dev/null && break
		sleep 0.1
	done
	{
		if [ -n "$MARIADB_DATABASE" ]; then echo "CREATE DATABASE \`$MARIADB_DATABASE\`;"; fi
		if [ -n "$MARIADB_USER" ]; then
			echo "CREATE USER '$MARIADB_USER'@'%' IDENTIFIED BY '$(quote "$MARIADB_PASSWORD")';"
			echo "GRANT ALL ON \`${MARIADB_DATABASE:-%}\`.* TO '$MARIADB_USER'@'%';"
		fi
		echo "CREATE USER healthcheck@localhost IDENTIFIED BY '' ;"
		echo "SET PASSWORD FOR root@localhost = PASSWORD('$(quote "$MARIADB_ROOT_PASSWORD")');"
		echo "CREATE USER root@'%' IDENTIFIED BY '$(quote "$MARIADB_ROOT_PASSWORD")';"
		echo "GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;"
	} | mariadb --socket="$socket" --user=root mysql
	for script in /docker-entrypoint-initdb.d/*.sql; do
		MYSQL_PWD=$MARIADB_ROOT_PASSWORD mariadb --socket="$socket" --user=root "$MARIADB_DATABASE" <"$script"
	done
	kill "$server"
	wait "$server" || :
	echo "MariaDB init process done. Ready for start up."
}

[ "${1:0:1}" != - ] || set -- mariadbd "$@"
if [ "$1" = mariadbd ]; then
	if [ "$(id -u)" = 0 ]; then
		chown -R mysql: /var/lib/mysql /run/mysqld
		exec setpriv --reuid=mysql --regid=mysql --init-groups "$0" "$@"
	fi
	for name in ROOT_PASSWORD DATABASE USER PASSWORD; do from_file "$name"; done
	[ -d /var/lib/mysql/mysql ] || initialize "$@"
fi
exec "$@"
