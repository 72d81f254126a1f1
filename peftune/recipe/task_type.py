"""The task types: what distinguishes each from the others, as far as it can be said without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from peftune.errors import DataError, suggestion
from peftune.recipe.data import DataSection
from peftune.recipe.training import TrainingSection

TaskName = Literal["single-label", "multi-label", "regression", "language-modeling"]

LOWER_IS_BETTER = ("loss", "log_loss", "mse", "mae")
"""Metrics of which a lower value is better."""

_CLASS_KEYS = ("data.labels", "training.class_weights")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TaskType:
    """What distinguishes one task type from the others; `peftune.tasks` holds how it is scored.

    Args:
        name: how recipes, manifests and reports name it.
        metrics: metrics that may choose the best checkpoint; the first one is the default.
        headlines: scores that stand for a run, the most telling one first, with their titles.
        model_noun: what cards call a model that was trained on it.
        intended_use: what such a model is for, as a card says it.
        problem_type: `problem_type` in transformers' configuration; None without a head.
        fewest_labels: labels that a model has at least.
        most_labels: labels that a model has at most.
        recipe_keys: keys of a recipe that this task type has and another one lacks.
        has_head: whether a head is put on the backbone; without one the backbone alone is trained.
        has_classes: whether a label is a name that a row has or lacks.
        one_label: whether each row has exactly one label, and the labels exclude each other.
        many_labels: whether a row has any number of labels, each with a decision threshold.
        numeric: whether the label of a row is a number.
    """

    name: TaskName
    metrics: tuple[str, ...]
    headlines: Mapping[str, str]
    model_noun: str
    intended_use: str
    problem_type: str | None
    fewest_labels: int
    most_labels: float
    recipe_keys: tuple[str, ...] = ()
    has_head: bool = True
    has_classes: bool = False
    one_label: bool = False
    many_labels: bool = False
    numeric: bool = False

    @property
    def default_metric(self) -> str:
        """The metric that chooses the best checkpoint where the recipe names none."""
        return self.metrics[0]

    def refuse_mismatch(self, data: DataSection, training: TrainingSection) -> None:
        """Refuse keys of a recipe that have no meaning in this task type.

        Raises:
            ValueError: with the key, and what the task type allows.
        """
        chosen = training.metric_for_best_model
        if chosen is not None and chosen not in self.metrics:
            message = f"'training.metric_for_best_model: {chosen}' is not a metric of 'task: {self.name}'; it has {', '.join(self.metrics)}"
            raise ValueError(message)
        if isinstance(data.label_column, tuple) and not self.many_labels:
            message = f"a list as 'data.label_column' needs 'task: {MULTI_LABEL.name}' (the task is {self.name})"
            raise ValueError(message)
        for key, owners in _owners_by_key().items():
            section, _, field = key.partition(".")
            values = data if section == "data" else training
            default = type(values).model_fields[field].default
            if self.name not in owners and getattr(values, field) != default:
                message = f"'{key}' has no meaning in 'task: {self.name}'; it belongs to {' and '.join(owners)}"
                raise ValueError(message)
        if data.labels is not None:
            try:
                self.refuse_label_mismatch(data.labels, training)
            except DataError as error:
                raise ValueError(str(error).removesuffix(".")) from error

    def refuse_label_mismatch(self, labels: Sequence[str], training: TrainingSection) -> None:
        """Refuse keys of `training` that do not fit the labels, as soon as these are known.

        Args:
            labels: label names in the order of their ids.
            training: the section.

        Raises:
            DataError: a weight is for a label that does not exist, or the F1 of the positive label
                is asked for where there are not two.
        """
        weights = training.class_weights
        unknown = [name for name in weights if name not in labels] if isinstance(weights, dict) else []  # fmt: skip
        if unknown:
            message = f"training.class_weights: there is no label '{unknown[0]}'. {suggestion(unknown[0], labels)}"
            raise DataError(message)
        if self.one_label and training.metric_for_best_model == "binary_f1" and len(labels) != 2:  # noqa: PLR2004 - a positive and a negative label
            message = f"training.metric_for_best_model: binary_f1 is the F1 of the second of two labels, and there are {len(labels)}. Choose macro_f1 or mcc."
            raise DataError(message)


SINGLE_LABEL = TaskType(
    name="single-label",
    metrics=(
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
    headlines={"accuracy": "accuracy", "macro_f1": "macro F1"},
    model_noun="classifier",
    intended_use="It is meant for texts like those it learned from. It gives every text one of its labels, also a text that none of them fits.",
    problem_type="single_label_classification",
    fewest_labels=2,
    most_labels=math.inf,
    recipe_keys=(
        *_CLASS_KEYS,
        "data.train_examples_per_label",
        "data.cross_validation",
        "training.label_smoothing_factor",
    ),
    has_classes=True,
    one_label=True,
)
MULTI_LABEL = TaskType(
    name="multi-label",
    metrics=("macro_f1", "accuracy", "micro_f1", "weighted_f1", "roc_auc", "log_loss", "loss"),
    headlines={
        "macro_f1": "macro F1",
        "micro_f1": "micro F1",
        "accuracy": "all labels right",
        "roc_auc": "ROC AUC",
    },
    model_noun="classifier",
    intended_use="It is meant for texts like those it learned from. It gives a text any number of its labels, and none where none is probable enough.",
    problem_type="multi_label_classification",
    fewest_labels=2,
    most_labels=math.inf,
    recipe_keys=(*_CLASS_KEYS, "training.label_threshold"),
    has_classes=True,
    many_labels=True,
)
REGRESSION = TaskType(
    name="regression",
    metrics=("mse", "mae", "pearson", "spearman", "loss"),
    headlines={"pearson": "Pearson", "spearman": "Spearman", "mse": "mean squared error"},
    model_noun="regression",
    intended_use="It is meant for texts like those it learned from. It gives every text a number, also one beyond the numbers it learned from.",
    problem_type="regression",
    fewest_labels=1,
    most_labels=1,
    numeric=True,
)
LANGUAGE_MODELING = TaskType(
    name="language-modeling",
    metrics=("loss",),
    headlines={"bits_per_byte": "bits per byte", "perplexity": "perplexity"},
    model_noun="language model",
    intended_use="It is meant as the start of further training in the domain whose texts it learned from. It writes like those texts, and what it writes need not be true.",
    problem_type=None,
    fewest_labels=0,
    most_labels=0,
    has_head=False,
)
TASK_TYPES: Mapping[TaskName, TaskType] = {
    task.name: task for task in (SINGLE_LABEL, MULTI_LABEL, REGRESSION, LANGUAGE_MODELING)
}


def task_type(name: TaskName) -> TaskType:
    """Return the task type of a name."""
    return TASK_TYPES[name]


def _owners_by_key() -> dict[str, list[TaskName]]:
    """List the task types that have a key, by key, for the keys that another one lacks."""
    owners: dict[str, list[TaskName]] = {}
    for task in TASK_TYPES.values():
        for key in task.recipe_keys:
            owners.setdefault(key, []).append(task.name)
    return owners
