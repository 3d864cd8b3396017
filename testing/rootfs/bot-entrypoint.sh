#!/usr/bin/env bash
# The example's bot: stores some photos under difficult names, then says every 15 seconds how many users there are.
set -euo pipefail
trap 'exit 0' TERM INT
photos=${PHOTO_DIR:-/app/photos}
mkdir -p "$photos/2026/07"
store() { # store NAME BYTES
	[[ -e "$photos/$1" ]] || head -c "$2" /dev/urandom >"$photos/$1"
}
store '2026/07/ada & grace.jpg' 65536
store $'2026/07/\xc3\xbcber uns – 100 %.jpg' 40000
store $'2026/07/two\nlines.jpg' 1024
store '-rf' 12
store ' leading and trailing ' 7
store 2026/07/empty.jpg 0
chmod 0640 "$photos/2026/07/ada & grace.jpg"
# Last, and only once: the example's health check takes the link for "all photos are there", and a start changes nothing.
[[ -L $photos/latest.jpg ]] || ln -s '2026/07/ada & grace.jpg' "$photos/latest.jpg"
export PGPASSWORD="${POSTGRES_PASSWORD-}" PGCONNECT_TIMEOUT=5
while :; do
	if users=$(psql -h "${DB_HOST:-db}" -U "${POSTGRES_USER:-postgres}" -d "${POSTGRES_DB:-postgres}" -XtAc 'SELECT count(*) FROM users' 2>&1); then
		echo "bot: $users users"
	else
		echo "bot: database: $users" >&2
	fi
	sleep 15 &
	wait $! || true
done
