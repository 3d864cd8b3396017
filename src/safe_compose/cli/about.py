"""The verbs about the program itself: commands, about."""

from safe_compose import __version__
from safe_compose.cli import overview
from safe_compose.cli.options import AsJson, app, load_settings, print_json
from safe_compose.cli.verbs import VERBS
from safe_compose.fastpath import launch
from safe_compose.install import program
from safe_compose.ui import tables
from safe_compose.ui.table_layout import Cell


@app.command()
def commands(as_json: AsJson = False) -> None:
    """List our own verbs."""
    if as_json:
        shapes = [{"verb": name, "does": verb.does} for name, verb in VERBS.items()]
        print_json({"commands": shapes})
    else:
        overview.print_verbs()


@app.command()
def about(as_json: AsJson = False) -> None:
    """Show version, store and the docker that stands behind us."""
    settings = load_settings()
    facts = {
        "safe-compose": __version__,
        "launcher": program.describe_program(),
        "docker": launch.find_docker(),
        "store": str(settings.store),
    }
    if as_json:
        print_json(facts)
    else:
        tables.print_facts([(name, [Cell(fact)]) for name, fact in facts.items()])
