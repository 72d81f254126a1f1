"""`peftune validate`."""

from __future__ import annotations

import typer

from peftune import api
from peftune.cli.console import print_json, say
from peftune.cli.options import JsonFlag, OverridesArgument, RecipeArgument


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("validate")(validate)


def validate(
    recipe: RecipeArgument, overrides: OverridesArgument = None, json: JsonFlag = False
) -> None:
    """Check a recipe against the schema, without loading a model or reading data."""
    from peftune.recipe import recipe_sha256
    from peftune.recipe.resolve import recipe_values

    resolved = api.validate(recipe, overrides=overrides or ())
    if json:
        values = {"recipe_sha256": recipe_sha256(resolved), "recipe": recipe_values(resolved)}
        print_json({"valid": True, **values})
    else:
        say(
            f"{recipe}: valid. Strategy {resolved.strategy.name}, learning rate {resolved.training.learning_rate:g}, base {resolved.model.name_or_path}."
        )
