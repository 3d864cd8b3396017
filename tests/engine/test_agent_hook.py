"""What a coding agent is told before it runs a shell line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from safe_compose.audit import agent_hook, agent_verdicts, live_look, shell
from safe_compose.fastpath import first_look
from testing.fixtures import ProjectFactory, SafeCompose

HERE = Path("/somewhere")

ASK = [
    # plain spellings
    "docker compose down -v",
    "docker compose down --volumes",
    "docker compose -f a.yaml -p shop down -vt5",
    "docker --context prod compose down -v",
    "docker-compose down -v",
    "docker-compose down --vol",  # 1.29 takes prefixes
    "docker compose rm -sfv db",
    "docker compose up -d -y",
    "docker volume rm shop_data",
    "docker volume remove a b c",
    "docker volume prune -f",
    "docker system prune -af --volumes",
    "docker rm -fv web",
    "docker container rm --volumes web",
    "safe-compose down -v",
    "safe-compose compose down -v",
    "safe-compose --non-interactive --backup-first compose down -v",
    "safe-compose --skip-backup --confirm x compose down -v",
    "docker compose down -v --confirm shop",
    "safe-compose unprotect shop_data",
    "safe-compose shell --uninstall --yes",
    "safe-compose schedule remove",
    "pip uninstall -y 'safe-compose[audit]'",
    "uv tool uninstall safe-compose",
    # in a line of others
    "cd /srv/shop && docker compose down -v && docker compose up -d",
    "docker ps; docker volume rm x",
    "docker compose stop || docker compose down -v",
    "true & docker volume prune -f",
    "(cd x; docker compose down -v)",
    "{ docker compose down -v; }",
    "! docker volume rm x",
    "if docker ps; then docker compose down -v; fi",
    "while read -r v; do docker volume rm \"$v\"; done < list",
    "for v in $(docker volume ls -q); do docker volume rm $v; done",
    "case $1 in clean) docker compose down -v;; esac",
    "echo $(docker volume rm x)",
    "echo `docker volume rm x`",
    "diff <(docker volume rm x) y",
    "test -n \"$(docker compose down -v 2>&1)\"",
    "clean() { docker compose down -v; }; clean",
    "d() { docker \"$@\"; }; d compose down -v",
    "alias dc='docker compose'; dc down -v",
    "alias d=docker; d volume rm x",
    "A=1 docker compose down -v",
    "docker compose down -v > log 2>&1",
    "docker \\\n  compose down \\\n  -v",
    # quoting
    "\\docker compose down -v",
    "'docker' compose down -v",
    "d\"ock\"er com'pose' down -v",
    "docker compose down \"-v\"",
    "$'docker' compose $'\\x64own' -v",
    # programs that start it
    "env A=b docker compose down -v",
    "timeout 5 docker volume rm x",
    "timeout -k 5 --signal KILL 10 docker volume rm x",
    "nohup docker compose down -v &",
    "time docker compose down -v",
    "nice -n 5 docker volume prune -f",
    "command docker compose down -v",
    "exec docker compose down -v",
    "setsid -f docker compose down -v",
    "stdbuf -oL docker compose down -v | tee log",
    "watch -n 60 'docker volume prune -f'",
    "script -qc 'docker compose down -v' /dev/null",
    "flock /tmp/l -c 'docker compose down -v'",
    "docker volume ls -qf dangling=true | xargs docker volume rm",
    "docker volume ls -q | xargs -r -n1 -I{} docker volume rm {}",
    "echo volume rm x | xargs docker",
    "docker volume ls -q | parallel docker volume rm",
    "find . -name x -exec docker volume rm {} \\;",
    "op run -- docker compose down -v",
    "poetry run docker compose down -v",
    # shells within shells
    "bash -c 'docker compose down -v'",
    "bash -lc \"docker compose -p $P down -v\"",
    "sh -ec 'cd x && docker volume rm y'",
    "bash -euo pipefail -c 'docker volume rm y'",
    "sh -c 'docker volume rm \"$@\"' _ a b",
    "bash -c \"bash -c 'docker volume rm x'\"",
    "eval 'docker compose down -v'",
    "eval docker compose down -v",
    "trap 'docker compose down -v' EXIT",
    "echo 'docker compose down -v' | sh",
    "printf 'docker compose\\tdown -v\\n' | bash",
    "bash <<EOF\ndocker compose down -v\nEOF",
    "cat <<'EOF' | bash\ndocker volume rm x\nEOF",
    "sh <<< 'docker volume rm x'",
    "bash <(echo docker volume rm x)",
    "source /dev/stdin <<< 'docker volume rm x'",
    "docker compose exec -T dind docker volume prune -f",
    "docker run -v /var/run/docker.sock:/var/run/docker.sock docker:cli docker volume rm x",
    "ssh host 'docker compose down -v'",
    "ssh -p 22 -o A=b user@host docker volume rm x",
    "ssh host bash <<EOF\ndocker volume rm x\nEOF",
    # what is not known before it runs
    "$DOCKER compose down -v",
    "\"$(command -v docker)\" compose down -v",
    "D=docker; $D volume rm x",
    "c='docker compose down -v'; $c",
    "X='volume rm y'; docker $X",
    "docker compose down $FLAGS",
    "eval \"$x\" # down",
    "bash -c \"$cmd\" down",
    "/usr/bin/dock?r volume rm x",
    "{docker,volume,rm,x}",
    "docker volume rm x )(",
    "echo ZG93bg== | base64 -d | bash; echo docker volume rm",
    # other languages, files
    "python3 -c \"import subprocess; subprocess.run(['docker', 'volume', 'rm', 'x'])\"",
    "python - <<'EOF'\nimport docker\ndocker.from_env().volumes.prune()\nEOF",
    "echo 'export SAFE_COMPOSE=off' >> ~/.bashrc",
    "rm -rf ~/.local/share/safe-compose",
    "safe-compose hook --uninstall claude",
    "safe-compose hook --uninstall=claude --yes",
]  # fmt: skip

DENY = [
    "/usr/bin/docker compose down -v",
    "./docker volume rm x",
    "~/bin/docker volume rm x",
    "/usr/libexec/docker/cli-plugins/docker-compose down -v",
    "sudo docker compose down -v",
    "sudo -u docker docker volume rm x",
    "sudo -E bash -c 'docker volume rm x'",
    "su -c 'docker volume rm x' root",
    "env -i docker volume rm x",
    "env PATH=/usr/bin docker volume rm x",
    "PATH=/usr/bin:$PATH docker volume rm x",
    "command -p docker volume rm x",
    "podman volume prune -f",
    "podman volume rm x",
    "nerdctl volume rm x",
    "SAFE_COMPOSE=off docker compose down -v",
    "export SAFE_COMPOSE=off",
    "export SAFE_COMPOSE=off; docker compose down -v",
    "env SAFE_COMPOSE=off make clean",
    'declare -x SAFE_COMPOSE="off"',
    "SAFE_COMPOSE=$x docker compose down -v",
    "bash -c 'SAFE_COMPOSE=off docker compose down -v'",
    "curl --unix-socket /var/run/docker.sock -X DELETE http://localhost/v1.41/volumes/x",
    "curl -XPOST --unix-socket /run/docker.sock http://d/volumes/prune",
    "curl -X DELETE http://127.0.0.1:2375/volumes/x",
    "printf 'DELETE /volumes/x HTTP/1.0\\r\\n\\r\\n' | nc -U /var/run/docker.sock",
    "rm -rf /var/lib/docker",
    "rm -rf /var/lib/docker/volumes/shop_data",
    "sudo rm -rf /var/lib/docker/volumes/*",
    "rm -rf /var/lib",
    "rm -rf /*",
    "cd /var/lib/docker/volumes && rm -rf *",
    "find /var/lib/docker/volumes -type f -delete",
    "mv /var/lib/docker /tmp/old",
    "rm -r ~/.local/share/docker",
    "docker run --rm -v /var/lib/docker:/d alpine rm -rf /d/volumes",
    "safe-compose approve ABCD-EFGH",
    "script -qc 'safe-compose approve ABCD-EFGH' /dev/null",
]

HARMLESS = [
    "cat .claude/settings.json",
    "cp .claude/settings.json /tmp/settings.json",
    "safe-compose hook --install claude",
    "jq . ~/.codex/hooks.json > /tmp/x.json",
    "",
    "   ",
    "docker ps",
    "docker compose down",
    "docker compose up -d --build",
    "docker compose logs -f db",
    "docker compose run --rm app rm -rf /tmp/x",
    "docker run --rm -v x:/y alpine ls",
    "docker volume ls",
    "docker volume create x",
    "docker system prune",
    "docker compose down -v --dry-run",
    "docker compose down -v --help",
    "docker compose down -v --explain",
    "docker stop web",
    "docker rm -f web",
    "docker $ARGS",
    "docker exec web ls",
    "/usr/bin/docker ps",
    "sudo docker ps",
    "podman ps",
    "ssh host docker ps",
    "git commit -m 'docs: never type docker compose down -v'",
    "echo docker compose down -v",
    "echo 'docker compose down -v' >> README.md",
    "cat > Makefile <<EOF\nclean:\n\tdocker compose down -v\nEOF",
    "grep -rn 'docker compose down -v' .",
    "# docker compose down -v",
    "man docker-volume-rm",
    "which docker; command -v docker",
    "make test",
    "rm -rf node_modules dist",
    "rm -rf /var/lib/apt/lists/*",
    "rm -rf /opt/app/*",
    "rm /tmp/docker.log",
    "find . -name '*.pyc' -delete",
    "curl --unix-socket /var/run/docker.sock http://localhost/volumes",
    "curl -X DELETE https://example.org/volumes/3",
    "curl -fsSL https://example.org/install.sh | sh",
    "python -c 'print(1)'",
    "npm run dev -- --port 80",
    "x=$(git rev-parse HEAD); $x",
    "SAFE_COMPOSE=on docker ps",
    "safe-compose list",
    "safe-compose undo",
    "safe-compose approve --list",
    "docker compose exec db psql -c 'select 1'",
    "tar czf down.tgz volume",
    "find . -name '*.yml' -exec docker compose -f {} config -q \\;",
]

INCIDENTS = [
    ("docker compose down -v && docker compose up -d --build", "ask"),  # 1 restart loop
    (
        "cd backend && docker compose down -v; docker compose up -d db && alembic upgrade head",
        "ask",
    ),  # 2 a migration
    ("df -h && docker system prune -af --volumes 2>/dev/null; df -h", "ask"),  # 3 frees disk
    ("docker stop supabase_db_x && docker volume rm supabase_db_x supabase_storage_x", "ask"),  # 4
    ("podman volume prune -f && podman system prune -f", "deny"),  # 5
    (
        "docker run --rm -v src:/s -v dst:/d alpine cp -a /s/. /d/ && docker volume rm src",
        "ask",
    ),  # 6
    ("cd .worktrees/x && docker compose down --remove-orphans --volumes", "ask"),  # 7
    ("docker compose -p docker -f docker/compose.yaml down -v", "ask"),  # 8
    (
        "docker compose -f a.yml -f test.yml down -v; docker compose -f a.yml -f test.yml up -d",
        "ask",
    ),  # 9
    ("docker volume ls -qf dangling=true | xargs -r docker volume rm", "ask"),  # 10, 14
    (
        "sed -i s/old/new/ .env && docker compose down --volumes && docker compose up -d",
        "ask",
    ),  # 11
    (
        "docker compose stop db; docker compose rm -fsv db; docker volume rm $(basename $PWD)_db",
        "ask",
    ),  # 12
    ("docker compose up -d --renew-anon-volumes -y", "ask"),  # 13
    (
        (
            "docker kill $(docker ps -q); docker rm -v $(docker ps -aq); docker volume rm $(docker"
            " volume ls -q)"
        ),
        "ask",
    ),  # 15
    ("docker container prune -f; docker volume prune -af", "ask"),  # 17
    ("docker ps -aq | xargs docker rm -fv", "ask"),
    (
        "sudo systemctl stop docker && sudo rm -rf /var/lib/docker && sudo systemctl start docker",
        "deny",
    ),
    (
        "python3 -c \"import os; os.system('docker compose down -v')\"",
        "ask",
    ),  # "let me use Python instead"
    ("DOCKER_HOST=ssh://prod docker compose down -v", "ask"),
    (
        (
            "curl -s --unix-socket /var/run/docker.sock -X POST"
            " 'http://x/volumes/prune?filters=%7B%7D'"
        ),
        "deny",
    ),
]


def request(line: object, **more: object) -> bytes:
    return json.dumps(
        {"tool_name": "Bash", "tool_input": {"command": line}, "cwd": "/somewhere", **more}
    ).encode()


def run(data: bytes, **options: Any) -> str:
    return agent_hook.run(agent_hook.parse_request(data), agent_hook.HookOptions(**options))


def decision(data: bytes, **options: Any) -> str:
    said = run(data, **options)
    return str(json.loads(said)["hookSpecificOutput"]["permissionDecision"]) if said else ""


# -- tables ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ASK)
def test_a_deletion_that_goes_through_us_or_that_cannot_be_read_is_asked_about(line: str) -> None:
    answer = agent_verdicts.judge(line, HERE)
    assert answer.decision == "ask", answer
    assert "person decides" in answer.reason


@pytest.mark.parametrize(
    "line",
    [
        "rm .claude/settings.json",
        "echo '{}' > ~/.codex/hooks.json",
        "sed -i s/safe-compose/true/ ~/.cursor/hooks.json",
        "git checkout -- .gemini/settings.json",
        "mv .github/hooks/safe-compose.json kept.json",
        "rm -f ~/.config/opencode/plugins/safe-compose.js",
    ],
)
def test_a_change_of_the_files_that_hold_this_hook_is_asked_about(line: str) -> None:
    answer = agent_verdicts.judge(line, HERE)
    assert answer.decision == "ask" and "the hook that judges" in answer.reason, answer


@pytest.mark.parametrize("line", DENY)
def test_a_deletion_that_goes_round_us_is_denied(line: str) -> None:
    answer = agent_verdicts.judge(line, HERE)
    assert answer.decision == "deny", answer
    assert answer.reason


@pytest.mark.parametrize("line", HARMLESS)
def test_of_a_harmless_line_nothing_is_said(line: str) -> None:
    assert agent_verdicts.judge(line, HERE) == agent_verdicts.NOTHING
    assert run(request(line)) == ""


@pytest.mark.parametrize(("line", "expected"), INCIDENTS)
def test_what_deleted_peoples_data_is_not_let_by(line: str, expected: str) -> None:
    assert agent_verdicts.judge(line, HERE).decision == expected


def test_what_is_proposed_instead_is_not_denied_itself() -> None:
    for line in DENY:
        before, proposed, instead = agent_verdicts.judge(line, HERE).reason.partition(
            "Write instead: "
        )
        if proposed and instead.startswith("safe-compose"):
            assert agent_verdicts.judge(instead, HERE).decision == "ask", (before, instead)


def test_an_absolute_path_to_our_own_shim_is_not_a_way_round(tmp_path: Path) -> None:
    ours = tmp_path / "docker"
    ours.write_text(f"#!/bin/sh\n# {first_look.MARKER.decode()}\n")
    assert agent_verdicts.judge(f"{ours} compose down -v", HERE).decision == "ask"


def test_no_secret_of_the_line_stands_in_the_answer() -> None:
    for line in (
        "docker run -e PASSWORD=hunter2 x; docker volume rm x",
        "/usr/bin/docker compose -f 'a b' down -v --confirm hunter2",
    ):
        assert "hunter2" not in run(request(line))


# -- the request and the answer --------------------------------------------------------------------


def test_the_answer_has_the_common_shape_and_a_plain_pair_for_callers_of_no_known_event() -> None:
    said = json.loads(run(request("docker compose down -v")))
    assert said["hookSpecificOutput"]["hookEventName"] == "PreToolUse"
    assert (
        said["hookSpecificOutput"]["permissionDecision"]
        == said["permissionDecision"]
        == said["decision"]
        == said["permission"]
        == "ask"
    )
    assert said["hookSpecificOutput"]["permissionDecisionReason"] == said["reason"]


def test_a_caller_that_forbids_further_keys_gets_none() -> None:
    said = json.loads(run(request("/usr/bin/docker volume rm x", hook_event_name="PreToolUse")))
    assert set(said) == {"hookSpecificOutput"}
    assert said["hookSpecificOutput"]["permissionDecision"] == "deny"


@pytest.mark.parametrize(
    "shape",
    [
        {"tool_name": "Bash", "tool_input": {"command": "docker volume rm x"}},
        {"toolName": "shell", "toolInput": {"cmd": "docker volume rm x"}},
        {"tool": "run_shell_command", "args": {"command": "docker volume rm x", "directory": "a"}},
        {"tool": "shell", "arguments": '{"command": "docker volume rm x"}'},
        {"tool_input": {"command": ["bash", "-lc", "docker volume rm x"], "workdir": "/a"}},
        {"tool_input": {"command": ["docker", "volume", "rm", "x"]}},
        {"tool_input": {"commands": ["ls", "docker volume rm x"]}},
        {"toolCall": 1, "params": {"CommandLine": "docker volume rm x"}},
        {"command": "docker volume rm x", "cwd": ""},
        {"tool_name": "Bash", "toolArgs": '{"command":"docker volume rm x"}'},
    ],
)
def test_the_line_is_found_wherever_a_caller_puts_it(shape: dict[str, object]) -> None:
    assert decision(json.dumps(shape).encode()) == "ask"


@pytest.mark.parametrize(
    "data",
    [
        b"{}", b'{"tool_input": null}', b'{"tool_input": {"command": 3}}',
        b'{"tool_name": "Write", "tool_input": {"file_path": "a", "content": "docker compose down -v"}}',
        b'{"cwd": 3, "tool_input": {"command": "ls"}}', b'{"cwd": "\\u0000", "tool_input": {"command": "ls"}}',
        b'{"tool_input": {"command": []}}', b'{"tool_input": {"command": ["", null, 1]}}',
    ],
)  # fmt: skip
def test_a_request_that_holds_no_line_gets_no_answer(data: bytes) -> None:
    assert decision(data) == ""


@pytest.mark.parametrize(
    "data",
    [
        b'{"tool_name": "Bash", "tool_input": null}',
        b'{"tool_name": "Bash", "tool_input": {"command": 3}}',
        b'{"step": {"run": {"line": "docker compose down -v"}}}',
    ],
)
def test_a_shell_call_of_an_unknown_form_is_stopped(data: bytes) -> None:
    assert decision(data) == "deny"


def test_strict_denies_what_would_be_asked() -> None:
    assert decision(request("docker compose down -v"), strict=True) == "deny"
    assert decision(request("docker ps"), strict=True) == ""


def test_without_the_parser_nothing_that_speaks_of_volumes_is_let_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tree_sitter_bash", None)
    let_by = [line for line in ASK + DENY if not agent_verdicts.judge(line, HERE).decision]
    assert let_by == []
    answer = agent_verdicts.judge("docker compose down -v", HERE)
    assert answer.decision == "ask" and "[audit]" in answer.reason
    assert agent_verdicts.judge("docker ps", HERE) == agent_verdicts.NOTHING


# -- the plan --------------------------------------------------------------------------------------


def test_the_plan_names_the_volumes_and_a_plan_that_passes_says_nothing() -> None:
    plan = {
        "verdict": "guard",
        "endpoint": "unix:///x",
        "volumes": [
            {"name": "shop_data", "tier": "critical", "why": "a database"},
            {"name": "c", "tier": "disposable", "why": ""},
        ],
    }
    answer = agent_verdicts.judge(
        "cd sub && docker compose down -v",
        HERE,
        look=lambda words, here: plan if here == HERE / "sub" else None,
    )
    assert answer.decision == "ask"
    assert "shop_data (critical: a database)" in answer.reason and " c (" not in answer.reason
    passes = {"verdict": "pass", "volumes": []}
    assert (
        agent_verdicts.judge("docker compose down -v", HERE, look=lambda words, here: passes)
        == agent_verdicts.NOTHING
    )
    assert (
        agent_verdicts.judge("docker stop x", HERE, look=lambda words, here: plan).decision == "ask"
    )


@pytest.mark.parametrize(
    "line",
    [
        "export COMPOSE_FILE=x; docker compose down -v",
        "DOCKER_HOST=tcp://x docker compose down -v",
        "cd $X && docker compose down -v",
        "docker compose down -v; docker volume rm x",
        "docker volume rm $X",
        "docker volume rm shop_{data,files}",
        "docker volume rm shop_{1..3}",
        "docker volume rm shop_*",
        "docker volume rm shop_[ab]",
        "docker compose -f ~/shop/compose.yaml down -v",
        "find . -name x -exec docker volume rm '{}' ';'",
        "find . -name x -exec docker volume rm {} +",
        "ssh host docker volume rm x",
        "sudo docker volume rm x",
        ". ./env; docker compose down -v",
        "bash -c 'cd sub && make'; docker compose down -v",
        "docker context use prod && docker volume rm x",
        "cp .env.prod .env && docker compose down -v",
        "echo COMPOSE_PROJECT_NAME=x > .env; docker compose down -v",
        "git checkout main && docker compose down -v",
    ],
)
def test_the_engine_is_not_asked_about_something_else_than_what_would_run(line: str) -> None:
    def look(words: object, here: object) -> None:
        raise AssertionError((words, here))

    assert agent_verdicts.judge(line, HERE, look=look).decision in ("ask", "deny")


@pytest.mark.parametrize(
    ("line", "folder"),
    [
        ("(cd sub; ls); docker compose down -v", ""),
        ("(cd sub && docker compose down -v)", "sub"),
        ("cd sub | cat; docker compose down -v", ""),
        ("cd sub && docker compose down -v 2>&1 | tail -5", "sub"),
        ("cd sub || exit 1; docker compose down -v", "sub"),
        ("echo $(cd sub && pwd); docker compose down -v", ""),
        ("bash -c 'cd sub && ls'; docker compose down -v", ""),
        ("bash -c 'cd sub && docker compose down -v'", "sub"),
        ("(cd sub && ls) && cd other && docker compose down -v", "other"),
        ("docker volume rm 'shop_*'", ""),
        ("docker volume rm {{x}}", ""),
    ],
)
def test_the_engine_is_asked_where_the_command_would_run(line: str, folder: str) -> None:
    asked = []

    def look(words: object, here: Path) -> dict[str, object]:
        asked.append(here)
        return {"verdict": "pass"}

    agent_verdicts.judge(line, HERE, look=look)
    assert asked == [HERE / folder]


@pytest.mark.thorough
@pytest.mark.engine
def test_the_hook_asks_the_real_engine_and_writes_nothing(
    compose_project: ProjectFactory, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    project = compose_project(
        "services:\n  app:\n    image: busybox:latest\n    command: [sleep, '1000']\n    volumes:"
        " ['up:/app/uploads', 'cache:/c']\nvolumes:\n  up:\n  cache:\n",
        files={"safe-compose.toml": '[volumes]\ncache = "disposable"\n'},
    )
    project.docker("compose", "create")
    project.docker(
        "run",
        "--rm",
        "-v",
        f"{project.name}_up:/v",
        "--network",
        "none",
        "busybox:latest",
        "touch",
        "/v/f",
    )
    before = sorted(sealed_environment.rglob("*"))
    data = request("docker compose down -v", cwd=str(project.folder)).decode()
    answer = safe_compose("hook", input=data)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert json.loads(answer.stdout)["decision"] == "ask"
    # A hook waits for the engine a second and a bit, which a busy machine may need longer than.
    patient = live_look.make_look(time.monotonic() + 60)
    reason = json.loads(agent_hook.run(json.loads(data), look=patient))["reason"]
    assert f"{project.name}_up (critical" in reason and f"{project.name}_cache" not in reason
    harmless = safe_compose(
        "hook", input=request("docker compose ps", cwd=str(project.folder)).decode()
    )
    assert (harmless.returncode, harmless.stdout, harmless.stderr) == (0, "", "")
    assert sorted(sealed_environment.rglob("*")) == before


def test_a_judge_that_crashes_fails_or_hangs_does_not_let_the_line_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def crash() -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return ""

    def fail() -> str:
        raise RuntimeError

    def hang() -> str:
        while True:
            signal.pause()

    assert agent_hook.run_in_process(lambda: "é" * 100_000) == "é" * 100_000
    assert (
        agent_hook.run_in_process(crash) is None
        and agent_hook.run_in_process(fail) is None
        and agent_hook.run_in_process(hang, seconds=0.2) is None
    )
    monkeypatch.setattr(agent_hook, "run", lambda *_, **__: crash())
    for line, expected in (("docker compose down -v", "ask"), ("docker ps", "")):
        said = agent_hook.answer_in_time(
            json.loads(request(line)), agent_hook.HookOptions(), began=time.monotonic()
        )
        assert (json.loads(said)["decision"] if said else "") == expected


@pytest.mark.parametrize(
    "text",
    [
        "{\U000e62ed",
        "å{\U000e62ed",
        "docker volume rm é",
        "d\u00adocker volume rm x",
        "${\U0010ffff",
    ],
)
def test_characters_beyond_ascii_do_not_crash_the_parser(text: str) -> None:
    assert agent_verdicts.judge(text, HERE).decision in ("", "ask")


def test_a_hook_loads_no_heavy_module() -> None:
    code = (
        "import sys; from safe_compose.audit import agent_hook\n"
        "print([m for m in ('typer', 'docker', 'rich', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# -- any text --------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        "docker", "compose", "down", "-v", "volume", "rm", "x", "bash", "-c", "eval", "sudo",
        "xargs", "ssh", "host", "$x", "$(", ")", "`", "'", '"', "{", "}", "((", "))", "|", "&&",
        ";", "\n", "<<EOF", "EOF", "<<<", "<(", ">", "if", "then", "fi", "do", "done", "for",
        "case", "esac", "in", "\\", "$'", "${", "#", "env", "A=b", "find", "-exec", "echo", "[[",
        "]]", "\0", "SAFE_COMPOSE=off", "\udcff", "é", "function", "f()", "!", "time", "python3",
        "alias", "trap", "*", "~", "/usr/bin/docker", "rm -rf /", "docker.sock",
    ]
)  # fmt: skip


@given(
    st.lists(PIECES, max_size=30).map(" ".join)
    | st.lists(PIECES, max_size=12).map("".join)
    | st.text(max_size=60)
)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_text_gets_an_answer_and_no_fault(line: str) -> None:
    data = json.dumps({"tool_input": {"command": line}}).encode()
    assert decision(data) in ("", "ask", "deny")
    assert agent_verdicts.judge(line.split(" "), HERE).decision in ("", "ask", "deny")


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_get_an_answer_and_no_fault(data: bytes) -> None:
    try:
        assert decision(data) in ("", "ask", "deny")
    except agent_hook.UnreadableRequest as error:
        assert "not judge" in str(error)


@given(st.lists(PIECES, max_size=8).map(" ".join), st.sampled_from(["; ", "\n", " && ", " | "]))
@example(before="(( docker", joint=" && ")
@example(before="docker rm -f y <<EOF", joint="; ")
@example(before="docker volume #", joint="; ")
@example(before="docker volume rm #", joint="; ")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_that_stands_before_a_deletion_hides_it(before: str, joint: str) -> None:
    # What an open quote, comment or here-document swallows is either seen as unreadable or is no
    # command.
    line = f"{before}{joint}docker volume rm x"
    if agent_verdicts.judge(line, HERE).decision == "":
        found = shell.read(line, expand=True)
        assert found.unreadable == ()
        # A joint that the text before it escapes is a word of docker's, which then knows no such
        # command. One that it comments out leaves the words before, which name no volume.
        assert not any(
            c.program == "docker"
            and [w.text for w in c.words[1:3]] == ["volume", "rm"]
            and c.words[3:]
            for c in found.commands
        )


@pytest.mark.thorough
@pytest.mark.parametrize(
    "line",
    [
        "(" * 20_000 + "docker volume rm x" + ")" * 20_000,
        "$(" * 5_000 + "docker volume rm x" + ")" * 5_000,
        "sudo " * 9_000 + "docker volume rm x",
        "sudo env " * 3_000 + "docker volume rm x",
        "nohup nice " * 4_000 + "docker volume rm x",
        "a;" * 24_000 + "docker volume rm x",
        "echo 'docker volume rm x' | " * 500 + "sh",
        "docker volume rm " + "x" * 2_000_000,
        "eval eval " * 3_000 + "docker volume rm x",
    ],
    ids=[
        "brackets",
        "substitutions",
        "sudo",
        "environments",
        "wrappers",
        "list",
        "pipes",
        "long",
        "eval",
    ],
)
def test_deep_and_long_lines_end_soon_and_are_not_let_by(line: str) -> None:
    began = time.process_time()
    assert agent_verdicts.judge(line, HERE).decision in ("ask", "deny")
    assert (
        time.process_time() - began < 60
    )  # a bound, not a measurement: without the limits these run for ever
