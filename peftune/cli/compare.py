"""`peftune compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peftune import api
from peftune.cli.console import print_cleaning, print_json, print_rows, quiet_libraries, say
from peftune.cli.options import JsonFlag, OverridesArgument, RecipeArgument, listed, listed_numbers
from peftune.errors import GateError

if TYPE_CHECKING:
    from peftune.experiments.compare import Comparison


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("compare")(compare)


def compare(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    strategies: Annotated[
        str, typer.Option(help="Strategy names, separated by commas.")
    ] = ",".join(api.STRATEGIES),
    seeds: Annotated[str, typer.Option(help="Seeds of the training, separated by commas.")] = "0",
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the runs; otherwise the recipe's output_dir with '-compare'."
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option(help="Runs at the same time; their seconds are then no comparison.")
    ] = 1,
    json: JsonFlag = False,
) -> None:
    """Run what is missing of strategies x seeds, and say which strategy to use."""
    quiet_libraries()
    try:
        comparison = api.compare(
            recipe,
            strategies=listed(strategies, "--strategies"),
            seeds=listed_numbers(seeds, "--seeds"),
            overrides=overrides or (),
            output=output,
            jobs=jobs,
        )
    except GateError as error:
        if error.comparison is None:
            raise
        _print(error.comparison, as_json=json)
        if not error.comparison.failures:
            raise
        comparison = error.comparison
    else:
        _print(comparison, as_json=json)
    if comparison.failures:
        raise typer.Exit(1)


def _print(comparison: Comparison, *, as_json: bool) -> None:
    from peftune.experiments.compare.summary import baseline_rows, legend, standing_rows

    if as_json:
        print_json(comparison.as_json())
        return
    if comparison.summary is not None:
        print_rows(standing_rows(comparison.summary), as_json=False)
        say("")
        print_rows(baseline_rows(comparison.summary), as_json=False)
        say(f"\n{legend(comparison.summary)}\n\n{comparison.answer}\n")
    for finding in comparison.findings:
        say(f"{finding.severity}: {finding.message} {finding.advice}\n")
    for failure in comparison.failures:
        say(f"{failure.strategy}, seed {failure.seed} failed: {failure.message}")
    for one in comparison.runs[:1]:
        print_cleaning(one.checks)
    say(f"Runs: {comparison.folder}")
    if comparison.runs:
        say(f"Report: {comparison.report}")
