#!/bin/sh
# Tell whether the server accepts connections and InnoDB is initialized, with the options of the official script.
set -e
for option in "$@"; do
	case $option in
	--connect) mariadb-admin --user=healthcheck --socket=/run/mysqld/mysqld.sock --silent ping >/dev/null ;;
	--innodb_initialized) mariadb --user=healthcheck --skip-column-names --execute='SELECT 1' >/dev/null ;;
	*) echo "unknown option $option" >&2 && exit 1 ;;
	esac
done
