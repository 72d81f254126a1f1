"""What was learned: the score on held-out rows, with intervals and baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftune.errors import TrainingError
from peftune.recipe.task_type import TASK_TYPES, TaskName, TaskType, task_type
from peftune.stats.intervals import Interval, share_interval
from peftune.stats.scores import FEWEST_ROWS_PER_LABEL


@dataclass(frozen=True, slots=True)
class Significance:
    """Whether the score that a checkpoint is chosen by is more than can be had without reading.

    Args:
        metric: which score.
        without_reading: the best that answers have on these rows which do not depend on them.
        p_value: one-sided probability of a score as good without reading.
        learned: whether the p-value is at most 0.025.
    """

    metric: str
    without_reading: float
    p_value: float
    learned: bool


@dataclass(frozen=True, slots=True)
class Learning:
    """The final score of a run.

    Args:
        split: `test`, or `validation` where the recipe names no test rows.
        n: rows scored.
        accuracy: share of rows with the right label; multi-label: with all known labels right.
        macro_f1: F1 averaged over labels.
        loss: lower is better: mean cross-entropy in nats; of a regression the mean squared error; of
            language modeling nats per token.
        metrics: further metrics by name; None where undefined.
        ci95: 95% intervals over rows, by metric (`peftune.stats.scores`), of this one model.
        per_label: precision, recall, f1 and support by label.
        confusion: rows by true label (first index) and predicted label (second); None where a row
            has not just one label.
        baselines: scores of simple baselines on the same rows.
        curve: points of the training and validation curves, in order.
        reason: why values are None.
        task: the task type, which decides what is None: accuracy and macro F1 where there are no
            labels.
        significance: whether it is more than can be had without reading a row; None in reports of
            versions that did not record it.
    """

    split: str
    n: int
    accuracy: float | None
    macro_f1: float | None
    loss: float
    metrics: Mapping[str, float | None]
    ci95: Mapping[str, Interval | None]
    per_label: Mapping[str, Mapping[str, float]]
    confusion: Sequence[Sequence[int]] | None
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    curve: Sequence[Mapping[str, Any]] = ()
    reason: str | None = None
    task: TaskName = "single-label"
    significance: Significance | None = None

    @property
    def task_type(self) -> TaskType:
        """What distinguishes its task type from the others."""
        return task_type(self.task)


def learned_something(learning: Learning) -> bool:
    """Say whether more was learned than what can be said without reading: the gate of every verdict.

    It is asked of the one score that the checkpoint is chosen by (`training.metric_for_best_model`;
    `peftune.tasks.significance`): whoever takes the best of three scores is fooled by a guesser three
    times as often.
    """
    if learning.significance is not None:
        return learning.significance.learned
    return _learned_by_intervals(learning)


def _learned_by_intervals(learning: Learning) -> bool:
    """Assess a report of a version that recorded intervals alone, by the rule of that version."""
    naive = learning.baselines.get("majority") or learning.baselines.get("mean") or {}
    loss, accuracy = learning.ci95.get("loss"), learning.ci95.get("accuracy")
    if not learning.task_type.has_head:
        gain = learning.ci95["bits_per_byte_gain"]
        return gain is not None and gain[0] > 0
    if learning.task_type.one_label:
        return accuracy is not None and accuracy[0] > naive.get("accuracy", 1.0)
    return loss is not None and loss[1] < naive.get("loss", 0.0)


_SHOWN = 3
"""Labels that a reason names before it counts the rest."""

_TITLES = {"accuracy": "accuracy", "mcc": "Matthews correlation", "binary_f1": "F1 of the second label", "weighted_f1": "weighted F1", "mae": "mean absolute error"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Score:
    """A score of a run.

    Args:
        name: its key in the report.
        title: what people call it.
        value: None where it is not defined.
        interval: 95% interval over rows, where there is one.
    """

    name: str
    title: str
    value: float | None
    interval: Interval | None


def headline_scores(learning: Learning) -> Iterator[Score]:
    """Give the scores that stand for a run, the most telling one first."""
    for name, title in learning.task_type.headlines.items():
        yield Score(name, title, score_of(learning, name), learning.ci95.get(name))


def title_of_metric(name: str) -> str:
    """Return what people call a score."""
    known = {key: title for task in TASK_TYPES.values() for key, title in task.headlines.items()}
    return _TITLES.get(name) or known.get(name) or name.replace("_", " ")


def score_of(learning: Learning, name: str) -> float | None:
    """Return a score by its key in the report; None where the task has none."""
    if name in ("accuracy", "macro_f1", "loss"):
        value: float | None = getattr(learning, name)
        return value
    return learning.metrics.get(name)


def refuse_not_finite(logits: NDArray[np.floating[Any]]) -> None:
    """Refuse to score the outputs of a diverged model.

    Raises:
        TrainingError: a logit is not finite.
    """
    if not np.isfinite(logits).all():
        message = "The model's outputs are not finite: training has diverged. Lower training.learning_rate, or check the data."
        raise TrainingError(message)


def accuracy_interval(accuracy: float, count: int) -> Interval | None:
    """Return Wilson's 95% interval; None of one row, of which it covers 80 of 100."""
    return share_interval(accuracy, count) if count > 1 else None


def reasons_without_interval(true: NDArray[np.bool_], names: Sequence[str]) -> list[str]:
    """Say why accuracy or macro F1 has no interval.

    Args:
        true: which labels a row has, (rows, labels).
        names: names of the labels.
    """
    if len(true) == 1:
        return ["ci95: one row has no spread"]
    support = true.sum(axis=0).tolist()
    few = [
        f"{name} has {count}"
        for name, count in zip(names, support, strict=True)
        if count < FEWEST_ROWS_PER_LABEL
    ]
    if not few:
        return []
    shown = ", ".join(few[:_SHOWN]) + (f" and {len(few) - _SHOWN} more" if few[_SHOWN:] else "")
    return [f"ci95: macro_f1 takes {FEWEST_ROWS_PER_LABEL} rows of every label: {shown}"]
