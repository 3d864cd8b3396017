#!/usr/bin/env bash
# The image's own health check: `--connect` and `--innodb_initialized`, with the account that the first start made.
set -eo pipefail
ask() { mariadb --defaults-extra-file=/var/lib/mysql/.my-healthcheck.cnf --skip-ssl --skip-column-names --batch -h127.0.0.1 -e "$1"; }
for test in "${@:---connect}"; do
	case $test in
	--connect) ask 'SELECT 1' >/dev/null ;;
	--innodb_initialized) [[ $(ask "SELECT 1 FROM information_schema.ENGINES WHERE engine = 'innodb' AND support IN ('YES', 'DEFAULT')") == 1 ]] ;;
	*) echo "healthcheck: $test is not known here" >&2; exit 1 ;;
	esac
done
