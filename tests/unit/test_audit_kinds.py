"""Which files of which kind hold a command that deletes volumes."""

import time

import pytest

from safe_compose.audit import file_kinds, findings, scan

CASES = [
    ("a.md", 'Type "docker compose down -v" to reset', True),
    ("a.txt", 'Type "docker compose down -v" to reset', True),
    ("a.rst", 'Run "sudo docker volume rm x".', True),
    ("a.sh", "${SUDO} docker compose down -v", True),
    ("a.sh", "$SUDO docker volume rm x", True),
    ("a.sh", 'args=(down); args+=(-v); docker compose "${args[@]}"', True),
    ("a.sh", 'DC=(docker compose -f a.yml)\n"${DC[@]}" down -v', True),
    ("a.sh", "run_cmd docker compose down -v", True),
    ("a.sh", "docker_compose down -v", True),
    ("a.sh", 'execute_command "docker compose down -v"', True),
    ("a.sh", "run_step 'Reset' 'docker volume rm x'", True),
    ("a.sh", "log_info 'docker volume rm x'", False),
    ("a.sh", "FLAGS='-t 5'\nFLAGS+=' -v'\ndocker compose down $FLAGS", True),
    ("a.sh", "curl -X DELETE --unix-socket /var/run/docker.sock http://x/volumes/p", True),
    (
        "a.sh",
        "curl -X DELETE --unix-socket /var/run/docker.sock http://x/images/p # volumes",
        False,
    ),
    ("Makefile", "a:\n\tdocker compose $(if $(V),down -v,down)\n", True),
    ("Makefile", "run = echo $(1) && $(1)\na:\n\t$(call run,docker compose down -v)\n", True),
    ("Makefile", "include x.mk\na:\n\t$(call run,docker compose down -v)\n", True),
    (
        "Makefile",
        "define exec\n@$(1)\nendef\na:\n\t$(call exec,docker compose down --volumes)\n",
        True,
    ),
    ("Makefile", "a:\n\t$(call run,docker compose down)\n\techo -v\n", False),
    ("a.ps1", 'Invoke-Expression "docker compose down -v"', True),
    ("a.ps1", 'iex "docker volume rm x"', True),
    ("a.bat", "call docker compose down -v\r\n", True),
    ("a.cmd", "@echo off\r\ncall docker-compose down -v\r\n", True),
    ("a.fish", "alias dvp 'docker volume prune -f'", True),
    ("a.fish", "abbr -a dvp 'docker volume prune -f'", True),
    ("a.fish", "abbr --add dvp docker volume prune -f", True),
    ("a.fish", "alias d 'docker compose down'\n# -v", False),
    ("composer.json", '{"scripts":{"reset":["docker compose down -v"]}}', True),
    ("composer.json", '{"scripts":{"reset":["docker compose down","@php x"]}}', False),
    (".husky/pre-push", "docker compose down -v\n", True),
    (".husky/pre-commit", '. "$(dirname -- "$0")/_/husky.sh"\nnpm test\ndocker volume rm x', True),
    ("package.json", '{"husky":{"hooks":{"pre-push":"docker compose down -v"}}}', True),
    ("Taskfile.yml", "tasks:\n  a:\n    cmds:\n      - defer: docker compose down -v\n", True),
    (
        "Taskfile.yml",
        "tasks:\n  a:\n    cmds:\n      - defer: {task: clean}\n      - docker compose down\n",
        False,
    ),
    ("a.rb", 'sh "docker compose up"\nsh "docker volume rm x"', True),
    ("a.rb", 'sh "docker " +\n  "volume rm x"', True),
    ("a.rb", 'sh "docker"\nputs "volume", "rm", "x"', False),
    ("a.js", 'execFile("docker",\n  ["volume", "rm", "x"])', True),
    ("a.js", 'exec("docker "\n  + "volume rm x")', True),
    ("x.py", 'cmd = ["docker","compose","down","-v"]\nsubprocess.run(cmd)', True),
    ("x.py", 'subprocess.run(shlex.split("docker volume rm x"))', True),
    ("x.py", 'subprocess.run("docker compose down -v".split())', True),
    ("x.py", 'c = "docker compose down -v"\nos.system(c)', True),
    ("x.py", 'c = ["docker", "compose"]\nc += ["down", "-v"]\nsubprocess.check_call(c)', True),
    ("x.py", 'b = ["docker", "compose"]\nsubprocess.run([*b, "down", "-v"])', True),
    ("x.py", 'b = ["docker", "compose"]\nsubprocess.run(b + ["down", "-v"])', True),
    ("x.py", 'b = ["docker", "compose", "down", "-v"]\nprint(b)', False),
    ("a.mdx", '<CopyCodeBlock code="sudo docker compose down -v" />', True),
    ("a.md", '<CodeBlock language="sh" code={`docker volume rm x`} />', True),
    ("a.md", 'text <Copy code="docker compose down -v" /> more', True),
    (".claude/settings.json", '{"permissions":{"allow":["Bash(docker volume rm:*)"]}}', True),
    (
        ".claude/settings.local.json",
        '{"permissions":{"allow":["Bash(docker compose down -v)", "Bash(ls:*)"]}}',
        True,
    ),
    (".claude/settings.json", '{"permissions":{"deny":["Bash(docker volume rm:*)"]}}', False),
    ("opencode.json", '{"permission":{"bash":{"docker volume rm *":"allow"}}}', True),
    ("opencode.json", '{"permission":{"bash":{"docker volume rm *":"deny"}}}', False),
    (
        ".github/workflows/a.yml",
        'jobs:\n  a:\n    steps:\n      - uses: hoverkraft-tech/compose-action@v2\n        with:\n          compose-file: a.yml\n          down-flags: "--volumes"\n',
        True,
    ),
    (
        ".github/workflows/a.yml",
        'jobs:\n  a:\n    steps:\n      - uses: isbang/compose-action@v2\n        with:\n          down-flags: "--remove-orphans"\n          x: volumes\n',
        False,
    ),
    (
        "play.yml",
        "- hosts: all\n  tasks:\n    - name: x\n      community.docker.docker_compose_v2:\n        project_src: /a\n        state: absent\n        remove_volumes: true\n",
        True,
    ),
    (
        "play.yml",
        "- hosts: all\n  tasks:\n    - community.docker.docker_compose_v2:\n        state: present\n        remove_volumes: true\n",
        False,
    ),
    (
        "play.yml",
        "- tasks:\n    - community.docker.docker_volume:\n        name: x\n        state: absent\n",
        True,
    ),
    (
        "a.ts",
        "import {execSync} from 'child_process'\nexecSync('docker compose down -v', {stdio: 'inherit'})",
        True,
    ),
    ("a.js", "spawn('docker', ['compose', 'down', '-v'])", True),
    ("a.mjs", "await $`docker compose down -v`", True),
    ("a.js", "// execSync('docker compose down -v')\nexecSync('docker compose down')", False),
    ("a.js", "console.log('docker compose down -v')", False),
    ("a.ts", "await execa('docker', ['volume', 'rm', name])", True),
    ("a.js", "exec(`docker volume rm ${name}`)", True),
    ("a.js", "const x = /docker volume rm/.exec(y)", False),
    ("Rakefile", "task :reset do\n  sh 'docker compose down -v'\nend", True),
    ("Rakefile", "task :reset do\n  system('docker', 'volume', 'rm', 'x')\nend", True),
    ("a.rb", "`docker volume rm x`", True),
    ("a.rb", "puts 'docker volume rm x'", False),
    ("a.rb", "# sh 'docker volume rm x'", False),
    ("a.go", 'exec.Command("docker", "compose", "down", "-v").Run()', True),
    ("a.go", 'exec.CommandContext(ctx, "docker", "volume", "rm", n)', True),
    ("a.go", 'exec.Command("sh", "-c", "docker compose down -v")', True),
    ("a.go", 'fmt.Println("docker compose down -v")', False),
    ("a.go", '// exec.Command("docker", "volume", "rm")', False),
    ("pyproject.toml", '[tool.poe.tasks]\nreset = "docker compose down -v"\n', True),
    ("mise.toml", '[tasks.reset]\nrun = "docker compose down -v"\n', True),
    ("mise.toml", '[tasks.reset]\nrun = ["docker compose stop", "docker volume rm x"]\n', True),
    (
        "Makefile.toml",
        '[tasks.reset]\ncommand = "docker"\nargs = ["compose", "down", "-v"]\n',
        True,
    ),
    ("pyproject.toml", '[tool.poe.tasks.reset]\nshell = """\ndocker compose down -v\n"""\n', True),
    ("pyproject.toml", '[project]\ndescription = "docker compose down -v"\n', False),
    ("a.sh", "Never run docker compose down -v", False),
]


