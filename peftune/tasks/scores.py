"""What was learned: the score on held-out rows, with intervals and baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peftune.recipe.task_type import TaskName
from peftune.stats.intervals import Interval


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
        task: the kind of task, which decides what is None: accuracy and macro F1 where there are no
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
    """Judge a report of a version that recorded intervals alone, by the rule of that version."""
    naive = learning.baselines.get("majority") or learning.baselines.get("mean") or {}
    loss, accuracy = learning.ci95.get("loss"), learning.ci95.get("accuracy")
    if learning.task == "language-modeling":
        gain = learning.ci95["bits_per_byte_gain"]
        return gain is not None and gain[0] > 0
    if learning.task == "single-label":
        return accuracy is not None and accuracy[0] > naive.get("accuracy", 1.0)
    return loss is not None and loss[1] < naive.get("loss", 0.0)


_HEADLINES: Mapping[TaskName, Mapping[str, str]] = {
    "single-label": {"accuracy": "accuracy", "macro_f1": "macro F1"},
    "multi-label": {
        "macro_f1": "macro F1",
        "micro_f1": "micro F1",
        "accuracy": "all labels right",
        "roc_auc": "ROC AUC",
    },
    "regression": {"pearson": "Pearson", "spearman": "Spearman", "mse": "mean squared error"},
    "language-modeling": {"bits_per_byte": "bits per byte", "perplexity": "perplexity"},
}

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
    for name, title in _HEADLINES[learning.task].items():
        yield Score(name, title, score_of(learning, name), learning.ci95.get(name))


def title_of_metric(name: str) -> str:
    """Return what people call a score."""
    known = {key: title for titles in _HEADLINES.values() for key, title in titles.items()}
    return _TITLES.get(name) or known.get(name) or name.replace("_", " ")


def score_of(learning: Learning, name: str) -> float | None:
    """Return a score by its key in the report; None where the task has none."""
    if name in ("accuracy", "macro_f1", "loss"):
        value: float | None = getattr(learning, name)
        return value
    return learning.metrics.get(name)
