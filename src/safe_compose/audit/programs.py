"""The programs that matter in a line of shell, by their part in it."""

from typing import NamedTuple

ENGINES = frozenset(
    {"docker", "docker-compose", "podman", "podman-compose", "nerdctl", "finch", "safe-compose"}
)
UNGUARDED = frozenset({"podman", "podman-compose", "nerdctl", "finch"})
"""Engines' clients that safe-compose does not stand in front of."""
COMPOSE_NAMES = frozenset(
    {"dc", "dco", "dcp", "compose", "sail", "docker_compose", "dockercompose"}
)
"""Names that projects and shell plugins give to a wrapper of `docker compose`."""
SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "mksh", "ash", "fish", "rbash"})
ROOTS = frozenset({"sudo", "doas", "su", "runuser", "pkexec", "run0"})
"""Programs that change the user, and with that usually PATH."""
REMOVERS = frozenset(
    {
        "rm", "rmdir", "unlink", "shred", "mv", "truncate", "find", "rsync", "dd", "mkfs", "wipefs",
        "trash", "srm",
    }
)  # fmt: skip
SENDERS = frozenset(
    {"curl", "wget", "nc", "ncat", "netcat", "socat", "http", "https", "xh", "httpie"}
)
CODE_FLAGS = {
    **dict.fromkeys(("python", "pypy", "jython"), "-c"),
    **dict.fromkeys(("perl", "ruby"), "-e -E -ne -pe -nE -lne -lane -ane -i -pie -nle"),
    **dict.fromkeys(("node", "nodejs"), "-e --eval -p --print -pe"),
    "bun": "-e --eval -p --print",
    "deno": "eval",
    "php": "-r --run",
    "lua": "-e",
    "luajit": "-e",
    **dict.fromkeys(("elixir", "iex"), "-e --eval"),
    "osascript": "-e",
    "Rscript": "-e",
    "julia": "-e --eval -E",
    "groovy": "-e",
    "scala": "-e",
    "guile": "-c",
    "racket": "-e",
    "raku": "-e",
    "erl": "-eval",
    "emacs": "--eval -eval --execute",
    "pwsh": "",
    "tclsh": "",
}
"""Interpreters of other languages, with the flags whose value is code."""
READERS = frozenset(
    {
        ":", "[", "[[", "ack", "addgroup", "adduser", "ag", "aichat", "aider", "apk", "apropos",
        "apt", "apt-cache", "apt-get", "aptitude", "aspell", "ava", "awk", "banner", "base64",
        "basename", "bashate", "bat", "bats", "bc", "bg", "bind", "bindkey", "black", "break",
        "brew", "bundle", "cal", "cargo", "cat", "cd", "cheat", "chgrp", "chmod", "choco", "chown",
        "cksum", "claude", "cmp", "code", "codespell", "codex", "colordiff", "column", "comm",
        "compdef", "compgen", "complete", "compopt", "composer", "continue", "copilot", "cowsay",
        "cp", "ctest", "curl", "cursor-agent", "cut", "dasel", "date", "declare", "delta", "df",
        "dialog", "diff", "dig", "dirname", "dirs", "disown", "dnf", "dpkg", "dpkg-query", "du",
        "echo", "egrep", "emacs", "eslint", "ex", "exit", "export", "expr", "false", "fg", "fgrep",
        "figlet", "file", "flatpak", "fmt", "fold", "free", "fzf", "gawk", "gem", "gemini", "gh",
        "git", "glab", "go", "gotestsum", "gpasswd", "grep", "gron", "groupadd", "groups", "gum",
        "gunzip", "gzip", "hadolint", "hash", "head", "helm", "help", "hexdump", "hg", "history",
        "host", "hostname", "htop", "http", "https", "hub", "id", "info", "install", "jest",
        "jobs", "join", "journalctl", "jq", "kill", "killall", "kustomize", "launchctl", "less",
        "let", "ll", "llm", "ln", "local", "logger", "loginctl", "lolcat", "ls", "lsof", "man",
        "markdownlint", "mawk", "md5", "md5sum", "mkdir", "mktemp", "mocha",
        "mongodump", "mongosh", "more", "most", "mv", "mypy", "nano", "nawk", "netstat",
        "newgidmap", "nl", "notify-send", "nox", "nslookup", "nvim", "od", "open", "opencode",
        "pacman", "paste", "pbcopy", "pg_dump", "pgrep", "phpunit", "pico", "ping", "pip", "pip3",
        "pipx", "pkill", "popd", "port", "prettier", "printf", "ps", "psql", "pt", "pushd", "pwd",
        "py.test", "pytest", "read", "readlink", "readonly", "realpath", "redis-cli", "return",
        "rev", "rg", "rm", "rmdir", "rpm", "rspec", "rsync", "ruff", "rustup", "safe-compose",
        "say", "scoop", "scp", "sed", "seq", "service", "set", "sftp", "sgpt", "sha1sum",
        "sha256sum", "shellcheck", "shfmt", "shift", "sift", "slack", "sleep", "snap", "sort",
        "sqlite3", "ss", "stat", "strings", "subl", "svn", "systemctl", "tac", "tail", "tar",
        "tee", "terraform", "test", "tig", "tldr", "tofu", "toilet", "tomlq", "top", "touch",
        "tox", "tr", "tree", "true", "type", "typeset", "ugrep", "unalias", "uname", "uniq",
        "unlink", "unset", "unzip", "update-alternatives", "uptime", "useradd", "usermod", "users",
        "vale", "vi", "view", "vim", "vitest", "w", "wait", "wall", "wc", "wget", "whatis",
        "whence", "whereis", "which", "whiptail", "who", "whoami", "winget", "wl-copy", "write",
        "xclip", "xdg-open", "xh", "xq", "xsel", "xxd", "xz", "yay", "yes", "yq", "yum", "zcat",
        "zenity", "zgrep", "zip", "zstd", "zypper",
    }
)  # fmt: skip
"""Programs that do not run the words that they are given, apart from what `child_commands` knows of
them."""


