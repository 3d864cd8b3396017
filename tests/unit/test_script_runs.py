"""What the hook says about lines that run scripts from files, by what stands in the files."""

from pathlib import Path

import pytest

from safe_compose.audit.agent_verdicts import judge

FILES = {
    "Makefile": """\
DC = docker compose
.PHONY: all clean test
all: build
	echo
build:
	cc x.c
test: build
	pytest
clean: stop
	$(DC) down -v
stop:
	$(DC) down $(ARGS)
reset:
	$(MAKE) clean
deep:
	./scripts/reset.sh
sub:
	$(MAKE) -C sub wipe
""",
    "inc/Makefile": "include common.mk other/*.mk\n-include deep.mk $(MISSING)\nall:\n\techo\n",
    "inc/common.mk": "wipe:\n\tdocker compose down -v\n",
    "inc/deep.mk": "include common.mk inner.mk Makefile\n",
    "inc/inner.mk": "nuke: wipe\n",
    "Rakefile": """\
require "rake"
task default: :build
task :build do
  sh "docker compose build"
end
desc "Delete everything"
task :reset, [:name] => [:stop] do |t, args|
  sh "docker compose stop"
  sh "docker", "compose", "down", "-v"
end
task(:stop) { sh "docker compose stop" }
namespace :db do
  task "wipe" => "stop" do
    system("docker volume rm x")
  end
  task stop: [] do
  end
  task nuke: :wipe
end
task all: %w[db:wipe]
""",
    "tasks.py": """\
from invoke import task

@task
def build(c):
    c.run("docker compose build")

@task(pre=[build])
def reset_all(c):
    c.run("docker compose down -v")

@task(reset_all)
def nuke(c):
    pass
""",
    "noxfile.py": """\
@nox.session
def reset(session):
    session.run("docker", "volume", "rm", "x", external=True)
""",
    "pyproject.toml": """\
[tool.poe.tasks]
reset = "docker compose down -v"
up = {cmd = "docker compose up -d"}
nuke = ["up", "wipe"]
wipe.shell = "docker volume rm x"
[tool.pdm.scripts]
drop = {composite = ["docker compose down -v"]}
[tool.hatch.envs.default.scripts]
clear = ["docker compose down -v"]
""",
    "mise.toml": """\
[tasks.reset]
run = ["docker compose stop", "docker volume rm x"]
[tasks.up]
run = "docker compose up -d"
[tasks.nuke]
depends = ["reset"]
""",
    "Makefile.toml": '[tasks.reset]\ncommand = "docker"\nargs = ["compose", "down", "-v"]\n',
    "deno.json": '{"tasks": {"reset": "docker compose down -v", "up": "docker compose up"}}',
    "sub/Makefile": "wipe:\n\tdocker volume prune -f\n",
    "package.json": """{"scripts": {"build": "tsc", "db:up": "docker compose up -d",
 "db:reset": "docker compose down -v && npm run db:up", "down": "docker compose down",
 "nuke": "npm run db:reset", "test": "jest", "pretest": "docker volume rm x"}}""",
    "composer.json": '{"scripts": {"wipe": ["@stop", "docker volume rm x"], "stop": "docker stop x"}}',
    "dev.sh": """\
#!/bin/bash
case "$1" in
  up) docker compose up -d;;
  reset|nuke) docker compose down -v;;
  *) echo usage;;
esac
""",
    "functions.sh": """\
#!/bin/bash
reset() { docker compose down -v; }
up() { docker compose up -d; }
if [ "$1" = "reset" ]; then reset; else up; fi
""",
    "dispatch.sh": """\
#!/bin/bash
reset() { docker compose down -v; }
up() { docker compose up -d; }
"$@"
""",
    "options.sh": """\
#!/bin/bash
while [ $# -gt 0 ]; do
  case "$1" in -r|--reset) docker compose down -v; shift;; *) shift;; esac
done
docker compose up -d
""",
    "scripts/reset.sh": '#!/bin/sh\ncd "$(dirname "$0")"\ndocker compose down -v\n',
    "reset.py": 'import os\nos.system("docker compose down -v")\n',
    "justfile": "reset: stop\n    docker volume rm x\nstop:\n    docker compose down\nnuke: reset\n",
    "Taskfile.yml": """\
version: "3"
tasks:
  reset:
    cmds:
      - docker compose down -v
  up: docker compose up -d
  nuke:
    deps: [reset]
  late:
    cmds:
      - defer: docker volume rm x
""",
}
DELETES = [
    "make clean", "make reset", "make stop ARGS=-v", "make deep", "make sub", "make -C sub wipe",
    "make -C sub", "make -j4 clean", "npm run db:reset", "npm run nuke", "npm run down -- -v",
    "yarn down -v", "yarn db:reset", "pnpm db:reset", "npm test", "composer wipe",
    "composer run-script wipe", "./dev.sh reset", "bash dev.sh nuke", "./functions.sh reset",
    "./dispatch.sh reset", "./options.sh -x --reset", "scripts/reset.sh",
    "cd scripts && ./reset.sh", "bash -x scripts/reset.sh", "source scripts/reset.sh",
    "python3 reset.py", "just reset", "just", "just nuke", "task reset", "task nuke", "task late",
    "sudo ./scripts/reset.sh", "timeout 5 make clean", "nohup ./dev.sh reset &",
    "sh < scripts/reset.sh", "cat scripts/reset.sh | bash", "make -C inc wipe", "make -C inc nuke",
    "rake reset", "bundle exec rake reset", "rake db:wipe", "rake db:nuke", "rake all",
    "bin/rake reset[x]", "invoke reset-all", "inv nuke", "poetry run invoke reset_all",
    "nox -s reset", "poe reset", "uv run poe nuke", "pdm run drop", "hatch run clear",
    "mise run reset", "mise r nuke", "mise reset", "cargo make reset", "deno task reset",
]  # fmt: skip
HARMLESS = [
    "make", "make test", "make -n clean", "make stop", "make build test", "npm run build",
    "npm run db:up", "npm run down", "npm run down -v", "npm install", "npm ci && npm run build",
    "composer stop", "composer install", "./dev.sh up", "./dev.sh", "sh ./functions.sh",
    "./dispatch.sh up", "./options.sh", "./options.sh --verbose", "cat reset.py", "just --list",
    "just stop", "task up", "task --list", "ssh host ./scripts/reset.sh",
    "docker compose exec app make clean", "bash scripts/missing.sh", "chmod +x dev.sh",
    "make -C inc", "rake", "rake build", "rake stop", "rake db:stop", "rake -T", "invoke build",
    "invoke", "invoke --list", "poe up", "poe", "pdm install", "hatch run test", "mise run up",
    "mise install", "cargo make up", "cargo build", "deno task up", "nox",
    "git add dev.sh", "shellcheck scripts/reset.sh", "grep volume scripts/reset.sh",
]  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("line", DELETES)
def test_a_script_that_deletes_is_asked_about(project: Path, line: str) -> None:
    answer = judge(line, project)
    assert answer.decision == "ask", answer


@pytest.mark.parametrize("line", HARMLESS)
def test_of_a_script_that_keeps_the_data_nothing_is_said(project: Path, line: str) -> None:
    assert judge(line, project).decision == ""


def test_files_that_are_no_scripts_or_too_large_end_soon(tmp_path: Path) -> None:
    (tmp_path / "loop.sh").write_text("./loop.sh\n./loop.sh\n")
    (tmp_path / "large.sh").write_text("docker compose down\n" * 100_000)
    (tmp_path / "binary").write_bytes(b"\x7fELF\0docker volume rm x")
    (tmp_path / "Makefile").write_text("a: a\n\t$(MAKE) a\n" + "b:\n\tdown\n" * 3000)
    (tmp_path / "package.json").write_text("[" * 50_000)
    for line in ("./loop.sh", "./large.sh", "./binary", "make a", "npm run x", "bash /dev/zero"):
        assert judge(line, tmp_path).decision == "", line
