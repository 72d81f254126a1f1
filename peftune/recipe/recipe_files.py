"""Find a recipe, and the files that it names."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Literal

from peftune.configuration import PathInRecipe, with_paths
from peftune.errors import RecipeError, suggestion
from peftune.files.reading import given_name, given_path
from peftune.recipe.schema import Recipe
from peftune.recipe.yaml_document import KeyPath, dotted

_ROWS = (".csv", ".tsv", ".jsonl", ".parquet", ".arrow", ".txt")
"""Endings of files that hold rows, and never a recipe; a .json may be either."""

_PROGRAMS = (".py", ".ipynb", ".sh")

_LOOKED_AT = 2**16
"""Bytes of a file that are looked at to see what it is; a recipe is no longer."""


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes that come with peftune, by name."""
    folder = Path(str(files("peftune.recipes")))
    return dict(sorted((path.stem, path) for path in folder.glob("*.yaml")))


def find_recipe(source: str | Path) -> tuple[Path, str]:
    """Find a recipe file by path, or a shipped one by name.

    Returns:
        The file, and how to call it in messages.

    Raises:
        RecipeError: there is no such file and no shipped recipe of that name, or it is something
            else: rows, a program, a folder.
    """
    path = given_path(source, "recipe")
    if _is(path, "file"):
        _refuse_other_file(path, str(source))
        return path, str(source)
    shipped = shipped_recipes()
    if str(source) in shipped:
        return shipped[str(source)], f"{source} (shipped recipe)"
    if _is(path, "folder"):
        raise RecipeError(_not_a_recipe_folder(path, str(source)))
    message = f"{source}: there is no such recipe file or shipped recipe. {suggestion(path.stem, shipped)}"
    raise RecipeError(message)


def _refuse_other_file(path: Path, shown: str) -> None:
    """Refuse a file that people give in the place of a recipe, by what it is.

    Raises:
        RecipeError: it holds rows, or a program.
    """
    kind = path.suffix.lower()
    rows = kind in _ROWS or (kind == ".json" and not _mentions(path, b'"version"'))
    if rows:
        message = f"{shown}: this is a file of rows, not a recipe. To learn from it: peftune run local-csv data.train_file={shown}"
        raise RecipeError(message)
    if kind in _PROGRAMS:
        message = f"{shown}: this is a program, not a recipe, which is a YAML file. Run a script of your own with python {shown}"
        raise RecipeError(message)


def _not_a_recipe_folder(folder: Path, shown: str) -> str:
    """Say what a folder is that was given in the place of a recipe."""
    names = {path.name for path in folder.iterdir()}
    recipes = sorted(name for name in names if name.endswith((".yaml", ".yml")))
    if "recipe.yaml" in names:
        return f"{shown}: this is a run folder, not a recipe. Its recipe: {folder / 'recipe.yaml'}"
    if names & {"adapter_config.json", "peftune.json"}:
        return f"{shown}: this is an artifact, not a recipe. To start from it: peftune run RECIPE model.init_from={shown}; to use it: peftune predict {shown} --text TEXT"
    if "config.json" in names:
        return f"{shown}: this is a model, not a recipe. To learn on it: peftune run RECIPE model.name_or_path={shown}"
    if names & {"dataset_dict.json", "dataset_info.json"} or any(
        Path(name).suffix.lower() in (*_ROWS, ".json") for name in names
    ):
        return f"{shown}: this is a folder of rows, not a recipe. To learn from it: peftune run local-csv data.train_file=null data.dataset_name={shown}"
    inside = f" It holds {', '.join(recipes)}." if recipes else ""
    return f"{shown}: this is a folder; name a recipe file, or a shipped recipe.{inside}"


def _mentions(path: Path, word: bytes) -> bool:
    with path.open("rb") as file:
        return word in file.read(_LOOKED_AT)


def anchor_paths(recipe: Recipe, *, folder: Path, overridden: set[KeyPath]) -> Recipe:
    """Make the file paths of a recipe absolute.

    Args:
        recipe: the recipe as written.
        folder: folder of the recipe file, which relative paths in it start from.
        overridden: keys set on the command line; their paths may start from the working folder.
    """

    def anchored(value: str, path: KeyPath, marker: PathInRecipe) -> str:
        given = Path(os.path.expanduser(given_name(value, dotted(path))))  # noqa: PTH111 - Path's own fails on '~nobody'
        typed = any(path[:length] in overridden for length in range(1, len(path) + 1))
        here = typed and (_is(given, "file") or _is(given, "folder"))
        absolute = str(given.resolve()) if here else os.path.normpath(folder / given)
        looks_local = value.startswith((".", "/", "~"))
        is_name = marker.or_name and not looks_local and not _is(Path(absolute), "folder")
        return value if is_name else absolute

    given_path(recipe.output_dir, "output_dir")
    return with_paths(recipe, anchored)


def _is(path: Path, kind: Literal["file", "folder"]) -> bool:
    """Say whether there is such a file or folder; a name that cannot be one is none."""
    try:
        return path.is_file() if kind == "file" else path.is_dir()
    except (OSError, ValueError):
        return False
