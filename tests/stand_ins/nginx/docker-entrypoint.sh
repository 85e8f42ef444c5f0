#!/bin/sh
# Fill in the templates of /etc/nginx/templates as the official image does, then start the server.
set -e
templates=${NGINX_ENVSUBST_TEMPLATE_DIR:-/etc/nginx/templates}
output=${NGINX_ENVSUBST_OUTPUT_DIR:-/etc/nginx/conf.d}
if [ "$1" = nginx ] && [ -d "$templates" ]; then
	if [ -w "$output" ]; then
		for template in "$templates"/*.template; do
			perl -pe 's/\$\{(\w+)\}/exists $ENV{$1} ? $ENV{$1} : $&/ge' \
				<"$template" >"$output/$(basename "$template" .template)"
		done
	else
		echo "$0: ERROR: $templates exists, but $output is not writable"
	fi
fi
exec "$@"
