#!/usr/bin/env bash
# The lab's mysql: environment, order and outcome of the official image's entrypoint, written for these tests.
set -Eeuo pipefail
shopt -s nullglob

DATADIR=/var/lib/mysql
SOCKET=/var/run/mysqld/mysqld.sock

log() { printf 'lab-mysql: %s\n' "$*" >&2; }
die() { log "error: $*"; exit 1; }

# setting NAME: NAME from the environment, or from the file that NAME_FILE names; both at once is an error.
setting() {
	local name=$1 file_name=${1}_FILE value=''
	if [[ -n ${!name-} && -n ${!file_name-} ]]; then
		die "both $name and $file_name are set (but are exclusive)"
	fi
	if [[ -n ${!name-} ]]; then
		value=${!name}
	elif [[ -n ${!file_name-} ]]; then
		value=$(<"${!file_name}")
	fi
	printf -v "$name" '%s' "$value"
}

quoted() { # as a string literal of SQL
	local text=${1//\\/\\\\}
	printf "'%s'" "${text//\'/\'\'}"
}

sql() { # sql [DATABASE]: statements on stdin, through the socket, as the account that may do all
	MYSQL_PWD=$CURRENT_ROOT_PASSWORD mysql --no-defaults --protocol=socket --socket="$SOCKET" -uroot --comments "$@"
}

first_start() {
	local name
	for name in ROOT_PASSWORD ROOT_HOST DATABASE USER PASSWORD; do setting "MYSQL_$name"; done
	local random=${MYSQL_RANDOM_ROOT_PASSWORD-} empty=${MYSQL_ALLOW_EMPTY_PASSWORD-}
	if [[ -z $MYSQL_ROOT_PASSWORD && -z $random && -z $empty ]]; then
		die 'Database is uninitialized and password option is not specified: one of MYSQL_ROOT_PASSWORD,' \
			'MYSQL_ALLOW_EMPTY_PASSWORD and MYSQL_RANDOM_ROOT_PASSWORD is needed'
	fi
	[[ $MYSQL_USER != root ]] || die 'MYSQL_USER is for another account than root'
	if [[ -n $random ]]; then
		MYSQL_ROOT_PASSWORD=$(head -c 24 /dev/urandom | base64)
		log "GENERATED ROOT PASSWORD: $MYSQL_ROOT_PASSWORD"
	fi
	log 'Initializing database files'
	"$@" --initialize-insecure --default-time-zone=SYSTEM --autocommit=1
	CURRENT_ROOT_PASSWORD=''
	log 'Starting temporary server'
	"$@" --skip-networking --mysqlx=0 --default-time-zone=SYSTEM --socket="$SOCKET" --autocommit=1 &
	local server=$! left=120
	until sql <<<'SELECT 1' >/dev/null 2>&1; do
		kill -0 "$server" 2>/dev/null || die 'the temporary server ended'
		((left-- > 0)) || die 'the temporary server does not answer'
		sleep 0.5
	done
	{
		if [[ ${MYSQL_ROOT_HOST:-%} != localhost ]]; then
			printf 'CREATE USER root@%s IDENTIFIED BY %s;\n' "$(quoted "${MYSQL_ROOT_HOST:-%}")" "$(quoted "$MYSQL_ROOT_PASSWORD")"
			printf 'GRANT ALL ON *.* TO root@%s WITH GRANT OPTION;\n' "$(quoted "${MYSQL_ROOT_HOST:-%}")"
		fi
		printf 'ALTER USER root@localhost IDENTIFIED BY %s;\n' "$(quoted "$MYSQL_ROOT_PASSWORD")"
		[[ -z $MYSQL_DATABASE ]] || printf 'CREATE DATABASE IF NOT EXISTS `%s`;\n' "${MYSQL_DATABASE//\`/\`\`}"
		if [[ -n $MYSQL_USER && -n $MYSQL_PASSWORD ]]; then
			printf 'CREATE USER %s@%s IDENTIFIED BY %s;\n' "$(quoted "$MYSQL_USER")" "'%'" "$(quoted "$MYSQL_PASSWORD")"
			[[ -z $MYSQL_DATABASE ]] ||
				printf 'GRANT ALL ON `%s`.* TO %s@%s;\n' "${MYSQL_DATABASE//_/\\_}" "$(quoted "$MYSQL_USER")" "'%'"
		fi
	} | sql
	CURRENT_ROOT_PASSWORD=$MYSQL_ROOT_PASSWORD
	local file
	for file in /docker-entrypoint-initdb.d/*; do
		log "running $file"
		case $file in
		*.sh) if [[ -x $file ]]; then "$file"; else . "$file"; fi ;; # shellcheck disable=SC1090
		*.sql) sql ${MYSQL_DATABASE:+"$MYSQL_DATABASE"} <"$file" ;;
		*.sql.gz) gunzip -c "$file" | sql ${MYSQL_DATABASE:+"$MYSQL_DATABASE"} ;;
		*.sql.zst) zstd -dc "$file" | sql ${MYSQL_DATABASE:+"$MYSQL_DATABASE"} ;;
		*) log "ignoring $file" ;;
		esac
	done
	if [[ -n ${MYSQL_ONETIME_PASSWORD-} ]]; then
		printf 'ALTER USER root@%s PASSWORD EXPIRE;\n' "$(quoted "${MYSQL_ROOT_HOST:-%}")" | sql
	fi
	log 'Stopping temporary server'
	kill "$server"
	wait "$server" || true
	log 'MySQL init process done. Ready for start up.'
}

if [[ ${1:0:1} == - ]]; then
	set -- mysqld "$@"
fi
if [[ ${1-} == mysqld ]]; then
	for word in "$@"; do
		case $word in -'?' | --help | --print-defaults | -V | --version) exec "$@" ;; esac
	done
	mkdir -p "$DATADIR" /var/run/mysqld
	if ((EUID == 0)); then
		find "$DATADIR" /var/run/mysqld \! -user mysql -exec chown mysql: '{}' +
		exec gosu mysql "${BASH_SOURCE[0]}" "$@"
	fi
	[[ -d $DATADIR/mysql ]] || first_start "$@"
fi
exec "$@"
