"""The verbs against the causes: a password that changes without deleting anything, commands found before they run."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from safe_compose import audit, prompts, rotate
from safe_compose.audit import report
from safe_compose.cli.words import (
    AsJson,
    ComposeFile,
    DryRun,
    ProjectName,
    Silent,
    Wait,
    Yes,
    app,
    ask_yes,
    check_wait,
    down_of,
    print_json,
)
from safe_compose.errors import Refused, UsageError
from safe_compose.world import enter


@app.command("rotate-password")
def rotate_password(
    service: Annotated[str, typer.Argument(help="The database's service in the compose file.")],
    sync: Annotated[bool, typer.Option("--sync", help="The files were changed already: the database follows them.")] = False,
    user: Annotated[str | None, typer.Option("--user", help="The role, instead of the one that the image was told.")] = None,
    generate: Annotated[bool, typer.Option("--generate", help="Let a new password be generated.")] = False,
    from_stdin: Annotated[bool, typer.Option("--stdin", help="Read the new password from stdin.")] = False,
    from_file: Annotated[Path | None, typer.Option("--from-file", help="Read the new password from a file.")] = None,
    old_file: Annotated[
        Path | None, typer.Option("--old-file", help="MariaDB, MySQL: a file with the password that the database still has.")
    ] = None,
    leave: Annotated[
        list[str] | None, typer.Option("--leave", help="A key or file that stays as it is, to be changed by hand; may be repeated.")
    ] = None,
    also: Annotated[
        list[str] | None, typer.Option("--also", help="A key with the same value that is this password too; may be repeated.")
    ] = None,
    project: ProjectName = None,
    files: ComposeFile = None,
    silent: Silent = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = 60.0,
    as_json: AsJson = False,
) -> None:
    """Change a database's password in the database and in every file that holds it; nothing is deleted."""
    check_wait(wait)
    if sum((sync, generate, from_stdin, from_file is not None)) > 1:
        raise UsageError("rotate-password takes one of: --sync, --generate, --stdin, --from-file; nothing was changed")
    if sync and (leave or also):
        raise UsageError("--leave and --also go with a new password, not with --sync; nothing was changed")
    invocation = down_of(project, files)
    world = enter(invocation)
    old = _password_of(old_file) if old_file is not None else None
    looked = rotate.look(world, invocation, service, user, old)
    if sync:
        again = partial(rotate.plan_sync, world)
    else:
        new = _new_password(generate=generate or dry_run, from_stdin=from_stdin, from_file=from_file, ask=not silent)
        again = partial(rotate.plan, world, new=new, leave=frozenset(leave or ()), also=frozenset(also or ()))
    planned = again(looked)
    if not as_json:
        sys.stdout.write("".join(f"{line}\n" for line in planned.lines()))
        sys.stdout.flush()
    if dry_run or (as_json and not yes):
        done = rotate.shape(planned)
    else:
        if silent and not yes:
            raise Refused("nobody may be asked (--non-interactive); nothing was changed", next_step="add --yes")
        ask_yes("Change it?", yes=yes)
        done = rotate.act(world, planned, again=again, user=user, wait=wait)
    if as_json:
        print_json({"rotated": done})
    elif done["done"]:
        sys.stdout.write(f"{done['role']} has {'the password of the files' if sync else 'its new password'}\n")


def _new_password(*, generate: bool, from_stdin: bool, from_file: Path | None, ask: bool) -> str:
    """The new password, without the line end of a file. Raises Refused, UsageError."""
    if from_stdin or from_file is not None:
        return _password_of(from_file)
    if generate:
        return rotate.generated()
    terminal = prompts.Terminal.open() if ask else None
    if terminal is None:
        raise Refused(
            "there is no terminal to ask for the new password on; nothing was changed",
            next_step="add --generate, --stdin or --from-file",
        )
    new = terminal.ask("New password: ", hidden=True)
    if terminal.ask("The same again: ", hidden=True) != new:
        raise Refused("the two are not the same; nothing was changed")
    return new


def _password_of(file: Path | None) -> str:
    """What a file, or stdin, holds. Raises UsageError."""
    try:
        data = sys.stdin.buffer.read() if file is None else file.read_bytes()
        return data.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the password cannot be read ({type(error).__name__}); nothing was changed") from None


@app.command("audit")
def audit_files(
    paths: Annotated[list[str] | None, typer.Argument(help="Files and folders; this folder without any.")] = None,
    sarif: Annotated[bool, typer.Option("--sarif", help="Print SARIF 2.1.0.")] = False,
    github: Annotated[bool, typer.Option("--github", help="Print annotations for GitHub Actions.")] = False,
    baseline: Annotated[Path | None, typer.Option("--baseline", help="A file of known findings, which do not count.")] = None,
    write_baseline: Annotated[bool, typer.Option("--write-baseline", help="Write today's findings to --baseline.")] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Write warnings and safe forms into Markdown, shown as a diff first.")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Find commands that delete volumes in documents, scripts, workflows and compose files. 1 when there are any."""
    if sum((sarif, github, as_json, fix, write_baseline)) > 1:
        raise UsageError("audit takes one of --json, --sarif, --github, --fix and --write-baseline")
    if (write_baseline and baseline is None) or (dry_run and not fix):
        raise UsageError("--write-baseline needs --baseline FILE, and --dry-run goes with --fix")
    found = audit.scan(paths or ())
    if write_baseline and baseline is not None:
        audit.write_text(baseline, report.baseline(found.findings))
        prompts.say(f"safe-compose: {baseline} knows {len(found.findings)} findings from now on")
        return
    known = report.read_baseline(audit.read_text(baseline), str(baseline)) if baseline is not None else {}
    new, old = report.without(found.findings, known)
    if fix:
        mended = audit.mendings(found._replace(findings=tuple(new)))
        for one in mended:
            sys.stdout.write(one.diff())
        if mended and not dry_run:
            sys.stdout.flush()
            ask_yes(f"Write {len(mended)} documents?", yes=yes)
            audit.write(mended)
            found = audit.scan(paths or ())
            new, old = report.without(found.findings, known)
    if as_json:
        print_json(report.shape(new, old, found.notes, found.looked_at))
    elif sarif:
        sys.stdout.write(json.dumps(report.sarif(new, found.notes)) + "\n")
    elif github:
        sys.stdout.write("".join(f"{line}\n" for line in report.github(new, found.notes)))
    else:
        sys.stdout.write("".join(f"{line}\n" for line in report.text(new, found.notes, found.looked_at, len(old))))
    if new:
        raise typer.Exit(1)
