"""The verb that finds commands that delete volumes before they run."""

from pathlib import Path
from typing import Annotated

import typer

from safe_compose.audit import report, scan
from safe_compose.cli.options import (
    AsJson,
    DryRun,
    Yes,
    app,
    ask_yes,
    print_json,
)
from safe_compose.cli.unused_flags import refuse_unused
from safe_compose.errors import UsageError
from safe_compose.ui import terminal

Sarif = Annotated[bool, typer.Option("--sarif", help="Print SARIF 2.1.0.")]

Github = Annotated[bool, typer.Option("--github", help="Print annotations for GitHub Actions.")]

Baseline = Annotated[
    Path | None, typer.Option("--baseline", help="A file of known findings, which do not count.")
]

WriteBaseline = Annotated[
    bool, typer.Option("--write-baseline", help="Write today's findings to --baseline.")
]

Fix = Annotated[
    bool,
    typer.Option(
        "--fix", help="Write warnings and safe forms into Markdown, shown as a diff first."
    ),
]


@app.command("audit")
def audit_files(
    paths: Annotated[
        list[str] | None, typer.Argument(help="Files and folders; this folder without any.")
    ] = None,
    sarif: Sarif = False,
    github: Github = False,
    baseline: Baseline = None,
    write_baseline: WriteBaseline = False,
    fix: Fix = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Find commands that delete volumes in documents, scripts and workflows; 1 if there are any."""
    if sum((sarif, github, as_json, fix, write_baseline)) > 1:
        raise UsageError("audit takes one of --json, --sarif, --github, --fix and --write-baseline")
    if (write_baseline and baseline is None) or (dry_run and not fix):
        raise UsageError("--write-baseline needs --baseline FILE, and --dry-run goes with --fix")
    refuse_unused("audit", {"--yes": yes and not fix})
    found = scan.scan(paths or ())
    if write_baseline and baseline is not None:
        scan.write_text(baseline, report.baseline(found.findings))
        terminal.say(f"safe-compose: {baseline} knows {len(found.findings)} findings from now on")
        return
    known = (
        report.read_baseline(scan.read_text(baseline), str(baseline))
        if baseline is not None
        else {}
    )
    new, old = report.subtract_known(found.findings, known)
    if fix and _fix(found._replace(findings=tuple(new)), dry_run=dry_run, yes=yes):
        found = scan.scan(paths or ())
        new, old = report.subtract_known(found.findings, known)
    if as_json:
        print_json(report.to_json(new, old, found.notes, found.looked_at))
    elif sarif:
        terminal.tell_json(report.sarif(new, found.notes))
    else:
        lines = (
            report.github(new, found.notes)
            if github
            else report.text(new, found.notes, found.looked_at, len(old))
        )
        for line in lines:
            terminal.tell(line)
    if new:
        raise typer.Exit(1)


def _fix(found: scan.Report, *, dry_run: bool, yes: bool) -> bool:
    """Show the fixed documents and write them; return whether any was written."""
    fixed = scan.plan_fixes(found)
    for document in fixed:
        terminal.tell_lines(document.diff())
    if not fixed or dry_run:
        return False
    terminal.flush()
    ask_yes(f"Write {len(fixed)} documents?", yes=yes)
    scan.write(fixed)
    return True
