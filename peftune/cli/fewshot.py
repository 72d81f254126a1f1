"""`peftune fewshot`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import peftune
from peftune.cli.console import print_json, print_rows, quiet_libraries, say
from peftune.cli.options import JsonFlag, OverridesArgument, RecipeArgument, listed_numbers


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("fewshot")(fewshot)


def fewshot(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    shots: Annotated[
        str, typer.Option(help="Numbers of examples in a prompt, separated by commas.")
    ] = "0,4,16",
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for fewshot.json with every answer; otherwise none is written."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Prompt the untuned base with labeled examples, without any training, and score its answers."""
    quiet_libraries()
    from peftune.baselines.few_shot import LEGEND, few_shot_rows, notes_of

    found = peftune.fewshot(
        recipe,
        shots=listed_numbers(shots, "--shots"),
        overrides=overrides or (),
        output=output,
    )
    if json:
        print_json(found.as_json())
        return
    print_rows(few_shot_rows(found), as_json=False)
    say(f"\n{LEGEND}\n")
    for line in notes_of(found):
        say(line)
