"""`peftune env`."""

from __future__ import annotations

import typer

from peftune.cli.console import JsonFlag, print_facts, print_json, quiet_libraries


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("env")(env)


def env(json: JsonFlag = False) -> None:
    """Print versions and hardware, for a report of a fault."""
    quiet_libraries()
    from peftune.runs.environment import environment

    facts = environment()
    if json:
        print_json(facts)
        return
    print_facts(
        "",
        [
            *((name, str(value)) for name, value in facts["versions"].items()),
            *((name, str(value)) for name, value in facts.items() if name != "versions"),
        ],
    )
