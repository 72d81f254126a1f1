"""One label a row: softmax, accuracy, F1, confusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from peftune.data.rows import Labels
from peftune.stats.intervals import Interval, share_interval
from peftune.stats.scores import FEWEST_ROWS_PER_LABEL, macro_f1_interval, roc_auc_interval
from peftune.tasks.metrics import class_metrics
from peftune.tasks.scores import Learning
from peftune.tasks.significance import significance_of_logits

_SHOWN = 3
"""Labels that a reason names before it counts the rest."""


def judged_classes(
    logits: NDArray[np.floating[Any]],
    labels: Labels,
    *,
    names: Sequence[str],
    split: str,
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
    classes = np.arange(len(names))
    true, said = truth[:, None] == classes, predicted[:, None] == classes  # (rows, labels)
    counts = np.bincount(truth, minlength=len(names)).tolist()
    reasons = reasons_without_interval(true, names)
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
            "accuracy": accuracy_interval(accuracy, len(truth)),
            "macro_f1": macro_f1_interval(true, said),
            "roc_auc": roc_auc_interval(
                metrics["roc_auc"], counts, [len(truth) - n for n in counts]
            ),
        },
        per_label=_per_label(truth, predicted, names),
        confusion=confusion_matrix(truth, predicted, labels=classes).tolist(),
        reason="; ".join(reasons) or None,
        significance=significance_of_logits(logits, labels, metric=metric),
    )


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
