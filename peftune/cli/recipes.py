"""`peftune recipes`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from peftune.cli.console import JsonFlag, print_rows, say
from peftune.errors import OutputFolderError, RecipeError, UsageError, suggestion


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("recipes")(recipes)


def recipes(
    name: Annotated[str | None, typer.Argument(help="A shipped recipe.")] = None,
    copy_to: Annotated[Path | None, typer.Option(help="Folder to copy it to.")] = None,
    json: JsonFlag = False,
) -> None:
    """List the shipped recipes, print one, or copy it to a folder of your own."""
    from peftune.recipe.locate import shipped_recipes

    shipped = shipped_recipes()
    if name is None:
        if copy_to is not None:
            message = "--copy-to needs the name of a recipe."
            raise UsageError(message)
        rows = [{"recipe": key, "what": _first_line(path)} for key, path in shipped.items()]
        print_rows(rows, as_json=json)
        return
    if name not in shipped:
        message = f"Unknown recipe '{name}'. {suggestion(name, shipped)}"
        raise RecipeError(message)
    if copy_to is None:
        say(shipped[name].read_text(encoding="utf-8").removesuffix("\n"))
        return
    target = copy_to / shipped[name].name
    if target.exists():
        message = f"'{target}' exists and is not overwritten. Choose another folder."
        raise OutputFolderError(message)
    copy_to.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(shipped[name], target)
    say(f"Copied to {target}")


def _first_line(path: Path) -> str:
    return path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
