"""Metrics of single-label classification as one `evaluate.Metric`, computed offline from logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    log_loss,
    matthews_corrcoef,
    recall_score,
    roc_auc_score,
)

from peftune.tasks.scores import refuse_not_finite


class SequenceClassificationMetrics(evaluate.Metric):
    """Accuracy, F1, Matthews correlation, ROC-AUC and log loss of a single-label classifier.

    A subclass of `evaluate.Metric` that needs no network, unlike `evaluate.load`; computed by
    scikit-learn. `predictions` are logits, (rows, labels); `references` are label ids.
    """

    def _build_data_dir(self) -> str:
        """Name the folder of cache files, and do not make it: everything is kept in memory."""
        return str(self._data_dir_root)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy, F1, Matthews correlation, ROC-AUC and log loss of a single-label classifier.",
            citation="",
            inputs_description="predictions: logits, (rows, labels); references: label ids, (rows,).",
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float64")),
                    "references": datasets.Value("int64"),
                }
            ),
        )

    def _compute(
        self, predictions: Sequence[Sequence[float]], references: Sequence[int]
    ) -> dict[str, float | None]:
        logits, labels = np.asarray(predictions, dtype=np.float64), np.asarray(references)
        predicted, probabilities = logits.argmax(-1), softmax(logits, axis=-1)
        classes = list(range(logits.shape[1]))
        return {
            "accuracy": float(accuracy_score(labels, predicted)),
            "balanced_accuracy": _balanced_accuracy(labels, predicted),
            "macro_f1": _f1(labels, predicted, classes, "macro"),
            "weighted_f1": _f1(labels, predicted, classes, "weighted"),
            "micro_f1": _f1(labels, predicted, classes, "micro"),
            **_binary_f1(labels, predicted, classes),
            "mcc": _mcc(labels, predicted),
            "roc_auc": _roc_auc(labels, probabilities, classes),
            "log_loss": float(log_loss(labels, probabilities, labels=classes)),
        }


def class_metrics(
    logits: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]
) -> dict[str, float | None]:
    """Compute every metric.

    Args:
        logits: (rows, labels).
        labels: label ids, (rows,).

    Returns:
        Metrics by name; `roc_auc` is None where a class has no rows, and `binary_f1`, the F1 of the
        second label, is there for two labels alone. Higher is better except for `log_loss` (nats).

    Raises:
        TrainingError: a logit is not finite.
    """
    refuse_not_finite(logits)
    metric = SequenceClassificationMetrics(keep_in_memory=True)
    result = metric.compute(predictions=logits.astype(np.float64), references=labels)
    if result is None:
        message = "metrics are computed on the main process only"
        raise RuntimeError(message)
    return dict(result)


def _balanced_accuracy(labels: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Average the recall over the classes that have rows; scikit-learn's own warns where one has none."""
    present = sorted(set(labels.tolist()))
    return float(recall_score(labels, predicted, labels=present, average="macro"))


def _f1(labels: NDArray[Any], predicted: NDArray[Any], classes: list[int], average: str) -> float:
    return float(f1_score(labels, predicted, labels=classes, average=average, zero_division=0))


def _mcc(labels: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Correlate truth and prediction; 0 where either is constant, of which scikit-learn may warn."""
    if min(len(np.unique(labels)), len(np.unique(predicted))) < 2:  # noqa: PLR2004 - constant
        return 0.0
    return float(matthews_corrcoef(labels, predicted))


def _binary_f1(
    labels: NDArray[Any], predicted: NDArray[Any], classes: list[int]
) -> dict[str, float]:
    """Score the second of two labels, scikit-learn's `pos_label=1`; more have no positive one."""
    if len(classes) != 2:  # noqa: PLR2004 - a positive and a negative label
        return {}
    return {"binary_f1": float(f1_score(labels, predicted, pos_label=1, zero_division=0))}


def _roc_auc(
    labels: NDArray[Any], probabilities: NDArray[np.float64], classes: list[int]
) -> float | None:
    """One class against the rest, averaged over classes; undefined where a class has no rows."""
    if len(set(labels.tolist())) < len(classes):
        return None
    if len(classes) == 2:  # noqa: PLR2004 - scikit-learn wants the positive class alone
        return float(roc_auc_score(labels, probabilities[:, 1]))
    return float(
        roc_auc_score(labels, probabilities, multi_class="ovr", average="macro", labels=classes)
    )
