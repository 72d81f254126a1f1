"""`peftune probes`."""

from __future__ import annotations

import typer

from peftune.cli.console import JsonFlag, print_rows
from peftune.cli.plugins import plugin_rows


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("probes")(probes)


def probes(json: JsonFlag = False) -> None:
    """List the installed probes with their fields, and plug-ins that are broken."""
    from peftune.probes import PROBES

    print_rows(plugin_rows(PROBES), as_json=json)
