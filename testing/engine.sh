# shellcheck shell=bash
# What testing/up and testing/demo-engine share: to ask for an engine, to start one, and to place Compose. Sourced after machine.sh.

# Client 26.1 ends with 0 and an empty id where no engine answers.
answers() { [[ -n $(timeout 20 docker info --format '{{.ID}}' 2>/dev/null) ]]; }

pid_file=/var/run/docker.pid
log=$lab/dockerd.log
programs= data= compose_wanted= compose_program= engine_wanted= pinned_engine=
listening=()

# Whether a dockerd died and left its pid file: a panic, a kill, a container's snapshot. Another one would not start then.
left_pid_file() { [[ -f $pid_file && ! -d /proc/$(<"$pid_file") ]]; }

# wait_for_engine SECONDS: until it answers, or the dockerd that should has died
wait_for_engine() {
	local end=$((SECONDS + $1))
	until answers; do
		((SECONDS < end)) || return 1
		! left_pid_file || return 1
		sleep 0.2
	done
}

# pinned_options: how the dockerd of a pinned engine is started, with a data root of its own
pinned_options() {
	local group
	printf '%s\n' --data-root "/var/lib/docker-lab/$data"
	group=$(getent group docker | cut -d: -f3) || true
	# A user's engine cannot give its socket to a group.
	[[ -z $group || $data == rootless ]] || printf '%s\n' --group "$group"
	((${#listening[@]} == 0)) || printf '%s\n' "${listening[@]}"
}

# start_dockerd [OPTION...]: in the background, until it answers
start_dockerd() {
	local -a options=()
	if [[ -n $pinned_engine ]]; then
		mapfile -t options < <(pinned_options)
		# What tests mount has to be seen by an engine in a mount namespace of its own. Under systemd all is shared anyway.
		[[ $(findmnt --noheadings --output PROPAGATION /) == *shared* ]] || as_root mount --make-rshared /
	fi
	! left_pid_file || as_root rm -f "$pid_file"
	as_root setsid --fork env PATH="$PATH:/usr/sbin:/sbin" dockerd "${options[@]}" "$@" </dev/null >"$log" 2>&1
	wait_for_engine 60 || {
		tail -n 20 "$log" >&2
		return 1
	}
}

stop_dockerd() {
	local pid
	[[ -f $pid_file ]] || return 0
	pid=$(<"$pid_file")
	as_root kill "$pid" 2>/dev/null || true
	while [[ -d /proc/$pid ]]; do sleep 0.2; done
}

bring_engine() {
	if command -v docker >/dev/null && answers; then
		[[ -z $pinned_engine ]] || check_engine
		return
	fi
	[[ -z ${DOCKER_HOST-} ]] || die "no engine answers at DOCKER_HOST=$DOCKER_HOST"
	if [[ -n $pinned_engine ]]; then
		# What tests start with a PATH of their own has to find a client as well.
		PATH=${PATH#"$programs:"} command -v docker >/dev/null ||
			as_root install -D -m 0755 "$(readlink -f "$programs/docker")" /usr/local/bin/docker
	elif ! command -v dockerd >/dev/null && [[ ! -x /usr/sbin/dockerd ]]; then
		local -a packages=(docker.io iptables ca-certificates)
		[[ $(cat /sys/module/apparmor/parameters/enabled 2>/dev/null) != Y ]] || packages+=(apparmor)
		install_packages "${packages[@]}"
	fi
	# From trixie on the client is a package of its own.
	command -v docker >/dev/null || install_packages docker-cli
	if wait_for_engine 3; then
		return
	fi
	if [[ -z $pinned_engine && -d /run/systemd/system ]]; then
		say "starting the docker service"
		as_root systemctl start docker || true
		wait_for_engine 60 || die "the docker service does not answer: see journalctl -u docker"
		return
	fi
	say "starting dockerd in the background, its log is $log"
	start_dockerd || {
		# What a dockerd that was killed left behind can make the next one panic (seen: 20.10, its network database).
		# That folder may hold somebody's volumes: it stays as it is, and the lab starts in an empty one.
		local fresh
		stop_dockerd
		fresh=$(as_root mktemp -d /var/lib/docker-lab.XXXXXX)
		say "dockerd does not start on what lies in its data root (above). That is left untouched: starting with $fresh"
		start_dockerd --data-root "$fresh" --exec-root "/run/${fresh##*/}" ||
			die "dockerd does not answer: the last lines of its log are above"
	}
	((EUID == 0)) || docker info >/dev/null 2>&1 || die "this user may not talk to the engine: join the group docker"
}

# Whether docker's plugin folder of this machine has no Compose, or one that came from here.
may_place_plugin() {
	local ours
	[[ -e $plugin_folder/docker-compose ]] || return 0
	for ours in "$lab"/compose*/*/docker-compose; do
		! cmp --quiet "$ours" "$plugin_folder/docker-compose" || return 0
	done
	return 1
}

plugin_folder=/usr/local/lib/docker/cli-plugins
