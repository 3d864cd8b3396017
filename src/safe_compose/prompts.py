"""The terminal: the card, the typed phrase, progress. Everything goes to stderr; stdin is never read for an answer."""

import io
import os
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import IO, Any, cast

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text as RichText

from safe_compose.artifacts import Listed, visible
from safe_compose.errors import Interrupted, Refused, SafeComposeError, UsageError
from safe_compose.plan import TRASH_DAYS, Doomed, Effort, Plan, effort, moment_text, size_text, time_text
from safe_compose.policy import Tier
from safe_compose.process import utc_now

NARROW = 72
"""Columns below which the card puts a volume's facts below its name."""
MANY_ROWS = 500
"""Above that a table is printed plainly."""
TYPED_AHEAD = 100
"""Lines typed ahead that are looked through: `yes` does not end."""
END_OF_INPUT = "end of input at the prompt; nothing was done"
_TIER_STYLE = {Tier.CRITICAL: "bold red", Tier.IMPORTANT: "yellow", Tier.DISPOSABLE: "dim"}


class Text(RichText):
    """Words, shown and never obeyed."""

    def __init__(self, text: str = "", style: str = "") -> None:
        super().__init__(visible(text), style=style)

    def append(self, text: RichText | str, style: Any = None) -> "Text":
        super().append(visible(text) if isinstance(text, str) else text, style)
        return self


class _Stderr(io.TextIOBase):
    """Our stderr, which may be closed, full, a pipe that nobody reads, or a terminal that has gone: no backup stops for it,
    and nothing of ours goes anywhere else."""

    def __init__(self) -> None:
        self._stream = sys.stderr  # what it is now: while something live is shown, rich puts itself in its place
        self._encoding = getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.flush()

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        return 2

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding


def console() -> Console:
    """A console on stderr: colours and live tables on a terminal, plain lines of any length elsewhere."""
    stderr = _Stderr()
    terminal = stderr.isatty()
    file = cast(IO[str], stderr)
    return Console(file=file, highlight=False, soft_wrap=not terminal, width=None if terminal else 200)


def say(text: str) -> None:
    """One plain line on stderr."""
    print(visible(text), file=_Stderr(), flush=True)


@contextmanager
def only_said() -> Iterator[None]:
    """A fault of ours in the block is told on stderr and changes nothing else."""
    try:
        yield
    except SafeComposeError as fault:
        say(f"safe-compose: {fault.message}")


