#!/bin/sh
# A stand-in for a service whose own program does not matter to the tests, only what it leaves in its data folder:
# copy the seed into the folder once, then wait, and leave at once when told to.
set -eu
seed=/usr/share/standin
data=$(cat "$seed/folder")
case ${1-} in
sh | busybox | ls | cat | sleep | tar | find | true | false) exec "$@" ;;
esac
umask 077
mkdir -p "$data"
if [ -z "$(ls -A "$data")" ]; then
	cp -R "$seed/data/." "$data/"
fi
echo "stand-in for $(cat "$seed/name"): $(find "$data" -type f | wc -l) files in $data"
trap 'exit 0' TERM INT QUIT
while :; do
	sleep 3600 &
	wait $! || true
done