@pytest.mark.parametrize(("path", "text", "expected"), CASES)
def test_a_command_is_found_in_every_kind_of_file(path: str, text: str, expected: bool) -> None:
    data = text.encode()
    kind = file_kinds.find_kind_by_path(path)
    assert kind is not None
    found = scan.judge_file(path, kind, data)[0]
    assert bool(found) == expected
    assert not found or file_kinds.may_matter(data)


def test_hostile_source_code_ends_soon() -> None:
    for path, text in {
        "a.go": "/*" * 100_000,
        "a.js": "`" + "\\`" * 100_000,
        "b.js": "exec(" * 50_000,
        "a.rb": "sh " * 100_000,
        "c.js": '"\\' * 100_000,
    }.items():
        kind = file_kinds.find_kind_by_path(path)
        assert kind is not None
        assert scan.judge_file(path, kind, f"{text} docker down -v".encode())[0] == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a.js", "".join(f'execSync("docker volume rm v{n}");\n' for n in range(20_000))),
        ("a.sh", "docker volume rm x\n" * 20_000),
        ("a.sh", "".join(f"a{n}='docker -H {n}'\n$a{n} volume rm x\n" for n in range(10_000))),
        (
            "mise.toml",
            "[tasks]\n" + "".join(f'a{n} = "docker volume rm {n}"\n' for n in range(20_000)),
        ),
    ],
)
def test_a_file_of_very_many_findings_ends_soon_and_says_how_many_are_left_out(
    path: str, text: str
) -> None:
    kind = file_kinds.find_kind_by_path(path)
    assert kind is not None
    began = time.process_time()
    found, notes = scan.judge_file(path, kind, text.encode())
    assert time.process_time() - began < 15
    assert 50 <= len(found) <= findings.MOST
    (note,) = notes
    assert f"{len(found)} findings are listed; " in note.words and "more places" in note.words
    left = int(note.words.split("; ")[1].split()[0])
    assert len(found) + left == pytest.approx(text.count("volume rm"), abs=1)


def test_yaml_that_is_too_large_for_its_parser_is_read_by_lines() -> None:
    path = ".github/workflows/a.yml"
    kind = file_kinds.find_kind_by_path(path)
    assert kind is not None
    text = "jobs:\n  a:\n    steps:\n" + "      - run: echo docker down\n" * 15_000
    began = time.process_time()
    text += "      - run: |\n          docker compose down -v\n"
    (found,), (note,) = scan.judge_file(path, kind, text.encode())
    assert found.line == 15_005 and "plain text" in note.words
    assert time.process_time() - began < 15


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("package.json", '{"a":' * 50_000),
        ("pyproject.toml", "a" + ".a" * 50_000 + " = 1"),
        ("pyproject.toml", "a = " + "[" * 50_000),
        ("Dockerfile", "RUN " + "[" * 50_000),
    ],
)
def test_a_file_that_is_nested_without_end_is_read_as_text(path: str, text: str) -> None:
    kind = file_kinds.find_kind_by_path(path)
    assert kind is not None
    assert scan.judge_file(path, kind, f"{text}\n# docker down -v".encode())[0] == []
