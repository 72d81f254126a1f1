"""One label a row: softmax, accuracy, F1, confusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
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

from peftune.data.rows import Labels
from peftune.recipe.task_type import SINGLE_LABEL
from peftune.tasks.base import (
    ClassLoss,
    ClassWeights,
    Logits,
    Prediction,
    TaskMethods,
    class_weights,
    scaled,
    weights_of,
)
from peftune.tasks.scores import (
    Learning,
    accuracy_interval,
    reasons_without_interval,
    refuse_not_finite,
)


class SingleLabel(TaskMethods):
    """Each row has exactly one label."""

    task = SINGLE_LABEL

    def loss(
        self,
        labels: Labels,
        *,
        names: Sequence[str],
        weights: ClassWeights,
        smoothing: float = 0.0,
    ) -> ClassLoss | None:
        """Return weighted or smoothed cross-entropy; None for plain cross-entropy."""
        given: torch.Tensor | None = None
        if weights == "balanced":
            given = class_weights(labels, len(names))
        elif weights is not None:
            given = scaled(weights_of(weights, names), labels)
        return None if given is None and not smoothing else ClassLoss(given, smoothing=smoothing)

    def metrics(
        self,
        logits: Logits,
        labels: NDArray[Any],
        thresholds: Sequence[float] | None = None,  # noqa: ARG002 - of multi-label
    ) -> dict[str, float | None]:
        """Compute what `class_metrics` says."""
        return class_metrics(logits, labels)

    def decisions(
        self,
        logits: Logits,
        thresholds: Sequence[float] | None = None,  # noqa: ARG002 - of multi-label
    ) -> NDArray[np.bool_]:
        """Choose the likeliest label of each text."""
        outputs = np.asarray(logits, np.float64)
        likeliest: NDArray[np.bool_] = np.arange(outputs.shape[-1]) == outputs.argmax(-1)[:, None]
        return likeliest

    def predictions(
        self,
        logits: Logits,
        *,
        names: Sequence[str],
        thresholds: Sequence[float] | None = None,  # noqa: ARG002 - of multi-label
    ) -> list[Prediction]:
        """Predict the likeliest label, with the probabilities of all."""
        return [
            Prediction(
                names[int(row.argmax())],
                float(row.max()),
                dict(zip(names, row.tolist(), strict=True)),
            )
            for row in softmax(np.asarray(logits, np.float64), axis=-1)
        ]

    def scored_row(
        self, prediction: Prediction, label: int, *, names: Sequence[str]
    ) -> dict[str, Any]:
        """Name the label and the predicted one."""
        return {
            "label": names[label],
            "predicted": prediction.label,
            "probabilities": dict(prediction.probabilities),
        }

    def _learning(
        self,
        logits: Logits,
        labels: Labels,
        *,
        names: Sequence[str],
        split: str,
        metric: str | None,
        thresholds: Sequence[float] | None,  # noqa: ARG002 - of multi-label
    ) -> Learning:
        from sklearn.metrics import confusion_matrix

        from peftune.stats.scores import macro_f1_interval, roc_auc_interval
        from peftune.tasks.significance import significance_of_logits

        truth, predicted = np.asarray(labels), np.asarray(logits).argmax(-1)
        metrics = self.metrics(np.asarray(logits), truth)
        accuracy, macro_f1 = metrics.pop("accuracy"), metrics.pop("macro_f1")
        if accuracy is None or macro_f1 is None or metrics["log_loss"] is None:
            message = "accuracy, macro F1 and log loss are defined for any rows"
            raise RuntimeError(message)
        classes = np.arange(len(names))
        true, found = truth[:, None] == classes, predicted[:, None] == classes  # (rows, labels)
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
                "macro_f1": macro_f1_interval(true, found),
                "roc_auc": roc_auc_interval(
                    metrics["roc_auc"], counts, [len(truth) - n for n in counts]
                ),
            },
            per_label=_per_label(truth, predicted, names),
            confusion=confusion_matrix(truth, predicted, labels=classes).tolist(),
            reason="; ".join(reasons) or None,
            significance=significance_of_logits(logits, labels, metric=metric),
        )


def _per_label(
    truth: NDArray[Any], predicted: NDArray[Any], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    from sklearn.metrics import precision_recall_fscore_support

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
