"""`--explain`: the plan of a command, printed to stdout."""

from dataclasses import replace

from safe_compose.core import plan, plan_text, refused_words, threat
from safe_compose.core.observed import Observed
from safe_compose.core.plan import Plan
from safe_compose.grammar.parser import Invocation
from safe_compose.ui import terminal as ui_terminal


def print_plan(made: Plan) -> None:
    """Print a plan, as text or as JSON."""
    if made.invocation.own.json:
        ui_terminal.tell_json(plan_text.to_json(made))
        return
    for line in plan_text.format_lines(made):
        ui_terminal.tell(line)


def explain_offline(invocation: Invocation) -> int:
    """Print the verdict that the words of a command give without an engine, and return 0."""
    shape = plan_text.to_offline_json(invocation)
    if invocation.own.json:
        ui_terminal.tell_json(shape)
    else:
        ui_terminal.tell(f"verdict   {shape['verdict']} (from the words alone)")
        ui_terminal.tell(f"kind      {shape['kind']}")
    return 0


def explain_harmless(invocation: Invocation) -> int:
    """Print the plan of a command that cannot delete a volume, without asking the daemon.

    Returns:
        The exit code 0.
    """
    harmless = plan.make(invocation, Observed("", ""), threat.Threat("none", (), (), (), ()), ())
    print_plan(harmless)
    return 0


def explain_refused(invocation: Invocation) -> int:
    """Print the plan of a command that its words alone refuse, without asking the daemon.

    Returns:
        The exit code 0.
    """
    made = plan.make(invocation, Observed("", ""), threat.Threat(invocation.kind, ()), ())
    reason, next_step = refused_words.reason(invocation), refused_words.next_step(invocation)
    print_plan(replace(made, verdict="refuse", warnings=(reason,), refusal=next_step))
    return 0
