"""Any number of labels a row: a sigmoid each, thresholds, labels that are not known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import precision_recall_curve, precision_recall_fscore_support, roc_auc_score

from peftune.data.rows import Labels
from peftune.stats.intervals import contributions, mean_interval
from peftune.stats.scores import macro_f1_interval, roc_auc_interval
from peftune.tasks.metrics import refuse_not_finite
from peftune.tasks.predictions import DEFAULT_THRESHOLD
from peftune.tasks.scores import Learning
from peftune.tasks.significance import significance_of_label_sets
from peftune.tasks.single_label import accuracy_interval, reasons_without_interval

Floats = NDArray[np.float64]


def labels_metrics(
    logits: NDArray[np.floating[Any]],
    labels: NDArray[np.floating[Any]],
    thresholds: Sequence[float] | None = None,
) -> dict[str, float | None]:
    """Compute every metric over the labels that are known.

    Args:
        logits: (rows, labels).
        labels: 1, 0, or nan where it is not known, (rows, labels).
        thresholds: probability from which a label is said, one a label.

    Returns:
        `accuracy` (rows with all known labels right), `macro_f1`, `micro_f1`, `weighted_f1`,
        `roc_auc` (mean over the labels that have both values; None where none has) and
        `log_loss` (mean over known labels, nats).

    Raises:
        TrainingError: a logit is not finite.
    """
    refuse_not_finite(logits)
    outputs, truth = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    known, said = ~np.isnan(truth), _said(outputs, thresholds)
    per_label = _per_label(truth, said)
    f1, support = per_label[2], per_label[3]
    hits = ((truth == 1) & said).sum()
    mentions = (truth == 1).sum() + (said & known).sum()
    aucs = [value for value in _roc_aucs(outputs, truth) if value is not None]
    return {
        "accuracy": float(np.where(known, truth == said, True).all(axis=1).mean()),
        "macro_f1": float(f1.mean()),
        "micro_f1": float(2 * hits / max(mentions, 1)),
        "weighted_f1": float((f1 * support).sum() / max(support.sum(), 1)),
        "roc_auc": float(np.mean(aucs)) if aucs else None,
        "log_loss": float(_log_losses(outputs, truth)[known].mean()),
    }


def judged_labels(
    logits: NDArray[np.floating[Any]],
    labels: Labels,
    *,
    names: Sequence[str],
    split: str,
    metric: str | None = None,
    thresholds: Sequence[float] | None = None,
) -> Learning:
    """Score logits, (rows, labels), against rows of 0, 1 and nan."""
    truth, outputs = np.asarray(labels, np.float64), np.asarray(logits, np.float64)
    metrics = labels_metrics(outputs, truth, thresholds)
    known, said = ~np.isnan(truth), _said(outputs, thresholds)
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
    return Learning(
        split=split,
        n=len(truth),
        accuracy=accuracy,
        macro_f1=macro_f1,
        loss=float(log_loss or 0.0),
        metrics={**metrics, "log_loss": log_loss},
        ci95={
            "accuracy": accuracy_interval(float(accuracy or 0.0), len(truth)),
            "macro_f1": macro_f1_interval(truth == 1, said & known),
            "roc_auc": roc_auc_interval(
                metrics["roc_auc"], (truth == 1).sum(axis=0), (truth == 0).sum(axis=0)
            ),
            "loss": mean_interval(contributions(losses[None], weights)[0])
            if len(truth) > 1
            else None,
        },
        per_label=_named_scores(truth, outputs, said, names, thresholds),
        confusion=None,
        reason="; ".join(reasons) or None,
        task="multi-label",
        significance=significance_of_label_sets(truth, said, outputs, metric=metric),
    )


def best_thresholds(logits: NDArray[np.floating[Any]], labels: Labels) -> tuple[float, ...]:
    """Find the probability from which each label is best said: the one with the highest F1.

    Args:
        logits: (rows, labels), of rows that no score is reported on.
        labels: rows of 0, 1 and nan.

    Returns:
        One a label, strictly between 0 and 1; 0.5 where the label has no positive row.
    """
    truth, probabilities = np.asarray(labels, np.float64), expit(np.asarray(logits, np.float64))
    found = []
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


def _said(logits: Floats, thresholds: Sequence[float] | None) -> NDArray[np.bool_]:
    limits = DEFAULT_THRESHOLD if thresholds is None else np.asarray(thresholds)
    return np.asarray(expit(logits) >= limits)


def _per_label(labels: Floats, said: NDArray[np.bool_]) -> tuple[Floats, ...]:
    """Return precision, recall, F1 and support, (labels,) each, over the known cells."""
    scores = []
    for column in range(labels.shape[1]):
        known = ~np.isnan(labels[:, column])
        part = precision_recall_fscore_support(
            labels[known, column] == 1,
            said[known, column],
            average="binary",
            zero_division=0,
        )
        scores.append((*part[:3], int((labels[known, column] == 1).sum())))
    return tuple(np.array(values, dtype=np.float64) for values in zip(*scores, strict=True))


def _named_scores(
    labels: Floats,
    logits: Floats,
    said: NDArray[np.bool_],
    names: Sequence[str],
    thresholds: Sequence[float] | None,
) -> dict[str, dict[str, float]]:
    limits = thresholds or [DEFAULT_THRESHOLD] * len(names)
    aucs = _roc_aucs(logits, labels)
    precision, recall, f1, support = _per_label(labels, said)
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
