"""The kinds of task, and what of a recipe belongs to which."""

from __future__ import annotations

from typing import Literal

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
    """Say whether a task puts a head of its own on the trunk, rather than train the trunk alone."""
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
        ("training.class_weights", training.class_weights is not None, CLASSIFICATION),
        ("training.label_threshold", training.label_threshold != 0.5, ("multi-label",)),  # noqa: PLR2004 - the default
    ):
        if given and task not in tasks:
            message = (
                f"'{key}' says nothing in 'task: {task}'; it belongs to {' and '.join(tasks)}"
            )
            raise ValueError(message)
