"""The scores that stand for a run, by kind of task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from peftune.recipe.task import TaskName
from peftune.stats.intervals import Interval
from peftune.tasks.learning import Learning

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
