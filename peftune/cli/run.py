"""`peftune run`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peftune.cli.console import JsonFlag, print_json, print_rows, quiet_libraries, say
from peftune.errors import UsageError

if TYPE_CHECKING:
    from peftune.experiments import Finding, Run
    from peftune.findings import CheckReport
    from peftune.recipe.overrides import Assignment

RecipeArgument = Annotated[
    str, typer.Argument(help="Recipe file, or the name of a shipped recipe.")
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Recipe keys to set, such as training.seed=1."),
]

SeedOption = Annotated[
    int | None, typer.Option(help="Seed of the training, as the override training.seed=N.")
]


def seeded(overrides: Sequence[str] | None, seed: int | None) -> Sequence[str | Assignment]:
    """Add `--seed` to the overrides.

    Raises:
        UsageError: an override names another seed.
    """
    if seed is None:
        return overrides or ()
    from peftune.recipe.overrides import Assignment, read_overrides
    from peftune.recipe.yaml_document import Place

    path = ("training", "seed")
    for one in read_overrides(overrides or ()):
        section = one.value if one.path == path[:1] and isinstance(one.value, dict) else {}
        other = one.value if one.path == path else section.get("seed", seed)
        if other != seed:
            message = f"--seed is {seed}, but {one.place} names the seed {other}. Leave one of the two out."
            raise UsageError(message)
    return [*(overrides or ()), Assignment(path, seed, "training.seed", Place(f"--seed {seed}"))]


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
    from peftune.experiments import run as run_recipe
    from peftune.experiments.compare.table import facts_of, legend_of
    from peftune.experiments.report import check_budget
    from peftune.experiments.run_evidence import read_evidence
    from peftune.recipe import read_recipe
    from peftune.reporting import write_reports

    chosen = read_recipe(recipe, seeded(overrides, seed), strategy=strategy)
    result = run_recipe(chosen, output=output)
    written = write_reports(None, [read_evidence(result.folder)], (), result.folder)
    if json:
        print_json(result.as_json())
    else:
        print_rows(
            [{"": name, result.run.strategy: value} for name, value in facts_of(result)],
            as_json=False,
        )
        say(f"\n{legend_of(result)}")
        _print_findings(result.findings)
        _print_checks(result.checks)
        say(f"\nReport: {written.page}\n{_what_is_left(result)}")
    check_budget([result], chosen.forgetting.budget)


def _what_is_left(result: Run) -> str:
    return f"Folds: {result.folder / 'folds'}" if result.folds else f"To share: {result.artifact}"


def _print_findings(findings: Sequence[Finding]) -> None:
    for finding in findings:
        say(f"\n{finding.severity}: {finding.message} {finding.advice}")


def _print_checks(checks: CheckReport) -> None:
    """Print what the checks of the data warn of; a failed one stops the run before this."""
    for result in checks.with_status("warn"):
        say(f"\nwarning, {result.code}: {result.message} {result.advice}".rstrip())
    print_cleaning(checks)


def print_cleaning(checks: CheckReport) -> None:
    """Print what each step of `data.clean` did, so that no row leaves in silence."""
    from peftune.data.cells import counted
    from peftune.data.cleaning import LEAVES_OUT

    if checks.cleaned:
        say("")
    for count in checks.cleaned:
        left_out = count.step in LEAVES_OUT
        rows = counted(count.dropped if left_out else count.changed, "row")
        say(f"cleaned {count.split}: {count.step} {'left out' if left_out else 'changed'} {rows}")
