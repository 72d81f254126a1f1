"""`peftune check`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import typer

from peftune.cli.console import JsonFlag, print_json, quiet_libraries
from peftune.cli.run import OverridesArgument, RecipeArgument

if TYPE_CHECKING:
    from peftune.checks.result import Status

_WORDS: dict[Status, str] = {"pass": "PASS", "warn": "WARN", "fail": "FAIL"}


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("check")(check)


def check(
    recipe: RecipeArgument, overrides: OverridesArgument = None, json: JsonFlag = False
) -> None:
    """Look for faults in the data of a recipe, with row numbers, without training."""
    quiet_libraries()
    from peftune.checks import check as check_recipe

    report = check_recipe(recipe, overrides=overrides or ())
    if json:
        print_json(dataclasses.asdict(report))
    else:
        for result in report.results:
            advice = f"\n     {result.advice}" if result.advice else ""
            typer.echo(f"{_WORDS[result.status]} {result.code}: {result.message}{advice}")
        for count in report.cleaned:
            typer.echo(
                f"cleaned {count.split}: {count.step} changed {count.changed} rows and left out {count.dropped}"
            )
        found = [f"{len(report.with_status(status))} {word}" for status, word in _WORDS.items()]
        typer.echo(f"\n{', '.join(found)}")
    raise typer.Exit(report.exit_code)
