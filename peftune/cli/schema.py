"""`peftune schema`."""

from __future__ import annotations

import typer

from peftune.cli.console import print_json


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("schema")(schema)


def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    from peftune.recipe.json_schema import recipe_json_schema

    print_json(recipe_json_schema())
