#!/usr/bin/env bash
# The account of the image's health check: it may log in and nothing more, from the server's own host, with a password of its
# own in a file among the data. Sourced by the entrypoint while its temporary server runs.
file=$DATADIR/.my-healthcheck.cnf
if [[ ! -e $file ]]; then
	password=$(head -c 24 /dev/urandom | base64 | tr -d '+/=')
	for host in 127.0.0.1 ::1 localhost; do
		printf "CREATE USER IF NOT EXISTS healthcheck@'%s' IDENTIFIED BY '%s';\n" "$host" "$password"
		printf "GRANT %s ON *.* TO healthcheck@'%s';\n" "${MARIADB_HEALTHCHECK_GRANTS:-USAGE}" "$host"
	done | sql
	printf '[mariadb-client]\nport=3306\nsocket=%s\nuser=healthcheck\npassword=%s\nprotocol=tcp\n' "$SOCKET" "$password" >"$file"
	unset password
fi