class Terminal:
    """The controlling terminal, only when a person can be asked there.

    That is: /dev/tty opens, stderr is that same terminal, and we are its foreground process group. An answer is read as one
    canonical line after type-ahead was discarded, so `yes |`, here-documents and impatient fingers answer nothing. An end of
    input among it counts: it is what `script </dev/null` and its like put there, and nothing comes after it.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def open(cls) -> "Terminal | None":
        """The terminal, or None when there is nobody to ask."""
        try:
            fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            # tcgetpgrp answers ENOTTY for any terminal but our controlling one, so this says: stderr is that terminal
            here = os.tcgetpgrp(2) == os.tcgetpgrp(fd) == os.getpgrp()
        except OSError:
            here = False
        if here:
            return cls(fd)
        os.close(fd)
        return None

    def ask(self, question: str, *, hidden: bool = False) -> str:
        """One line typed after the question, without its newline; `hidden`: it is not shown. End of input: Refused."""
        try:
            with self._canonical(echo=not hidden):
                os.write(self.fd, visible(question).encode(errors="replace"))
                line = b""
                while not line.endswith(b"\n"):
                    more = os.read(self.fd, 4096)
                    if not more:
                        raise Refused(END_OF_INPUT)
                    line += more
                if hidden:
                    os.write(self.fd, b"\n")
        except (OSError, termios.error) as error:
            raise Refused("the terminal has gone; nothing was done") from error
        return line[:-1].decode(errors="surrogateescape")

    @contextmanager
    def _canonical(self, *, echo: bool = True) -> Iterator[None]:
        """Whole lines, echoed unless told otherwise, Enter ends them; type-ahead is discarded. As it was before, afterwards."""
        before = termios.tcgetattr(self.fd)
        canonical = termios.tcgetattr(self.fd)
        canonical[0] = canonical[0] & ~(termios.IGNCR | termios.INLCR) | termios.ICRNL
        canonical[3] = canonical[3] & ~termios.ECHO | termios.ICANON | termios.ISIG | (termios.ECHO if echo else 0)
        if before[3] & termios.ICANON and _has_ended():
            raise Refused(END_OF_INPUT)
        try:
            termios.tcsetattr(self.fd, termios.TCSAFLUSH, canonical)
            yield
        finally:
            with suppress(termios.error):  # a terminal that has gone needs nothing, and its fault must not hide another
                termios.tcsetattr(self.fd, termios.TCSANOW, before)


def _has_ended() -> bool:
    """Whether the lines that were typed ahead, which are lost by this, end with an end of input."""
    fd = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return any(not os.read(fd, 4096) for _ in range(TYPED_AHEAD))
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def ask_phrase(question: str, phrase: str, confirm: str | None, *, ask: bool, nothing: str, why: str = "") -> None:
    """Have a phrase typed, or given as `confirm`. `nothing` says what was not done, `why` what nobody could be asked about. Raises
    Refused, Interrupted."""
    if confirm is not None:
        if confirm != phrase:
            raise Refused(f"--confirm does not match; {nothing}", next_step=f"--confirm '{phrase}'")
        return
    terminal = Terminal.open() if ask else None
    if terminal is None:
        raise Refused(f"{f'{why}, and ' if why else ''}nobody can be asked; {nothing}", next_step=f"add --confirm '{phrase}'")
    try:
        answer = terminal.ask(f"{question}, type '{phrase}': ")
    except KeyboardInterrupt as stop:
        raise Interrupted(f"interrupted; {nothing}") from stop
    if answer != phrase:
        raise Refused(f"the phrase was not '{phrase}'; {nothing}")


def card(plan: Plan, doomed: Sequence[Doomed], *, measuring: bool, width: int) -> RenderableType:
    """Everything that a person must see before the question. Values that are still being measured show as `...`."""
    unknown = "..." if measuring else "not measured"
    head = Table.grid(padding=(0, 2))
    head.add_column(style="dim", no_wrap=True)
    head.add_column(overflow="fold")
    head.add_row("command", Text(" ".join([plan.invocation.program, *plan.invocation.argv]), style="bold"))
    remote = not plan.observed.endpoint.startswith(("unix://", "npipe://"))
    loud = ("   REMOTE", "bold red") if remote else ("", "")
    head.add_row("daemon", Text(plan.observed.endpoint + loud[0], style=loud[1]))
    if plan.project:
        inferred = f"   (from the {plan.observed.project.inferred_from})" if plan.observed.project else ""
        head.add_row("project", Text(plan.project + inferred))
    volumes = [_of_volume(d, unknown) for d in sorted(doomed, key=lambda d: (d.verdict.tier.rank, d.name))]
    rows: list[RenderableType] = [Text("This command deletes volumes for good.", style="bold"), head]
    rows.append(_one_below_the_other(volumes) if width < NARROW else _side_by_side(volumes))
    for spared, why in plan.threat.spared:
        rows.append(Text(f"not touched: {spared} ({why})", style="dim"))
    for warning in plan.warnings:
        rows.append(Text(f"warning: {warning}", style="yellow"))
    for title, words in plan.details.items():
        rows.append(Text(f"{title}: {words}"))
    rows += [Text(f"better: {d.remedy}", style="bold") for d in doomed if d.remedy]
    if not plan.invocation.own.skip_backup and plan.backed_up:
        rows += _time_it_takes(plan, effort(doomed), unknown)
    return Group(*rows)


def _of_volume(d: Doomed, unknown: str) -> tuple[Text, Text, Text, Text]:
    """Name, tier, size, and all else that is known of one volume."""
    name = Text(d.name if not d.volume.anonymous else f"{d.name[:12]}... (anonymous)")
    if d.other_project:
        name.append(f"\nbelongs to project {d.other_project}", style="bold red")
    facts = Text(d.contents or d.verdict.kind)
    facts.append(f"\n{d.verdict.why}", style="dim")
    if d.volume.anonymous and d.places:
        facts.append(f"\nmounted at {', '.join(d.places)}", style="dim")  # its name says nothing to anybody
    facts.append(f"\nused by {', '.join(f'{c.name} ({c.state})' for c in d.users) or 'nothing'}", style="dim")
    if d.verdict.tier is not Tier.DISPOSABLE:
        facts.append(f"\nlast write: {d.last_write or unknown}", style="dim")
        facts.append(f"\nlast verified backup: {d.last_backup or 'none'}", style="dim")
    tier = Text(d.verdict.tier.value, style=_TIER_STYLE[d.verdict.tier])
    return name, tier, Text(unknown if d.bytes is None else size_text(d.bytes)), facts


def _side_by_side(volumes: Sequence[tuple[Text, Text, Text, Text]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("volume", "tier", "size", "in it"):
        table.add_column(title, overflow="fold", no_wrap=title == "tier")
    for cells in volumes:
        table.add_row(*cells)
    return table


def _one_below_the_other(volumes: Sequence[tuple[Text, Text, Text, Text]]) -> Group:
    """Columns of a few letters are read by nobody."""
    rows: list[RenderableType] = []
    for name, tier, size, facts in volumes:
        rows += [Text(), name, Text("  ").join([Text(), tier, size]), Padding(facts, (0, 0, 0, 2))]
    return Group(*rows, Text())


def _time_it_takes(plan: Plan, taken: Effort | None, unknown: str) -> Iterator[Text]:
    if plan.safety != "backup":
        yield Text(
            f"trash: not possible ({plan.no_trash}); backed up instead"
            if plan.no_trash
            else "trash: the content is moved aside on the engine's own disk, in seconds; `undo` brings it back within "
            f"{TRASH_DAYS} days"
        )
        if plan.safety == "trash" and not plan.no_trash:
            yield Text("no copy is made: what happens to that disk happens to it", style="yellow")
            return
    yield Text(f"it takes: {taken or unknown}")
    if plan.threat.stops:
        time = f"about {time_text(taken.seconds)}" if taken else "all that time"
        yield Text(f"services down: {time} for the backup, then until somebody starts them; if it fails they start again at once")
    if taken and plan.patience is not None and taken.seconds > plan.patience:
        yield Text(
            f"long: that is more than {time_text(plan.patience)} (backup.patience); `safe-compose backup` makes one while "
            "everything runs",
            style="yellow",
        )
        if plan.trash_phrase is not None:
            yield Text(
                f"or without a copy, in seconds: type '{plan.trash_phrase}'. The content is then moved aside on the engine's own "
                f"disk, which it does not survive; `undo` brings it back within {TRASH_DAYS} days",
                style="yellow",
            )
        elif plan.safety == "backup":
            yield Text(f"the trash, which would take seconds, is not possible: {plan.no_trash}", style="dim")


def show_card(plan: Plan, measure: Callable[[], Iterator[Sequence[Doomed]]]) -> None:
    """Paint the card at once and fill in what `measure` yields; without a terminal it is printed once, measured."""
    out = console()
    if not out.is_terminal:
        out.print(card(plan, [plan.doomed, *measure()][-1], measuring=False, width=out.width))
        return
    doomed: Sequence[Doomed] = plan.doomed
    with Live(card(plan, doomed, measuring=True, width=out.width), console=out, refresh_per_second=8) as live:
        for doomed in measure():
            live.update(card(plan, doomed, measuring=True, width=out.width), refresh=True)
        live.update(card(plan, doomed, measuring=False, width=out.width), refresh=True)


def question_for(plan: Plan) -> str:
    """The last line before the answer: what typing it means."""
    if plan.invocation.own.skip_backup:
        return f"No backup will be made. To delete {len(plan.doomed)} volumes for good, type '{plan.phrase}': "
    first = "A backup is made and verified first."
    if plan.safety != "backup" and plan.no_trash is None and plan.backed_up:
        aside = "the content is moved into the trash"
        only = plan.safety == "trash" and not plan.invocation.own.backup_first
        first = f"No copy is made: {aside} first." if only else f"A backup is made and verified, and {aside}, first."
    return f"{first} To go on, type '{plan.phrase}': " if plan.typed else f"{first} Go on? [y/N] "


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the bytes done so far; `total` is about how many there will be.

    A bar with rate and time left on a terminal, a line elsewhere.
    """
    out = console()
    if not out.is_terminal:
        say(f"safe-compose: {description} ...")
        yield lambda done: None
        return
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn

    class Pace(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(pace_text(int(task.completed), total, task.elapsed or 0))

    with Progress(TextColumn("{task.description}"), BarColumn(20), Pace(), console=out, transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda done: bar.update(task, completed=done)
    say(f"safe-compose: {description}: done")


def pace_text(done: int, total: int | None, seconds: float) -> str:
    """How far something is: `31.0 MiB, 22.1 MiB/s, about 2 seconds left`; only the time while too few bytes tell a rate."""
    if done < 1 << 20 or seconds <= 0:
        return time_text(seconds)
    rate = done / seconds
    left = f"about {time_text(max(1, (total - done) / rate))} left" if total is not None and total > done else time_text(seconds)
    return f"{size_text(done)}, {size_text(int(rate))}/s, {left}"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], **options: Any) -> None:
    """A table of ours, on stdout since the verb is ours: aligned and coloured on a terminal, still aligned in a pipe."""
    terminal = sys.stdout.isatty()
    if len(rows) > MANY_ROWS:
        _plain_table(columns, rows)
        return
    out = Console(highlight=False, width=None if terminal else 220)
    grid = Table(title=title if terminal else None, box=SIMPLE_HEAD, pad_edge=False, **options)
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    out.print(grid)


