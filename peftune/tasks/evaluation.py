"""Score a model's outputs by the kind of its task; scikit-learn and evaluate come with the first score."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import EvalPrediction

from peftune.data.rows import Labels
from peftune.data.tokens import NOT_KNOWN
from peftune.recipe.task_type import TaskName
from peftune.tasks.scores import Learning

LOWER_IS_BETTER = ("loss", "log_loss", "mse", "mae")


def judge(
    logits: NDArray[np.floating[Any]],
    labels: Labels,
    *,
    names: Sequence[str],
    split: str,
    kind: TaskName = "single-label",
    metric: str | None = None,
    thresholds: Sequence[float] | None = None,
    baselines: Mapping[str, Mapping[str, float]] | None = None,
    curve: Sequence[Mapping[str, Any]] = (),
) -> Learning:
    """Score logits against labels.

    Args:
        logits: (rows, labels).
        labels: labels of the same rows, as `Rows` holds them.
        names: label names in the order of their ids.
        split: which split the rows are.
        kind: what the labels are.
        metric: what the checkpoint was chosen by, which is asked whether anything was learned; the
            task's default where it is None.
        thresholds: multi-label: probability from which a label is said, one a label.
        baselines: scores of baselines on the same rows.
        curve: points of the training curve.

    Raises:
        TrainingError: a logit is not finite.
    """
    if kind == "regression":
        from peftune.tasks.regression import judged_numbers

        learning = judged_numbers(logits, labels, split=split, metric=metric)
    elif kind == "multi-label":
        from peftune.tasks.multi_label import judged_labels

        learning = judged_labels(
            logits, labels, names=names, split=split, metric=metric, thresholds=thresholds
        )
    else:
        from peftune.tasks.single_label import judged_classes

        learning = judged_classes(logits, labels, names=names, split=split, metric=metric)
    return dataclasses.replace(learning, baselines=baselines or {}, curve=curve)


def task_metrics(
    logits: NDArray[np.floating[Any]],
    labels: NDArray[Any],
    kind: TaskName = "single-label",
    thresholds: Sequence[float] | None = None,
) -> dict[str, float | None]:
    """Compute every metric of a kind of task; None where one is not defined.

    Args:
        logits: (rows, labels).
        labels: ids, (rows,); 0, 1 and nan, (rows, labels); or numbers, (rows,).
        kind: what the labels are.
        thresholds: multi-label: probability from which a label is said.

    Raises:
        TrainingError: a logit is not finite.
    """
    if kind == "regression":
        from peftune.tasks.regression import number_metrics

        return number_metrics(logits, labels)
    if kind == "multi-label":
        from peftune.tasks.multi_label import labels_metrics

        return labels_metrics(logits, labels, thresholds)
    from peftune.tasks.metrics import class_metrics

    return class_metrics(logits, labels)


def metrics_for_trainer(
    kind: TaskName = "single-label", thresholds: Sequence[float] | None = None
) -> Callable[[EvalPrediction], dict[str, float]]:
    """Return the metrics in the form that Trainer asks for; those that do not exist are left out."""

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        outputs = prediction.predictions
        logits = np.asarray(outputs[0] if isinstance(outputs, tuple) else outputs)
        labels = np.asarray(prediction.label_ids)
        if kind == "multi-label":
            labels = np.where(labels == NOT_KNOWN, np.nan, labels)
        metrics = task_metrics(logits, labels, kind, thresholds)
        return {name: value for name, value in metrics.items() if value is not None}

    return compute
