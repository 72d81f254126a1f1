"""`peftune tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import peftune
from peftune.cli.console import print_json, print_rows, quiet_libraries, say
from peftune.cli.options import (
    JsonFlag,
    OverridesArgument,
    RecipeArgument,
    SeedOption,
    listed,
    seeded,
)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("tune")(tune)


def tune(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    strategies: Annotated[
        str | None,
        typer.Option(help="Strategy names, separated by commas; otherwise the recipe's own."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the study; otherwise the recipe's output_dir with '-tune'. Several processes may share it."
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Trials of each strategy, in the place of tune.trials.")
    ] = None,
    seed: SeedOption = None,
    json: JsonFlag = False,
) -> None:
    """Search hyper-parameters on the validation rows, with equal effort for each strategy."""
    quiet_libraries()
    from peftune.experiments.tune.tuning_results import LEGEND, notes_of, tuning_rows

    tuning = peftune.tune(
        recipe,
        strategies=() if strategies is None else listed(strategies, "--strategies"),
        overrides=seeded(overrides, seed),
        output=output,
        trials=trials,
    )
    if json:
        print_json(tuning.as_json())
    else:
        print_rows(tuning_rows(tuning), as_json=False)
        say(f"\n{LEGEND}\n")
        for line in notes_of(tuning):
            say(line)
    if not all(tuned.best for tuned in tuning.strategies):
        raise typer.Exit(1)
