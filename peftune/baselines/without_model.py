"""The baselines of every single run: those that need no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from sklearn.linear_model import Ridge

from peftune.baselines.majority import majority_predictions
from peftune.baselines.scores import Scores, against, scores_of
from peftune.baselines.tfidf import tfidf_predictions, words_with
from peftune.data.rows import Rows
from peftune.data.task import Task
from peftune.tasks.multi_label import labels_metrics
from peftune.tasks.regression import number_metrics

EVERY_LABEL = "every_label"

_LEAST_SHARE = 1e-3
"""A label that no row of train has is said with this probability, and not with none."""


def baseline_predictions(task: Task, judged: Rows) -> dict[str, list[int]]:
    """Give the label id that each baseline says of each row, by name; of single-label tasks alone."""
    if task.kind != "single-label":
        return {}
    return {
        "majority": majority_predictions(task.train, judged),
        "tfidf_logistic_regression": tfidf_predictions(task.train, judged),
    }


def baseline_scores(
    task: Task,
    judged: Rows,
    *,
    predictions: Mapping[str, Sequence[int]] | None = None,
    logits: NDArray[np.floating[Any]] | None = None,
    seed: int = 0,
) -> dict[str, Scores]:
    """Score the baselines on the rows of the final score.

    Args:
        task: its rows of train are fitted.
        judged: the rows.
        predictions: from `baseline_predictions`, where they are known already.
        logits: what the model says of them, (rows, labels), to compare it with a baseline row by row;
            None where there is no model yet.
        seed: seed of the test of that comparison.

    Returns:
        By name. Single-label: accuracy and macro F1 of `majority` (the most frequent class of
        train) and of `tfidf_logistic_regression` (words and word pairs, scikit-learn's defaults),
        and with logits what `against` says of each.
        Multi-label: the same two, for each label apart, with the loss, and the macro F1 of
        `every_label` (every label for every row), which no guess exceeds. Regression: squared error
        and correlation of `mean` (of train) and of `tfidf_ridge`.
    """
    if task.kind == "multi-label":
        return _of_labels(task.train, judged, len(task.labels))
    if task.kind == "regression":
        return _of_numbers(task.train, judged)
    classes = sorted({*task.train.labels, *judged.labels})
    said_by = predictions or baseline_predictions(task, judged)
    scores = {
        name: scores_of(judged.labels, predicted, classes=classes)
        for name, predicted in said_by.items()
    }
    if logits is None:
        return scores
    said, labels = logits.argmax(-1).tolist(), logits.shape[-1]
    return {
        name: scores[name] | against(judged.labels, predicted, said, labels=labels, seed=seed)
        for name, predicted in said_by.items()
    }


def _of_labels(train: Rows, judged: Rows, labels: int) -> dict[str, Scores]:
    """Score two baselines that take each label for itself, on the rows where it is known."""
    truth, rows = np.asarray(judged.labels, np.float64), np.asarray(train.labels, np.float64)
    rates, counted = np.empty((len(judged), labels)), np.empty((len(judged), labels))
    for column in range(labels):
        known = np.flatnonzero(~np.isnan(rows[:, column])).tolist()
        cells = rows[known, column].astype(np.int64)
        share = float(cells.mean()) if len(cells) else 0.5
        rates[:, column] = share
        counted[:, column] = (
            words_with(train.take(known), cells).predict_proba(list(judged.texts))[:, 1]
            if len(set(cells.tolist())) > 1
            else share
        )
    least = np.array([_LEAST_SHARE, 1 - _LEAST_SHARE])
    scores = {
        name: _named(labels_metrics(logit(np.clip(probabilities, *least)), truth))
        for name, probabilities in (("majority", rates), ("tfidf_logistic_regression", counted))
    }
    every = labels_metrics(np.ones_like(rates), truth)
    # It says nothing of probabilities, so it has no loss.
    return {**scores, EVERY_LABEL: {"macro_f1": float(every["macro_f1"] or 0.0)}}


def _of_numbers(train: Rows, judged: Rows) -> dict[str, Scores]:
    truth, numbers = np.asarray(judged.labels), np.asarray(train.labels)
    counted = words_with(train, numbers, Ridge()).predict(list(judged.texts))
    return {
        "mean": _named(number_metrics(np.full((len(judged), 1), numbers.mean()), truth)),
        "tfidf_ridge": _named(number_metrics(counted.reshape(-1, 1), truth)),
    }


def _named(metrics: dict[str, float | None]) -> Scores:
    """Keep the metrics that a baseline is shown with, and its loss under the name of a model's."""
    kept = {
        name: value
        for name in ("accuracy", "macro_f1", "mse", "pearson", "spearman")
        if (value := metrics.get(name)) is not None
    }
    loss = metrics.get("log_loss", metrics.get("mse"))
    return kept if loss is None else {**kept, "loss": loss}
