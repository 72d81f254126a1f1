"""`peftune fewshot`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peftune.cli.compare import listed
from peftune.cli.console import JsonFlag, print_json, print_rows, quiet_libraries, say
from peftune.cli.run import OverridesArgument, RecipeArgument
from peftune.errors import UsageError


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
    from peftune.baselines.few_shot import fewshot as prompt_base

    found = prompt_base(
        recipe,
        shots=[_number(shot) for shot in listed(shots, "--shots")],
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


def _number(text: str) -> int:
    if not text.isdecimal():
        message = f"--shots takes whole numbers separated by commas (got '{text}')."
        raise UsageError(message)
    return int(text)
