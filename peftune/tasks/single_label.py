"""One label a row: softmax, accuracy, F1, confusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from peftune.data.rows import Labels
from peftune.stats.intervals import row_interval
from peftune.tasks.learning import Learning
from peftune.tasks.metrics import class_metrics, roc_auc_interval
from peftune.tasks.significance import significance_of_logits


def judged_classes(
    logits: NDArray[np.floating[Any]],
    labels: Labels,
    *,
    names: Sequence[str],
    split: str,
    seed: int,
    metric: str | None = None,
) -> Learning:
    """Score logits, (rows, labels), against label ids."""
    truth = np.asarray(labels)
    predicted = np.asarray(logits).argmax(-1)
    metrics = class_metrics(np.asarray(logits), truth)
    accuracy, macro_f1 = metrics.pop("accuracy"), metrics.pop("macro_f1")
    if accuracy is None or macro_f1 is None or metrics["log_loss"] is None:
        message = "accuracy, macro F1 and log loss are defined for any rows"
        raise RuntimeError(message)
    columns = (truth.astype(np.float64), predicted.astype(np.float64))
    classes = range(len(names))
    counts = np.bincount(truth, minlength=len(names)).tolist()
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
            "roc_auc": roc_auc_interval(
                metrics["roc_auc"], counts, [len(truth) - n for n in counts]
            ),
        },
        per_label=_per_label(truth, predicted, names),
        confusion=confusion_matrix(truth, predicted, labels=list(classes)).tolist(),
        reason="; ".join(reasons) or None,
        significance=significance_of_logits(logits, labels, metric=metric),
    )


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
