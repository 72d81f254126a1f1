"""Pitfalls that a run shows by itself, each with advice."""

from __future__ import annotations

from peftune.runs.report import Finding, Forgetting
from peftune.training.learning import Learning, learned_something
from peftune.training.train import TrainingResult

_MANY_TRUNCATED = 0.05


def find_pitfalls(
    *,
    learning: Learning,
    forgetting: Forgetting,
    training: TrainingResult,
    train_rows: int,
    max_length: int,
) -> list[Finding]:
    """List what a careful reader should know before believing the numbers."""
    findings = []
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
                f"{training.truncated} of {train_rows} training texts are longer than {max_length} tokens and were cut.",
                "Raise model.max_length.",
            )
        )
    return findings
