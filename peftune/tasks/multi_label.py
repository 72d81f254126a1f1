"""Any number of labels a row: a sigmoid each, decision thresholds, unknown labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit

from peftune.data.rows import NOT_KNOWN, Labels
from peftune.errors import DataError
from peftune.recipe.task_type import MULTI_LABEL
from peftune.tasks.base import (
    DEFAULT_THRESHOLD,
    ClassWeights,
    Logits,
    MaskedBinaryLoss,
    Prediction,
    TaskMethods,
    positive_weights,
    weights_of,
)
from peftune.tasks.scores import (
    Learning,
    accuracy_interval,
    reasons_without_interval,
    refuse_not_finite,
)

Floats = NDArray[np.float64]


class MultiLabel(TaskMethods):
    """Each row has any number of labels, each decided for itself."""

    task = MULTI_LABEL

    def loss(
        self,
        labels: Labels,
        *,
        names: Sequence[str],
        weights: ClassWeights,
        smoothing: float = 0.0,  # noqa: ARG002 - of single-label
    ) -> MaskedBinaryLoss:
        """Return binary cross-entropy over the labels that are known."""
        if weights is None:
            return MaskedBinaryLoss(None)
        if weights == "balanced":
            return MaskedBinaryLoss(positive_weights(np.asarray(labels, np.float64)))
        return MaskedBinaryLoss(torch.tensor(weights_of(weights, names), dtype=torch.float32))

    def metrics(
        self, logits: Logits, labels: NDArray[Any], thresholds: Sequence[float] | None = None
    ) -> dict[str, float | None]:
        """Compute every metric over the labels that are known.

        Args:
            logits: (rows, labels).
            labels: 1, 0, or nan where it is not known, (rows, labels).
            thresholds: decision thresholds, (labels,).

        Returns:
            `accuracy` (rows with all known labels right), `macro_f1`, `micro_f1`, `weighted_f1`,
            `roc_auc` (mean over the labels that have both values; None where none has) and
            `log_loss` (mean over known labels, nats).

        Raises:
            TrainingError: a logit is not finite.
        """
        refuse_not_finite(logits)
        outputs, truth = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
        known, found = ~np.isnan(truth), self.decisions(outputs, thresholds)
        per_label = _per_label(truth, found)
        f1, support = per_label[2], per_label[3]
        hits = ((truth == 1) & found).sum()
        mentions = (truth == 1).sum() + (found & known).sum()
        aucs = [value for value in _roc_aucs(outputs, truth) if value is not None]
        return {
            "accuracy": float(np.where(known, truth == found, True).all(axis=1).mean()),
            "macro_f1": float(f1.mean()),
            "micro_f1": float(2 * hits / max(mentions, 1)),
            "weighted_f1": float((f1 * support).sum() / max(support.sum(), 1)),
            "roc_auc": float(np.mean(aucs)) if aucs else None,
            "log_loss": float(_log_losses(outputs, truth)[known].mean()),
        }

    def decisions(
        self, logits: Logits, thresholds: Sequence[float] | None = None
    ) -> NDArray[np.bool_]:
        """Choose the labels whose probability reaches their decision threshold."""
        limits = DEFAULT_THRESHOLD if thresholds is None else np.asarray(thresholds)
        return np.asarray(expit(np.asarray(logits, np.float64)) >= limits)

    def fixed_thresholds(
        self, given: float | Sequence[float] | str, labels: int
    ) -> tuple[float, ...] | None:
        """Return one decision threshold a label; None where the validation rows decide."""
        if isinstance(given, str):
            return None
        limits = (given,) * labels if isinstance(given, float) else tuple(given)
        if len(limits) != labels:
            message = f"training.label_threshold has {len(limits)} numbers for {labels} labels. Give one for all, or one a label."
            raise DataError(message)
        return limits

    def predictions(
        self, logits: Logits, *, names: Sequence[str], thresholds: Sequence[float] | None = None
    ) -> list[Prediction]:
        """Predict every label that reaches its decision threshold, and name the likeliest one."""
        outputs = np.asarray(logits, np.float64)
        return [
            Prediction(
                names[int(row.argmax())],
                float(row.max()),
                dict(zip(names, row.tolist(), strict=True)),
                tuple(name for name, has in zip(names, chosen, strict=True) if has),
            )
            for row, chosen in zip(
                expit(outputs), self.decisions(outputs, thresholds), strict=True
            )
        ]

    def scored_row(
        self, prediction: Prediction, label: Sequence[float], *, names: Sequence[str]
    ) -> dict[str, Any]:
        """Name the labels that a row has, those that are not known, and the predicted ones."""
        cells = list(zip(names, label, strict=True))
        return {
            "label": [name for name, cell in cells if cell == 1],
            "not_known": [name for name, cell in cells if np.isnan(cell)],
            "predicted": list(prediction.labels or ()),
            "probabilities": dict(prediction.probabilities),
        }

    def _known(self, labels: NDArray[Any]) -> NDArray[Any]:
        return np.where(labels == NOT_KNOWN, np.nan, labels)

    def _learning(
        self,
        logits: Logits,
        labels: Labels,
        *,
        names: Sequence[str],
        split: str,
        metric: str | None,
        thresholds: Sequence[float] | None,
    ) -> Learning:
        from peftune.stats.intervals import contributions, mean_interval
        from peftune.stats.scores import macro_f1_interval, roc_auc_interval
        from peftune.tasks.significance import significance_of_label_sets

        truth, outputs = np.asarray(labels, np.float64), np.asarray(logits, np.float64)
        metrics = self.metrics(outputs, truth, thresholds)
        known, found = ~np.isnan(truth), self.decisions(outputs, thresholds)
        accuracy, macro_f1, log_loss = (
            metrics.pop(name) for name in ("accuracy", "macro_f1", "log_loss")
        )
        losses: Floats = np.where(known, _log_losses(outputs, truth), 0.0).sum(axis=1)
        weights: Floats = known.sum(axis=1).astype(np.float64)
        reasons = reasons_without_interval(truth == 1, names)
        one_sided = [
            name for name, auc in zip(names, _roc_aucs(outputs, truth), strict=True) if auc is None
        ]
        if one_sided:
            reasons.append(f"roc_auc: {', '.join(one_sided)} has only one value in this split")
        several = len(truth) > 1
        return Learning(
            split=split,
            n=len(truth),
            accuracy=accuracy,
            macro_f1=macro_f1,
            loss=float(log_loss or 0.0),
            metrics={**metrics, "log_loss": log_loss},
            ci95={
                "accuracy": accuracy_interval(float(accuracy or 0.0), len(truth)),
                "macro_f1": macro_f1_interval(truth == 1, found & known),
                "roc_auc": roc_auc_interval(
                    metrics["roc_auc"], (truth == 1).sum(axis=0), (truth == 0).sum(axis=0)
                ),
                "loss": mean_interval(contributions(losses[None], weights)[0])
                if several
                else None,
            },
            per_label=_named_scores(truth, outputs, found, names, thresholds),
            confusion=None,
            reason="; ".join(reasons) or None,
            task=self.task.name,
            significance=significance_of_label_sets(truth, found, outputs, metric=metric),
        )


def best_thresholds(logits: Logits, labels: Labels) -> tuple[float, ...]:
    """Find the decision threshold of each label that has the highest F1.

    Args:
        logits: (rows, labels), of rows that no score is reported on.
        labels: rows of 0, 1 and nan.

    Returns:
        One a label, strictly between 0 and 1; 0.5 where the label has no positive row.
    """
    from sklearn.metrics import precision_recall_curve

    truth, probabilities = np.asarray(labels, np.float64), expit(np.asarray(logits, np.float64))
    found: list[float] = []
    for column in range(truth.shape[1]):
        known = ~np.isnan(truth[:, column])
        positive = truth[known, column] == 1
        if not positive.any():
            found.append(DEFAULT_THRESHOLD)
            continue
        precision, recall, at = precision_recall_curve(positive, probabilities[known, column])
        f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
        place = int(f1[:-1].argmax())
        below = at[place - 1] if place else 0.0
        found.append(float(np.clip((below + at[place]) / 2, 1e-6, 1 - 1e-6)))
    return tuple(found)


def _per_label(labels: Floats, found: NDArray[np.bool_]) -> tuple[Floats, ...]:
    """Return precision, recall, F1 and support, (labels,) each, over the known cells."""
    from sklearn.metrics import precision_recall_fscore_support

    scores = []
    for column in range(labels.shape[1]):
        known = ~np.isnan(labels[:, column])
        part = precision_recall_fscore_support(
            labels[known, column] == 1,
            found[known, column],
            average="binary",
            zero_division=0,
        )
        scores.append((*part[:3], int((labels[known, column] == 1).sum())))
    return tuple(np.array(values, dtype=np.float64) for values in zip(*scores, strict=True))


def _named_scores(
    labels: Floats,
    logits: Floats,
    found: NDArray[np.bool_],
    names: Sequence[str],
    thresholds: Sequence[float] | None,
) -> dict[str, dict[str, float]]:
    limits = thresholds or [DEFAULT_THRESHOLD] * len(names)
    aucs = _roc_aucs(logits, labels)
    precision, recall, f1, support = _per_label(labels, found)
    return {
        name: {
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "support": int(support[i]),
            "threshold": float(limits[i]),
            **({} if (auc := aucs[i]) is None else {"roc_auc": auc}),
        }
        for i, name in enumerate(names)
    }


def _roc_aucs(logits: Floats, labels: Floats) -> list[float | None]:
    from sklearn.metrics import roc_auc_score

    found: list[float | None] = []
    for column in range(labels.shape[1]):
        known = ~np.isnan(labels[:, column])
        truth = labels[known, column]
        both = len(set(truth.tolist())) > 1
        found.append(float(roc_auc_score(truth, logits[known, column])) if both else None)
    return found


def _log_losses(logits: Floats, labels: Floats) -> Floats:
    """Return the binary cross-entropy of every cell, nats, (rows, labels)."""
    return np.asarray(np.logaddexp(0.0, logits) - np.nan_to_num(labels) * logits)
