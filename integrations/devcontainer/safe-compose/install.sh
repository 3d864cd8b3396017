#!/bin/sh
# Install safe-compose into a development container, from the wheel next to this file (`make devcontainer` puts it there).
# The options of devcontainer-feature.json come as variables; DESTDIR is only for tests.
set -eu

here=$(cd -- "$(dirname -- "$0")" && pwd -P)
root=${DESTDIR-}
environment=$root/usr/local/lib/safe-compose
store=$root/var/lib/safe-compose

fail() {
	printf 'safe-compose: %s\n' "$1" >&2
	exit 1
}

has_python() { python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# From a path. The name of this project on a package index may be somebody else's.
set -- "$here"/safe_compose-*.whl
[ $# -eq 1 ] && [ -f "$1" ] || fail "there has to be one wheel next to install.sh: make devcontainer puts it there"
wheel=$1

if ! has_python && command -v apt-get >/dev/null; then
	apt-get -q update
	DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install python3 python3-venv
fi
has_python || fail "Python 3.11 or newer with venv is needed, and this container has none"

python3 -m venv "$environment"
"$environment/bin/python" -m pip install --quiet "$wheel"
mkdir -p "$root/usr/local/bin"
ln -sf /usr/local/lib/safe-compose/bin/safe-compose "$root/usr/local/bin/safe-compose"

# A volume that is mounted there begins with this folder's owner and mode.
mkdir -p "$store"
chmod 0700 "$store"
[ -z "${_REMOTE_USER-}" ] || chown "$_REMOTE_USER" "$store"

if [ "${FUNCTION-true}" = true ]; then
	for shell in bash zsh; do
		start=$root/etc/bash.bashrc
		[ $shell = bash ] || start=$root/etc/zsh/zshrc
		line="command -v safe-compose >/dev/null && eval \"\$(safe-compose shell $shell)\""
		[ -d "${start%/*}" ] || continue
		grep -qsxF "$line" "$start" || printf '%s\n' "$line" >>"$start"
	done
fi
