"""Recipes: one file says what a run is. Light: importing it loads no torch."""

from peftune.recipe.overrides import Overrides
from peftune.recipe.positions import Fault
from peftune.recipe.probe import read_probe
from peftune.recipe.reader import read_for_each, read_recipe
from peftune.recipe.resolve import resolve, with_strategy
from peftune.recipe.schema import Recipe
from peftune.recipe.writer import recipe_sha256, write_recipe

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
