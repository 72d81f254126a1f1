"""`peftune check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import peftune
from peftune.cli.console import print_cleaning, print_json, print_rows, quiet_libraries, say
from peftune.cli.options import JsonFlag, OverridesArgument, RecipeArgument

if TYPE_CHECKING:
    from peftune.experiments.learning_curve_results import LearningCurve
    from peftune.findings.finding import CheckReport, Status

_WORDS: dict[Status, str] = {"pass": "PASS", "warn": "WARN", "fail": "FAIL"}

_SHOWN = 10
"""Rows with a wrong label that are printed."""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("check")(check)


def check(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    learning_curve: Annotated[
        bool,
        typer.Option(
            "--learning-curve",
            help="Then train on an eighth, a quarter, half and all of the rows: is more data worth it?",
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the learning curve; otherwise the recipe's output_dir with '-learning-curve'."
        ),
    ] = None,
    label_noise: Annotated[
        bool,
        typer.Option(
            "--label-noise",
            help="Look for wrong labels in train, too: the base reads every text once. Needs 'peftune[label-noise]'.",
        ),
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Look for faults in the data of a recipe, with row numbers; train only for --learning-curve."""
    quiet_libraries()
    report = peftune.check(recipe, overrides=overrides or (), label_noise=label_noise)
    curve = None
    if learning_curve and not report.exit_code:
        curve = peftune.learning_curve(recipe, overrides=overrides or (), output=output)
    if json:
        values = report.as_json()
        print_json(values if curve is None else {**values, "learning_curve": curve.as_json()})
    else:
        for result in report.results:
            advice = f"\n     {result.advice}" if result.advice else ""
            say(f"{_WORDS[result.status]} {result.code}: {result.message}{advice}")
        _print_suspects(report)
        print_cleaning(report)
        found = [f"{len(report.with_status(status))} {word}" for status, word in _WORDS.items()]
        say(f"\n{', '.join(found)}")
        if curve is not None:
            _print_curve(curve)
    raise typer.Exit(report.exit_code)


def _print_suspects(report: CheckReport) -> None:
    """Print the first rows whose label is probably wrong, and where to find all."""
    found = getattr(report, "label_noise", None)
    if found is None or not found.rows:
        return
    say("")
    rows = [
        {"train row": suspect.row, "label": suspect.given, "likelier": suspect.likely}
        for suspect in found.rows[:_SHOWN]
    ]
    print_rows(rows, as_json=False)
    if found.suspects > _SHOWN:
        say(f"The {_SHOWN} likeliest of {found.suspects:,}; --json lists the others.")


def _print_curve(curve: LearningCurve) -> None:
    from peftune.experiments.learning_curve import PLOT
    from peftune.experiments.learning_curve_results import LEGEND, curve_rows

    say("")
    print_rows(curve_rows(curve), as_json=False)
    say(f"\n{LEGEND}\n\n{curve.answer}\nPlot: {curve.folder / PLOT}")
