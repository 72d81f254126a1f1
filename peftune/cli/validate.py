"""`peftune validate`."""

from __future__ import annotations

import typer

from peftune.cli.console import JsonFlag, print_json, say
from peftune.cli.run import OverridesArgument, RecipeArgument


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("validate")(validate)


def validate(
    recipe: RecipeArgument, overrides: OverridesArgument = None, json: JsonFlag = False
) -> None:
    """Check a recipe against the schema, without loading a model or reading data."""
    from peftune.recipe import read_recipe, recipe_sha256, resolve
    from peftune.recipe.resolve import recipe_values

    resolved = resolve(read_recipe(recipe, overrides or ()))
    if json:
        print_json(
            {
                "valid": True,
                "recipe_sha256": recipe_sha256(resolved),
                "recipe": recipe_values(resolved),
            }
        )
    else:
        say(
            f"{recipe}: valid. Strategy {resolved.strategy.name}, learning rate {resolved.training.learning_rate:g}, base {resolved.model.name_or_path}."
        )