RUN_VARIABLES = frozenset(
    {
        "GIT_SSH_COMMAND", "GIT_PAGER", "GIT_EDITOR", "GIT_EXTERNAL_DIFF", "GIT_SEQUENCE_EDITOR",
        "GIT_ASKPASS", "SSH_ASKPASS", "PAGER", "MANPAGER", "EDITOR", "VISUAL", "LESSOPEN",
        "PROMPT_COMMAND", "RSYNC_RSH", "BROWSER", "SUDO_ASKPASS", "MAKE", "CC",
    }
)  # fmt: skip
"""Variables whose value other programs run."""


class Launcher(NamedTuple):
    """The way in which a program takes the command that it runs."""

    values: frozenset[str] = frozenset()
    """Its options whose value is the next word."""
    operands: int = 0
    """How many words of its own come before the command."""
    marks: frozenset[str] = frozenset()
    """`assigns` (takes NAME=value before the command), `joined` (the words form one script),
    `scripts` (each word is a script), `appends` (adds words read from stdin), `stdin` (without a
    command, it reads a script), `anywhere` (the command may begin at any word); others are added to
    the ways that lead to the command (`SimpleCommand.via`)."""
    scripts: frozenset[str] = frozenset()
    """Its options whose value is a script."""


ALL = 99
"""As `Launcher.operands`: every word is its own."""
_LAUNCHERS = """
sudo|-u -g -h -p -C -r -t -T -U -D -R -a -c --user --group --host --prompt --chdir --chroot \\
  --role --type|0|sudo assigns stdin
doas|-u -C -a|0|sudo assigns
pkexec|--user|0|sudo
run0|-u -g -D --user --group --chdir --unit --property --description --slice --nice \\
  --setenv|0|sudo
su|-g -G -s -w --group --shell|*|sudo stdin|-c --command --session-command
runuser|-u -g -G -s -w --user --group --shell|0|sudo stdin|-c --command --session-command
sg|-|1|stdin|-c
newgrp|-|1|stdin
env|-u -C --unset --chdir|0|assigns|-S --split-string
nohup setsid chronic unbuffer coproc builtin tsocks proxychains proxychains4 torsocks|-w -f|0|
rlwrap fakeroot then do else ! not exec-wait winpty gtime aa-exec stdoutisatty|-w -f|0|
dbus-run-session dbus-launch catchsegv heaptrack|-w -f|0|
exec|-a|0|
command|-|0|
time|-f -o --format --output|0|
timeout gtimeout|-k -s --kill-after --signal|1|
nice|-n --adjustment|0|
ionice|-c -n -p -P -u --class --classdata|0|
chrt|-T -P -D|1|
taskset|-|1|
cpulimit|-l -e -p|0|
stdbuf|-i -o -e --input --output --error|0|
faketime|-|1|
retry|-d -t -c --delay --times --until|0|
caffeinate|-t -w|0|
prlimit|-p|0|
setpriv capsh softlimit|-|0|
setarch linux32 linux64|-|0|
strace ltrace|-e -o -p -s -u -E -a -I -O -S -P -X -l -n|0|
valgrind|-|0|
perf|-o -e -p -t -C -F -c -r|1|anywhere
systemd-run|-p -u -M -H -E -t --unit --property --machine --host --setenv --description --slice \\
  --uid --gid --working-directory --on-calendar --on-active|0|
systemd-inhibit systemd-cat|--what --who --why --mode --identifier|0|
xvfb-run|-n -s -e -f -p -w|0|
firejail|-|0|
bwrap|-|0|anywhere
proot|-b -r -w -q|0|path
nsenter|-t -S -G --target|0|path
unshare|-S -G -R -w|0|path
chroot|-|1|path
schroot|-c -u -d|0|path
gosu su-exec setuidgid s6-setuidgid|-|1|
chpst|-u -U -e -d -n -l -L|0|
with-contenv tini dumb-init|-|0|
busybox toybox|-|0|
watch|-n -d --interval|0|joined
script|-T -I -O -B -E -m -o|0||-c --command
flock|-w -E --timeout|1||-c --command
entr|-|0||
at batch|-f -q -t|*|stdin
direnv|-|2|
dotenv|-e -f -c -v --file|0|
dotenvx|-f -e --env-file|1|
sshpass|-p -f -d -P|0|
autossh|-M|0|
concurrently|-n -c -k -l -t --names --prefix-colors --prefix|0|scripts
hyperfine|-w -r -m -M -N -i -n --warmup --runs --min-runs --max-runs --export-json \\
  --export-markdown --style --parameter-list --parameter-scan -L -P --shell -S|0|scripts|-p -c \\
  -s --prepare --cleanup --setup --conclude
parallel|-j -N -n -L -a -S -I --jobs --arg-file --colsep --delay --retries --results --joblog \\
  --sshlogin|0|appends joined
xargs|-I -n -P -L -d -a -E -s --max-args --max-procs --max-lines --delimiter --arg-file --eof \\
  --max-chars --replace|0|appends
rush|-j -i -d|0|scripts appends
tmux screen byobu|-|0|anywhere
nodemon|-w --watch -e --ext -i --ignore|0||-x --exec
watchexec|-w -e -i -f --watch --exts --ignore --filter|0|joined
wsl|-d -u --distribution --user --cd|0||
cmd|-|0|joined
Invoke-Expression iex Invoke-Command|-|0|joined
powershell|-ExecutionPolicy -ep -File|0|joined
pwsh|-ExecutionPolicy -ep -File|0|joined
doppler|-p -c --project --config|0|anywhere|--command
nix-shell|-p -A -I --packages --attr|*||--run --command
sops|-|0|anywhere
vagrant|-|*||-c --command
gcloud|-|*||--command
fly flyctl|-|*||-C --command
heroku dokku|-a --app|1|anywhere
ansible|-m -i -u -b -f -e -l --module-name --inventory|*|ssh|-a --args
pdsh pssh parallel-ssh clush mpssh|-w -l -h -H -x -g -f -t -p -o --host --hosts --user|0|joined \\
  ssh
mosh|-|1|ssh
lima|-|0|ssh
""".strip()


def _read_launchers() -> dict[str, Launcher]:
    found = {}
    for row in _LAUNCHERS.replace("\\\n", " ").splitlines():
        names, values, operands, marks, scripts, *_ = (*row.split("|"), "")
        launcher = Launcher(
            frozenset(values.split()),
            ALL if operands == "*" else int(operands),
            frozenset(marks.split()),
            frozenset(scripts.split()),
        )
        found.update(dict.fromkeys(names.split(), launcher))
    return found


LAUNCHERS = _read_launchers()
