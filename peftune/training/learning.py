"""What was learned: the score on held-out rows, with intervals and baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from peftune.forgetting.intervals import Interval, row_interval
from peftune.training.metrics import task_metrics


@dataclass(frozen=True, slots=True)
class Learning:
    """The final score of a run.

    Args:
        split: `test`, or `validation` where the recipe names no test rows.
        n: rows scored.
        accuracy: share of rows with the right label.
        macro_f1: F1 averaged over labels.
        loss: mean cross-entropy, nats, lower is better.
        metrics: further metrics by name; None where undefined.
        ci95: 95% bootstrap intervals over rows, by metric.
        per_label: precision, recall, f1 and support by label.
        confusion: rows by true label (first index) and predicted label (second).
        baselines: scores of simple baselines on the same rows.
        curve: points of the training and validation curves, in order.
        reason: why values are None.
    """

    split: str
    n: int
    accuracy: float
    macro_f1: float
    loss: float
    metrics: Mapping[str, float | None]
    ci95: Mapping[str, Interval | None]
    per_label: Mapping[str, Mapping[str, float]]
    confusion: Sequence[Sequence[int]]
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    curve: Sequence[Mapping[str, Any]] = ()
    reason: str | None = None


def judge(
    logits: NDArray[np.floating[Any]],
    labels: Sequence[int],
    *,
    names: Sequence[str],
    split: str,
    seed: int,
    baselines: Mapping[str, Mapping[str, float]] | None = None,
    curve: Sequence[Mapping[str, Any]] = (),
) -> Learning:
    """Score logits against labels.

    Args:
        logits: (rows, labels).
        labels: label ids of the same rows.
        names: label names in the order of their ids.
        split: which split the rows are.
        seed: seed of the bootstrap.
        baselines: scores of baselines on the same rows.
        curve: points of the training curve.
    """
    truth = np.asarray(labels)
    predicted = np.asarray(logits).argmax(-1)
    metrics = task_metrics(np.asarray(logits), truth)
    accuracy, macro_f1 = metrics.pop("accuracy"), metrics.pop("macro_f1")
    if accuracy is None or macro_f1 is None or metrics["log_loss"] is None:
        message = "accuracy, macro F1 and log loss are defined for any rows"
        raise RuntimeError(message)
    columns = (truth.astype(np.float64), predicted.astype(np.float64))
    classes = range(len(names))
    reasons = []
    if len(truth) < 2:  # noqa: PLR2004 - one row has no spread
        reasons.append("ci95: one row has no spread")
    if metrics["roc_auc"] is None:
        reasons.append("roc_auc: a label has no rows in this split")
    return Learning(
        split=split,
        n=len(truth),
        accuracy=accuracy,
        macro_f1=macro_f1,
        loss=metrics["log_loss"],
        metrics=metrics,
        ci95={
            "accuracy": row_interval(columns, _accuracy, seed=seed),
            "macro_f1": row_interval(columns, _macro_f1_of(len(names)), seed=seed),
        },
        per_label=_per_label(truth, predicted, names),
        confusion=confusion_matrix(truth, predicted, labels=list(classes)).tolist(),
        baselines=baselines or {},
        curve=curve,
        reason="; ".join(reasons) or None,
    )


def learned_something(learning: Learning) -> bool:
    """Say whether the accuracy's interval lies above the majority class: the gate of every verdict."""
    interval, majority = learning.ci95["accuracy"], learning.baselines.get("majority")
    return interval is not None and majority is not None and interval[0] > majority["accuracy"]


def _accuracy(
    truth: NDArray[np.float64], predicted: NDArray[np.float64], axis: int = -1
) -> NDArray[np.float64]:
    return np.asarray((truth == predicted).mean(axis=axis))


def _macro_f1_of(classes: int) -> Any:  # noqa: ANN401 - a statistic for row_interval
    def macro_f1(
        truth: NDArray[np.float64], predicted: NDArray[np.float64], axis: int = -1
    ) -> NDArray[np.float64]:
        scores = []
        for label in range(classes):
            hits = ((truth == label) & (predicted == label)).sum(axis=axis)
            mentions = (truth == label).sum(axis=axis) + (predicted == label).sum(axis=axis)
            scores.append(2 * hits / np.maximum(mentions, 1))
        return np.asarray(np.mean(scores, axis=0))

    return macro_f1


def _per_label(
    truth: NDArray[Any], predicted: NDArray[Any], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    scores = precision_recall_fscore_support(
        truth, predicted, labels=list(range(len(names))), zero_division=0
    )
    precision, recall, f1, support = (np.asarray(part) for part in scores)
    return {
        name: {
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "support": int(support[i]),
        }
        for i, name in enumerate(names)
    }
