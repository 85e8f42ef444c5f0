#!/bin/sh
# Start the server; options alone are options of the server.
set -e
if [ "${1#-}" != "$1" ]; then
	set -- memcached "$@"
fi
exec "$@"