def _plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The same look in one line a row, however wide: rich takes 3 ms for each (measured)."""
    widths = [max(len(row[at]) for row in (columns, *rows)) for at in range(len(columns))]
    lines = (columns, ["-" * width for width in widths], *rows)
    sys.stdout.writelines(
        "  ".join([cell.ljust(width) for cell, width in zip(line, widths, strict=True)]).rstrip() + "\n" for line in lines
    )


def choose_backup(backups: Sequence[Listed]) -> str:
    """Let a person pick a backup with the arrow keys. Needs a terminal: otherwise Refused, an id must be given."""
    if not backups:
        raise UsageError("there is no backup to choose from", next_step="safe-compose backup")
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Refused("no terminal to choose a backup on", next_step="safe-compose list, then safe-compose restore ID")
    import questionary  # 100 ms: only where a person is about to choose

    now = utc_now()
    choices = [
        questionary.Choice(
            visible(
                f"{b.project}  {moment_text(datetime.fromisoformat(b.created), now)}  {b.reason}  {size_text(b.bytes)}  "
                f"{', '.join(b.volumes)}  [{(b.level or 'verified') if b.verified else b.broken or 'not verified'}]"
            ),
            value=b.id,
            disabled=b.broken,
        )
        for b in backups
    ]
    answer = questionary.select("Restore which backup?", choices=choices).unsafe_ask()
    return str(answer)


def choose_tiers(rows: Sequence[tuple[str, str, str]]) -> dict[str, str]:
    """What a volume is worth, as a person on a terminal says: (key, tier, why) as proposed -> key and tier.

    Raises KeyboardInterrupt when they leave without an answer.
    """
    import questionary

    chosen = {key: tier for key, tier, _ in rows}
    width = max((len(key) for key, _, _ in rows), default=0)
    while True:
        choices = [questionary.Choice(f"{key:{width}}  {chosen[key]:10}  {why}", value=key) for key, _, why in rows]
        picked = questionary.select(
            "Change a volume's tier?", choices=[questionary.Choice("no, go on with these", value=""), *choices]
        ).unsafe_ask()
        if not picked:
            return chosen
        tiers = [tier.value for tier in Tier]
        chosen[picked] = questionary.select(f"{picked} is", choices=tiers, default=chosen[picked]).unsafe_ask()
