"""`peftune strategies`."""

from __future__ import annotations

import typer

from peftune.cli.console import JsonFlag, print_rows
from peftune.cli.plugins import plugin_rows


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("strategies")(strategies)


def strategies(json: JsonFlag = False) -> None:
    """List the installed strategies with their fields, and plug-ins that are broken."""
    from peftune.strategies import STRATEGIES

    print_rows(plugin_rows(STRATEGIES), as_json=json)
