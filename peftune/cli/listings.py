"""`peftune strategies`, `probes`, `regularizers`, `recipes`, `schema` and `env`: what there is."""

from __future__ import annotations

import re
import shutil
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftune.cli.console import print_facts, print_json, print_rows, quiet_libraries, say
from peftune.cli.options import JsonFlag
from peftune.errors import OutputFolderError, RecipeError, UsageError, suggestion

if TYPE_CHECKING:
    from peftune.plugins import PluginGroup


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (strategies, probes, regularizers, recipes, schema, env):
        app.command(verb.__name__)(verb)


def plugin_rows(group: PluginGroup[Any]) -> list[dict[str, str]]:
    """Describe every plug-in of a group; a broken one by its error."""
    from peftune.configuration import keys_of

    loaded, broken = group.load_all()
    rows = []
    for name in group.names():
        if name in loaded:
            summary = _first_sentence(loaded[name].__doc__ or "no description")
            fields = ", ".join(keys_of(loaded[name])) or "-"
        else:
            summary, fields = f"BROKEN: {broken[name]}", "-"
        rows.append(
            {
                group.kind: name,
                "package": group.package_of(name),
                "what": summary,
                "fields": fields,
            }
        )
    return rows


def _first_sentence(text: str) -> str:
    """Return a docstring's first sentence, up to its first full stop or colon, on one line."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    return re.split(r"[.:](?:\s|$)", paragraph)[0]


def recipes(
    name: Annotated[str | None, typer.Argument(help="A shipped recipe.")] = None,
    copy_to: Annotated[Path | None, typer.Option(help="Folder to copy it to.")] = None,
    json: JsonFlag = False,
) -> None:
    """List the shipped recipes, print one, or copy it to a folder of your own."""
    from peftune.recipe.recipe_files import shipped_recipes

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


def schema(
    report: Annotated[
        bool, typer.Option("--report", help="The schema of report.json instead.")
    ] = False,
) -> None:
    """Print the JSON schema of recipes, for editors, or that of reports, for programs."""
    if report:
        shipped = resources.files("peftune") / "experiments" / "report.schema.json"
        say(shipped.read_text(encoding="utf-8").removesuffix("\n"))
        return
    from peftune.recipe.schema import recipe_json_schema

    print_json(recipe_json_schema())


def env(json: JsonFlag = False) -> None:
    """Print versions and hardware, for a report of a fault."""
    quiet_libraries()
    from peftune.experiments.environment import environment

    facts = environment()
    if json:
        print_json(facts)
        return
    print_facts(
        "",
        [
            *((name, str(value)) for name, value in facts["versions"].items()),
            *((name, str(value)) for name, value in facts.items() if name != "versions"),
        ],
    )


def probes(json: JsonFlag = False) -> None:
    """List the installed probes with their fields, and plug-ins that are broken."""
    from peftune.probes import PROBES

    print_rows(plugin_rows(PROBES), as_json=json)


def strategies(json: JsonFlag = False) -> None:
    """List the installed strategies with their fields, and plug-ins that are broken."""
    from peftune.strategies import STRATEGIES

    print_rows(plugin_rows(STRATEGIES), as_json=json)


def regularizers(json: JsonFlag = False) -> None:
    """List the installed regularizers with their fields, and plug-ins that are broken."""
    from peftune.regularizers import REGULARIZERS

    print_rows(plugin_rows(REGULARIZERS), as_json=json)
