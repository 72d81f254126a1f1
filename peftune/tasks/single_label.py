"""One label a row: softmax, accuracy, F1, confusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from peftune.data.rows import Labels
from peftune.recipe.task_type import SINGLE_LABEL
from peftune.tasks.base import ClassWeights, Logits, TaskMethods
from peftune.tasks.loss import ClassLoss, class_weights, scaled, weights_of
from peftune.tasks.predictions import Prediction
from peftune.tasks.scores import Learning, accuracy_interval, reasons_without_interval


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
        from peftune.tasks.metrics import class_metrics

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
