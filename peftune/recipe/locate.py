"""Find a recipe, and the files that it names."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar

from peftune.errors import RecipeError, suggestion
from peftune.recipe.positions import KeyPath
from peftune.recipe.schema import DataSection, ForgettingSection, Recipe
from peftune.sources import TextSource

Source = TypeVar("Source", bound=TextSource)


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes that come with peftune, by name."""
    folder = Path(str(files("peftune.recipes")))
    return dict(sorted((path.stem, path) for path in folder.glob("*.yaml")))


def find_recipe(source: str | Path) -> tuple[Path, str]:
    """Find a recipe file by path, or a shipped one by name.

    Returns:
        The file, and how to call it in messages.

    Raises:
        RecipeError: there is no such file and no shipped recipe of that name.
    """
    path = Path(source)
    if _is(path, "file"):
        return path, str(source)
    shipped = shipped_recipes()
    if str(source) in shipped:
        return shipped[str(source)], f"{source} (shipped recipe)"
    message = f"{source}: there is no such recipe file or shipped recipe. {suggestion(path.stem, shipped)}"
    raise RecipeError(message)


def anchor_paths(recipe: Recipe, *, folder: Path, overridden: set[KeyPath]) -> Recipe:
    """Make the file paths of a recipe absolute.

    Args:
        recipe: the recipe as written.
        folder: folder of the recipe file, which relative paths in it start from.
        overridden: keys set on the command line; their paths may start from the working folder.
    """

    def anchored(value: str, path: KeyPath) -> str:
        given = Path(os.path.expanduser(value))  # noqa: PTH111 - Path's own fails on '~nobody'
        typed = any(path[:length] in overridden for length in range(1, len(path) + 1))
        if typed and (_is(given, "file") or _is(given, "folder")):
            return str(given.resolve())
        return os.path.normpath(folder / given)

    base, init = recipe.model.name_or_path, recipe.model.init_from
    model: dict[str, Any] = {
        "name_or_path": _folder_or_id(base, anchored(base, ("model", "name_or_path")))
    }
    if init is not None:
        model["init_from"] = anchored(init, ("model", "init_from"))
    stages = tuple(
        stage.model_copy(
            update={"data": _anchored_data(stage.data, ("stages", index, "data"), anchored)}
        )
        for index, stage in enumerate(recipe.stages)
    )
    return recipe.model_copy(
        update={
            "data": _anchored_data(recipe.data, ("data",), anchored),
            "model": recipe.model.model_copy(update=model),
            "stages": stages,
            "forgetting": _anchored_texts(recipe.forgetting, anchored),
        }
    )


def _anchored_data(
    section: DataSection, path: KeyPath, anchored: Callable[[str, KeyPath], str]
) -> DataSection:
    """Make the files of rows absolute."""
    data: dict[str, Any] = {}
    for key in ("train_file", "validation_file", "test_file"):
        value = getattr(section, key)
        if value is not None:
            data[key] = anchored(value, (*path, key))
    if section.dataset_name is not None:
        data["dataset_name"] = _folder_or_id(
            section.dataset_name, anchored(section.dataset_name, (*path, "dataset_name"))
        )
    return section.model_copy(update=data)


def _anchored_texts(
    section: ForgettingSection, anchored: Callable[[str, KeyPath], str]
) -> ForgettingSection:
    """Make the files that probes and regularisers read absolute."""

    def text(source: Source, *path: str | int) -> Source:
        if source.file is None:
            return source
        return source.model_copy(
            update={"file": anchored(source.file, ("forgetting", *path, "file"))}
        )

    changed: dict[str, Any] = {
        "probes": tuple(
            text(probe, "probes", index) for index, probe in enumerate(section.probes)
        ),
        "regularizers": tuple(
            term.model_copy(
                update={
                    field: text(source, "regularizers", index, field)
                    for field, source in term.sources().items()
                }
            )
            for index, term in enumerate(section.regularizers)
        ),
    }
    if section.during_training is not None:
        probe = text(section.during_training.probe, "during_training", "probe")
        changed["during_training"] = section.during_training.model_copy(update={"probe": probe})
    return section.model_copy(update=changed)


def _folder_or_id(name: str, path: str) -> str:
    """A name that looks like a path, or that is a folder beside the recipe, is that folder."""
    looks_local = name.startswith((".", "/", "~"))
    return path if looks_local or _is(Path(path), "folder") else name


def _is(path: Path, kind: Literal["file", "folder"]) -> bool:
    """Say whether there is such a file or folder; a name that cannot be one is none."""
    try:
        return path.is_file() if kind == "file" else path.is_dir()
    except (OSError, ValueError):
        return False
