"""`peftune schema`."""

from __future__ import annotations

from importlib import resources
from typing import Annotated

import typer

from peftune.cli.console import print_json, say


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("schema")(schema)


def schema(
    report: Annotated[
        bool, typer.Option("--report", help="The schema of report.json instead.")
    ] = False,
) -> None:
    """Print the JSON schema of recipes, for editors, or that of reports, for programs."""
    if report:
        shipped = resources.files("peftune") / "runs" / "report.schema.json"
        say(shipped.read_text(encoding="utf-8").removesuffix("\n"))
        return
    from peftune.recipe.json_schema import recipe_json_schema

    print_json(recipe_json_schema())
