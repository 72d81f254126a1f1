"""The kinds of task, and what of a recipe belongs to which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from peftune.errors import DataError, suggestion
from peftune.recipe.data import DataSection
from peftune.recipe.training import TrainingSection

TaskName = Literal["single-label", "multi-label", "regression", "language-modeling"]

CLASSIFICATION = ("single-label", "multi-label")
_WITHOUT_HEAD = ("language-modeling",)

METRICS: dict[str, tuple[str, ...]] = {
    "single-label": (
        "macro_f1",
        "accuracy",
        "balanced_accuracy",
        "weighted_f1",
        "micro_f1",
        "binary_f1",
        "mcc",
        "roc_auc",
        "log_loss",
        "loss",
    ),
    "multi-label": (
        "macro_f1",
        "accuracy",
        "micro_f1",
        "weighted_f1",
        "roc_auc",
        "log_loss",
        "loss",
    ),
    "regression": ("mse", "mae", "pearson", "spearman", "loss"),
    "language-modeling": ("loss",),
}
"""Metrics that may choose the best checkpoint, by task; the first is the one that does by default."""


def has_head(task: TaskName) -> bool:
    """Say whether a task puts a head of its own on the backbone, rather than train the backbone alone."""
    return task not in _WITHOUT_HEAD


def refuse_task_mismatch(task: TaskName, data: DataSection, training: TrainingSection) -> None:
    """Refuse keys that say nothing in this task.

    Raises:
        ValueError: with the key, and what the task allows.
    """
    chosen = training.metric_for_best_model
    if chosen is not None and chosen not in METRICS[task]:
        allowed = ", ".join(METRICS[task])
        message = f"'training.metric_for_best_model: {chosen}' is no metric of 'task: {task}'; it has {allowed}"
        raise ValueError(message)
    if isinstance(data.label_column, tuple) and task != "multi-label":
        message = f"a list as 'data.label_column' needs 'task: multi-label' (the task is {task})"
        raise ValueError(message)
    for key, given, tasks in (
        ("data.labels", data.labels is not None, CLASSIFICATION),
        (
            "data.train_examples_per_label",
            data.train_examples_per_label is not None,
            ("single-label",),
        ),
        ("data.cross_validation", data.cross_validation is not None, ("single-label",)),
        ("training.class_weights", training.class_weights is not None, CLASSIFICATION),
        (
            "training.label_smoothing_factor",
            training.label_smoothing_factor > 0,
            ("single-label",),
        ),
        ("training.label_threshold", training.label_threshold != 0.5, ("multi-label",)),  # noqa: PLR2004 - the default
    ):
        if given and task not in tasks:
            message = (
                f"'{key}' says nothing in 'task: {task}'; it belongs to {' and '.join(tasks)}"
            )
            raise ValueError(message)
    if data.labels is not None:
        try:
            refuse_label_mismatch(task, data.labels, training)
        except DataError as error:
            raise ValueError(str(error).removesuffix(".")) from error


def refuse_label_mismatch(
    task: TaskName, labels: Sequence[str], training: TrainingSection
) -> None:
    """Refuse keys of `training` that do not fit the labels, as soon as these are known.

    Args:
        task: what is learned.
        labels: label names in the order of their ids.
        training: the section.

    Raises:
        DataError: a weight is for a label that there is not, or the F1 of the positive label is
            asked for where there are not two.
    """
    weights = training.class_weights
    unknown = [name for name in weights if name not in labels] if isinstance(weights, dict) else []
    if unknown:
        message = f"training.class_weights: there is no label '{unknown[0]}'. {suggestion(unknown[0], labels)}"
        raise DataError(message)
    if (
        task == "single-label"
        and training.metric_for_best_model == "binary_f1"
        and len(labels) != 2  # noqa: PLR2004 - a positive and a negative label
    ):
        message = f"training.metric_for_best_model: binary_f1 is the F1 of the second of two labels, and there are {len(labels)}. Choose macro_f1 or mcc."
        raise DataError(message)
