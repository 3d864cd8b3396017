"""Words of a `docker-compose` of which nobody knows whether it is v1, v2 or podman-compose."""

from safe_compose.grammar.parser import Invocation, parse


def doubt_dashes(invocation: Invocation) -> Invocation:
    """Return the invocation with a doubt if only the `--` before its verb keeps it harmless.

    argparse, which podman-compose uses, leaves that out.
    """
    if invocation.kind != "none" or "--" not in invocation.argv:
        return invocation
    at = invocation.argv.index("--")
    without = parse(invocation.argv[:at] + invocation.argv[at + 1 :], invocation.program)
    if without.kind == "none":
        return invocation
    doubt = "docker-compose does not tell which one it is, and one of them reads on after --"
    return invocation._replace(kind=without.kind, verb=without.verb, doubt=doubt)
