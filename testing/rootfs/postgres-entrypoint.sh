#!/usr/bin/env bash
# What the lab's postgres image runs: same environment, same order and same outcome as the official image's entrypoint
# (written for these tests from its documented behaviour), so that a volume made here is like one made in production.
set -Eeuo pipefail
shopt -s nullglob

log() { printf 'lab-postgres: %s\n' "$*" >&2; }
die() { log "error: $*"; exit 1; }

# setting NAME [DEFAULT]: NAME from the environment, or from the file that NAME_FILE names; both at once is an error.
setting() {
	local name=$1 value=${2-} file_name="${1}_FILE"
	if [[ -n ${!name-} && -n ${!file_name-} ]]; then
		die "both $name and $file_name are set (but are exclusive)"
	fi
	if [[ -n ${!name-} ]]; then
		value=${!name}
	elif [[ -n ${!file_name-} ]]; then
		value=$(<"${!file_name}")
	fi
	printf -v "$name" '%s' "$value"
	export "${name?}"
	unset "$file_name"
}

# Any psql of ours goes through the socket, which the fresh cluster trusts, and stops at the first error.
sql() { PGHOST='' PGHOSTADDR='' psql -v ON_ERROR_STOP=1 --no-psqlrc --no-password --username "$POSTGRES_USER" "$@"; }

make_folders() {
	mkdir -p "$PGDATA" /var/run/postgresql
	chmod 0700 "$PGDATA" || true
	chmod 03775 /var/run/postgresql || true
	if [[ -n ${POSTGRES_INITDB_WALDIR-} ]]; then
		mkdir -p "$POSTGRES_INITDB_WALDIR"
		chmod 0700 "$POSTGRES_INITDB_WALDIR"
	fi
	if ((EUID == 0)); then
		find "$PGDATA" /var/run/postgresql ${POSTGRES_INITDB_WALDIR:+"$POSTGRES_INITDB_WALDIR"} \
			\! -user postgres -exec chown postgres '{}' +
	fi
}

require_password() {
	if [[ -z $POSTGRES_PASSWORD && $POSTGRES_HOST_AUTH_METHOD != trust ]]; then
		log 'Error: Database is uninitialized and superuser password is not specified.'
		log 'Give POSTGRES_PASSWORD a value, or (never in production) set POSTGRES_HOST_AUTH_METHOD=trust.'
		exit 1
	fi
	if [[ $POSTGRES_HOST_AUTH_METHOD == trust ]]; then
		log 'WARNING: POSTGRES_HOST_AUTH_METHOD is trust: anyone who reaches the port gets in without a password'
	fi
}

make_cluster() {
	local -a more=()
	[[ -z ${POSTGRES_INITDB_WALDIR-} ]] || more+=(--waldir "$POSTGRES_INITDB_WALDIR")
	# initdb wants a name for its user: with `--user 1000` that has none, give it one for as long as it runs.
	local -a named=()
	if ! getent passwd "$EUID" >/dev/null; then
		local accounts
		accounts=$(mktemp -d)
		printf 'postgres:x:%s:%s:PostgreSQL:%s:/bin/false\n' "$EUID" "$(id -g)" "$PGDATA" >"$accounts/passwd"
		printf 'postgres:x:%s:\n' "$(id -g)" >"$accounts/group"
		named=(env LD_PRELOAD=libnss_wrapper.so NSS_WRAPPER_PASSWD="$accounts/passwd" NSS_WRAPPER_GROUP="$accounts/group")
	fi
	# POSTGRES_INITDB_ARGS is a list of words by contract, quotes included; only this eval keeps them.
	eval '"${named[@]}" initdb --username="$POSTGRES_USER" --pwfile=<(printf "%s\n" "$POSTGRES_PASSWORD") "${more[@]}"' \
		"${POSTGRES_INITDB_ARGS-}"
	# From elsewhere than socket and loopback the password counts: initdb's own lines above trust those two.
	printf '\nhost all all all %s\n' "$POSTGRES_HOST_AUTH_METHOD" >>"$PGDATA/pg_hba.conf"
}

run_init_files() {
	local file
	printf '\n'
	for file in "$@"; do
		case $file in
		*.sh)
			if [[ -x $file ]]; then
				log "running $file"
				"$file"
			else
				log "sourcing $file"
				# shellcheck disable=SC1090
				. "$file"
			fi
			;;
		*.sql) log "running $file"; sql --dbname "$POSTGRES_DB" -f "$file" ;;
		*.sql.gz) log "running $file"; gunzip -c "$file" | sql --dbname "$POSTGRES_DB" ;;
		*.sql.zst) log "running $file"; zstd -dc "$file" | sql --dbname "$POSTGRES_DB" ;;
		*) log "ignoring $file" ;;
		esac
	done
}

first_start() { # first_start ARGUMENTS-OF-THE-SERVER...
	ls /docker-entrypoint-initdb.d/ >/dev/null # an unreadable folder fails here, not half-way
	make_cluster
	export PGPASSWORD="$POSTGRES_PASSWORD"
	# The server that init files talk to: no TCP at all, so that nobody outside takes it for the finished database.
	set -- "$@" -c listen_addresses='' -p "${PGPORT:-5432}"
	NOTIFY_SOCKET='' pg_ctl -D "$PGDATA" -w start -o "$(printf '%q ' "$@")"
	if [[ $(sql --dbname postgres -v db="$POSTGRES_DB" -tA <<<"SELECT 1 FROM pg_database WHERE datname = :'db'") != 1 ]]; then
		sql --dbname postgres -v db="$POSTGRES_DB" <<<'CREATE DATABASE :"db"'
	fi
	run_init_files /docker-entrypoint-initdb.d/*
	pg_ctl -D "$PGDATA" -m fast -w stop
	unset PGPASSWORD
	printf '\nPostgreSQL init process complete; ready for start up.\n\n'
}

main() {
	[[ ${1:0:1} != - ]] || set -- postgres "$@"
	local word serves=yes
	for word in "$@"; do
		case $word in -'?' | --help | --describe-config | -V | --version | -C) serves= ;; esac
	done
	if [[ $1 == postgres && -n $serves ]]; then
		make_folders
		if ((EUID == 0)); then
			exec gosu postgres "${BASH_SOURCE[0]}" "$@"
		fi
		setting POSTGRES_PASSWORD
		setting POSTGRES_USER postgres
		setting POSTGRES_DB "$POSTGRES_USER"
		setting POSTGRES_INITDB_ARGS
		: "${POSTGRES_HOST_AUTH_METHOD:=scram-sha-256}"
		if [[ -s $PGDATA/PG_VERSION ]]; then
			printf '\nPostgreSQL Database directory appears to contain a database; Skipping initialization\n\n'
		else
			require_password
			first_start "${@:2}"
		fi
	fi
	exec "$@"
}

main "$@"
