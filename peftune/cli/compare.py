"""`peftune compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peftune.cli.console import JsonFlag, print_json, print_rows, quiet_libraries, say
from peftune.cli.run import OverridesArgument, RecipeArgument, print_cleaning
from peftune.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("compare")(compare)


def compare(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    strategies: Annotated[
        str, typer.Option(help="Strategy names, separated by commas.")
    ] = "full,lora,lora-8bit",
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
    from peftune.experiments.compare import compare as compare_strategies
    from peftune.experiments.compare.table import baseline_rows, legend, standing_rows
    from peftune.experiments.report import check_budget
    from peftune.reporting import write_missing_reports, write_reports

    comparison = compare_strategies(
        recipe,
        strategies=listed(strategies, "--strategies"),
        seeds=[_seed(seed) for seed in listed(seeds, "--seeds")],
        overrides=overrides or (),
        output=output,
        jobs=jobs,
    )
    write_missing_reports(comparison.evidence)
    if comparison.runs:
        written = write_reports(
            comparison.summary,
            comparison.clean,
            comparison.failures,
            comparison.folder,
            findings=comparison.findings,
        )
    if json:
        print_json(comparison.as_json())
    else:
        if comparison.summary is not None:
            print_rows(standing_rows(comparison.summary), as_json=False)
            say("")
            print_rows(baseline_rows(comparison.summary), as_json=False)
            say(f"\n{legend(comparison.summary)}\n\n{comparison.summary.answer}\n")
        for finding in comparison.findings:
            say(f"{finding.severity}: {finding.message} {finding.advice}\n")
        for failure in comparison.failures:
            say(f"{failure.strategy}, seed {failure.seed} failed: {failure.message}")
        say(f"Runs: {comparison.folder}")
        if comparison.runs:
            print_cleaning(comparison.runs[0].checks)
            say(f"Report: {written.page}")
    if comparison.failures:
        raise typer.Exit(1)
    check_budget(comparison.runs, comparison.budget)


def listed(text: str, option: str) -> list[str]:
    """Read values separated by commas.

    Raises:
        UsageError: there is none.
    """
    values = [value.strip() for value in text.split(",") if value.strip()]
    if not values:
        message = f"{option} takes values separated by commas (got '{text}')."
        raise UsageError(message)
    return values


def _seed(text: str) -> int:
    if not text.isdecimal():
        message = f"--seeds takes whole numbers separated by commas (got '{text}')."
        raise UsageError(message)
    return int(text)
