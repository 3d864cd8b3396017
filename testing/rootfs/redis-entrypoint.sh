#!/usr/bin/env bash
# The lab's redis: options alone mean redis-server; as root, the data folder is given to redis and root is dropped.
set -euo pipefail
if [[ ${1-} == -* || ${1-} == *.conf ]]; then
	set -- redis-server "$@"
fi
if [[ ${1-} == redis-server ]] && ((EUID == 0)); then
	find . \! -user redis -exec chown redis '{}' +
	exec gosu redis "${BASH_SOURCE[0]}" "$@"
fi
umask 0077
exec "$@"
