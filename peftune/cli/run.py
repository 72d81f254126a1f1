"""`peftune run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peftune import api
from peftune.cli.console import print_checks, print_json, print_rows, quiet_libraries, say
from peftune.cli.options import JsonFlag, OverridesArgument, RecipeArgument, SeedOption, seeded
from peftune.errors import GateError

if TYPE_CHECKING:
    from peftune.experiments import Run


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("run")(run)


def run(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    strategy: Annotated[
        str | None, typer.Option(help="Strategy in the place of the recipe's own.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Run folder in the place of the recipe's output_dir.")
    ] = None,
    seed: SeedOption = None,
    json: JsonFlag = False,
) -> None:
    """Train, evaluate and measure forgetting: one recipe, one strategy, one seed."""
    quiet_libraries()
    try:
        result = api.run(
            recipe, overrides=seeded(overrides, seed), strategy=strategy, output=output
        )
    except GateError as error:
        if error.run is not None:
            _print(error.run, as_json=json)
        raise
    _print(result, as_json=json)


def _print(result: Run, *, as_json: bool) -> None:
    from peftune.experiments.compare.summary import facts_of, legend_of

    if as_json:
        print_json(result.as_json())
        return
    rows = [{"": name, result.run.strategy: value} for name, value in facts_of(result)]
    print_rows(rows, as_json=False)
    say(f"\n{legend_of(result)}")
    for finding in result.findings:
        say(f"\n{finding.severity}: {finding.message} {finding.advice}")
    print_checks(result.checks)
    left = f"Folds: {result.folder / 'folds'}" if result.folds else f"To share: {result.artifact}"
    say(f"\nReport: {result.report}\n{left}")
