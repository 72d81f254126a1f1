"""Pitfalls that a run shows by itself, each with advice."""

from __future__ import annotations

import math

from peftune.recipe.schema import DuringTrainingSection, Recipe
from peftune.runs.report import Finding, Forgetting
from peftune.training.forgetting_callback import KEY
from peftune.training.learning import Learning, learned_something
from peftune.training.train import TrainingResult

_MANY_TRUNCATED = 0.05


def find_pitfalls(
    *,
    learning: Learning,
    forgetting: Forgetting,
    training: TrainingResult,
    recipe: Recipe,
    train_rows: int,
) -> list[Finding]:
    """List what a careful reader should know before believing the numbers."""
    findings = []
    budget = recipe.forgetting.budget
    least = _least_forgetting(training, recipe.forgetting.during_training)
    if budget is not None and least is not None and least > budget:
        findings.append(
            Finding(
                "over-budget",
                "warning",
                f"Every checkpoint forgot more than the budget of {budget:g} bits per byte on the text measured during training, at least {least:+.4f}. None could be chosen, so the weights are those of the last step.",
                "Hold forgetting down with forgetting.regularizers, lower training.learning_rate, evaluate more often, or raise forgetting.budget.",
            )
        )
    if forgetting.controls.get("adapter_off_forgetting") not in (None, 0.0):
        findings.append(
            Finding(
                "control-failed",
                "error",
                f"With the adapter off the model is not the base: a change of {forgetting.controls['adapter_off_forgetting']:.3g} bits per byte remains.",
                "Do not use the forgetting figures; the strategy changes weights that it does not declare.",
            )
        )
    if not learned_something(learning):
        findings.append(
            Finding(
                "nothing-learned",
                "warning",
                f"The accuracy of {learning.accuracy:.3f} is not clearly above the majority class.",
                "Raise training.learning_rate or num_train_epochs, or check the labels; forgetting says nothing without learning.",
            )
        )
    if learning.split == "validation":
        findings.append(
            Finding(
                "scored-on-validation",
                "warning",
                "There are no test rows, so the final score is of the rows that chose the best checkpoint, and is too high.",
                "Set data.test_file or data.test_split.",
            )
        )
    if training.truncated > _MANY_TRUNCATED * train_rows:
        findings.append(
            Finding(
                "truncation",
                "warning",
                f"{training.truncated} of {train_rows} training texts are longer than {recipe.model.max_length} tokens and were cut.",
                "Raise model.max_length.",
            )
        )
    return findings


def _least_forgetting(
    training: TrainingResult, watched: DuringTrainingSection | None
) -> float | None:
    """Return the smallest value that was measured during training; None where none was."""
    if watched is None:
        return None
    key = f"{KEY}{watched.probe.label}"
    found = [point[key] for point in training.curve if key in point]
    return min((math.inf if math.isnan(value) else value for value in found), default=None)
