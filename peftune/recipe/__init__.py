"""Recipes: one file says what a run is. Light: importing it loads no torch."""

from peftune.recipe.overrides import Overrides
from peftune.recipe.reader import read_for_each, read_probe, read_recipe
from peftune.recipe.resolve import recipe_sha256, resolve, with_strategy, write_recipe
from peftune.recipe.schema import Recipe
from peftune.recipe.yaml_document import Fault

__all__ = [
    "Fault",
    "Overrides",
    "Recipe",
    "read_for_each",
    "read_probe",
    "read_recipe",
    "recipe_sha256",
    "resolve",
    "with_strategy",
    "write_recipe",
]
