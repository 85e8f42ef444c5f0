#!/bin/bash
# Start the server as the user rabbitmq. The server itself reads RABBITMQ_DEFAULT_USER, _PASS and _VHOST.
set -euo pipefail
if [[ "$1" == rabbitmq* ]] && [ "$(id -u)" = 0 ]; then
	find /var/lib/rabbitmq \! -user rabbitmq -exec chown rabbitmq '{}' +
	exec setpriv --reuid=rabbitmq --regid=rabbitmq --init-groups "$0" "$@"
fi
export RUNNING_UNDER_SYSTEMD=true
exec "$@"
