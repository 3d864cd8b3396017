# shellcheck shell=bash
# What testing/up and testing/venv share: where the lab keeps its things, and how packages come to this machine.

project=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
lab=$project/.lab
mkdir -p "$lab"

say() { printf 'lab: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

as_root() {
	if ((EUID == 0)); then
		"$@"
	else
		sudo --non-interactive "$@" || die "needs root for: $*"
	fi
}

install_packages() {
	command -v apt-get >/dev/null || die "no apt-get here: install $* by hand, then run this again"
	say "installing with apt: $*"
	# One at a time: `make -j` has lab, environment and compilers brought at once.
	exec 8>"$lab/apt-install.lock"
	flock 8
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update </dev/null >>"$lab/apt.log" 2>&1 8>&- ||
		say "apt-get update had problems (see $lab/apt.log), trying with the lists that are there"
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "$@" </dev/null \
		>>"$lab/apt.log" 2>&1 8>&- || die "apt could not install $*: see the end of $lab/apt.log"
	exec 8>&-
}
