#!/usr/bin/env bash
# The lab's mariadb: environment, order and outcome of the official image's entrypoint, written for these tests.
set -Eeuo pipefail
shopt -s nullglob

DATADIR=/var/lib/mysql
SOCKET=/run/mysqld/mysqld.sock

log() { printf 'lab-mariadb: %s\n' "$*" >&2; }
die() { log "error: $*"; exit 1; }

# setting NAME: MARIADB_NAME or MYSQL_NAME, or the file that their _FILE variant names, into NAME (not exported).
setting() {
	local name=$1 prefix variable value=''
	for prefix in MARIADB MYSQL; do
		variable=${prefix}_$name
		local file_name=${variable}_FILE
		if [[ -n ${!variable-} && -n ${!file_name-} ]]; then
			die "both $variable and $file_name are set (but are exclusive)"
		fi
		if [[ -z $value && -n ${!variable-} ]]; then
			value=${!variable}
		elif [[ -z $value && -n ${!file_name-} ]]; then
			value=$(<"${!file_name}")
		fi
	done
	printf -v "$name" '%s' "$value"
}

quoted() { # as a string literal of SQL
	local text=${1//\\/\\\\}
	printf "'%s'" "${text//\'/\'\'}"
}

sql() { # sql [DATABASE]: statements on stdin, through the socket, as the account that may do all
	MYSQL_PWD=$CURRENT_ROOT_PASSWORD mariadb --protocol=socket --socket="$SOCKET" -uroot -hlocalhost --comments "$@"
}

first_start() {
	setting ROOT_PASSWORD
	setting ROOT_HOST
	setting RANDOM_ROOT_PASSWORD
	setting ALLOW_EMPTY_ROOT_PASSWORD
	[[ -n $ALLOW_EMPTY_ROOT_PASSWORD ]] || ALLOW_EMPTY_ROOT_PASSWORD=${MYSQL_ALLOW_EMPTY_PASSWORD-}
	setting DATABASE
	setting USER
	setting PASSWORD
	if [[ -z $ROOT_PASSWORD && -z $RANDOM_ROOT_PASSWORD && -z $ALLOW_EMPTY_ROOT_PASSWORD ]]; then
		die 'Database is uninitialized and password option is not specified: MARIADB_ROOT_PASSWORD,' \
			'MARIADB_ALLOW_EMPTY_ROOT_PASSWORD or MARIADB_RANDOM_ROOT_PASSWORD is needed'
	fi
	if [[ -n $RANDOM_ROOT_PASSWORD ]]; then
		ROOT_PASSWORD=$(head -c 24 /dev/urandom | base64)
		log "GENERATED ROOT PASSWORD: $ROOT_PASSWORD"
	fi
	log 'Initializing database files'
	mariadb-install-db --datadir="$DATADIR" --auth-root-authentication-method=normal --skip-test-db \
		--cross-bootstrap --old-mode='UTF8_IS_UTF8MB3' --default-time-zone=SYSTEM --skip-log-bin >/dev/null
	CURRENT_ROOT_PASSWORD=''
	log 'Starting temporary server'
	"$@" --skip-networking --default-time-zone=SYSTEM --socket="$SOCKET" --skip-log-bin &
	local server=$! left=60
	until sql <<<'SELECT 1' >/dev/null 2>&1; do
		kill -0 "$server" 2>/dev/null || die 'the temporary server ended'
		((left-- > 0)) || die 'the temporary server does not answer'
		sleep 0.5
	done
	{
		printf 'SET @@SESSION.SQL_LOG_BIN=0;\n'
		printf 'ALTER USER root@localhost IDENTIFIED BY %s;\n' "$(quoted "$ROOT_PASSWORD")"
		if [[ ${ROOT_HOST:-%} != localhost ]]; then
			printf 'CREATE USER root@%s IDENTIFIED BY %s;\n' "$(quoted "${ROOT_HOST:-%}")" "$(quoted "$ROOT_PASSWORD")"
			printf 'GRANT ALL ON *.* TO root@%s WITH GRANT OPTION;\n' "$(quoted "${ROOT_HOST:-%}")"
		fi
		[[ -z $DATABASE ]] || printf 'CREATE DATABASE IF NOT EXISTS `%s`;\n' "${DATABASE//\`/\`\`}"
		if [[ -n $USER && -n $PASSWORD ]]; then
			printf 'CREATE USER %s@%s IDENTIFIED BY %s;\n' "$(quoted "$USER")" "'%'" "$(quoted "$PASSWORD")"
			[[ -z $DATABASE ]] || printf 'GRANT ALL ON `%s`.* TO %s@%s;\n' "${DATABASE//_/\\_}" "$(quoted "$USER")" "'%'"
		fi
	} | sql
	CURRENT_ROOT_PASSWORD=$ROOT_PASSWORD
	local file
	for file in /docker-entrypoint-initdb.d/*; do
		log "running $file"
		case $file in
		*.sh) if [[ -x $file ]]; then "$file"; else . "$file"; fi ;; # shellcheck disable=SC1090
		*.sql) sql ${DATABASE:+"$DATABASE"} <"$file" ;;
		*.sql.gz) gunzip -c "$file" | sql ${DATABASE:+"$DATABASE"} ;;
		*.sql.zst) zstd -dc "$file" | sql ${DATABASE:+"$DATABASE"} ;;
		*) log "ignoring $file" ;;
		esac
	done
	log 'Stopping temporary server'
	kill "$server"
	wait "$server" || true
	log 'MariaDB init process done. Ready for start up.'
}

if [[ ${1:0:1} == - ]]; then
	set -- mariadbd "$@"
fi
if [[ ${1-} == mariadbd || ${1-} == mysqld ]]; then
	for word in "$@"; do
		case $word in -'?' | --help | --print-defaults | -V | --version) exec "$@" ;; esac
	done
	mkdir -p "$DATADIR" /run/mysqld
	if ((EUID == 0)); then
		find "$DATADIR" /run/mysqld \! -user mysql -exec chown mysql: '{}' +
		exec gosu mysql "${BASH_SOURCE[0]}" "$@"
	fi
	[[ -d $DATADIR/mysql ]] || first_start "$@"
fi
exec "$@"
