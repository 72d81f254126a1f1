"""Baselines that need no prompt: majority class, TF-IDF, and a linear probe of the frozen base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from torch import nn

from peftune.baselines.baseline import Scores, against, scores_of
from peftune.data.rows import Rows
from peftune.data.task_data import Task
from peftune.models.inference import fit_head, predict_logits, with_head
from peftune.models.prepare import preparation_of, prepare_model
from peftune.recipe import Recipe
from peftune.strategies import HeadOnly
from peftune.tasks.multi_label import labels_metrics
from peftune.tasks.regression import number_metrics


def majority_predictions(train: Rows, evaluation: Rows) -> list[int]:
    """Predict the most frequent label of train for every row; of equally frequent ones the first id."""
    return [int(np.bincount(train.labels).argmax())] * len(evaluation)


def tfidf_predictions(train: Rows, evaluation: Rows) -> list[int]:
    """Fit words and word pairs of train with scikit-learn's defaults, and classify the rows."""
    model = words_with(train, list(train.labels))
    return [int(label) for label in model.predict(list(evaluation.texts))]


def words_with(train: Rows, labels: Any, estimator: Any = None) -> Pipeline:  # noqa: ANN401 - scikit-learn's
    """Fit an estimator to words and word pairs of train.

    Args:
        train: the texts.
        labels: one a text.
        estimator: of scikit-learn; a logistic regression without.
    """
    # Tokens of one character count too, so that no text set leaves an empty vocabulary.
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\S+")  # noqa: S106 - a pattern, no password
    model = make_pipeline(vectorizer, estimator or LogisticRegression(max_iter=1000))
    return model.fit(list(train.texts), labels)


def linear_probe_predictions(model: nn.Module, train: Rows, evaluation: Rows) -> list[int]:
    """Fit a logistic regression to what the head reads of train, and classify the rows.

    The head reads the last token's state after the last layer norm. What `head-only` reaches in
    many steps is found here at its optimum, so it is what the pre-trained features alone are worth.

    Args:
        model: a prepared model whose backbone is the base; it is as it was afterwards.
        train: the only rows that are fitted.
        evaluation: rows to classify.

    Raises:
        UsageError: a label has no rows in train.

    References:
        Alain and Bengio 2016, Understanding intermediate layers using linear classifier probes,
        arXiv:1610.01644.
    """
    preparation = preparation_of(model)
    head = fit_head(model, train.texts, train.labels)
    with with_head(model, head):
        logits = predict_logits(
            model, preparation.tokenizer, evaluation.texts, max_length=preparation.max_length
        )
    return [int(label) for label in logits.argmax(-1)]


def frozen_base(recipe: Recipe, task: Task) -> nn.Module:
    """Load the base in float32 with a head to fit; its backbone is frozen, so it stays the base."""
    return prepare_model(
        recipe.model.name_or_path,
        HeadOnly(),
        labels=task.labels,
        revision=recipe.model.revision,
        max_length=recipe.model.max_length,
        use_cpu=recipe.training.use_cpu,
    )


EVERY_LABEL = "every_label"

_LEAST_SHARE = 1e-3
"""The lowest probability of a label that no row of train has."""


def baseline_predictions(task: Task, evaluation: Rows) -> dict[str, list[int]]:
    """Return each baseline's label ids by name; empty for other tasks than single-label."""
    if task.kind != "single-label":
        return {}
    return {
        "majority": majority_predictions(task.train, evaluation),
        "tfidf_logistic_regression": tfidf_predictions(task.train, evaluation),
    }


def baseline_scores(
    task: Task,
    evaluation: Rows,
    *,
    predictions: Mapping[str, Sequence[int]] | None = None,
    logits: NDArray[np.floating[Any]] | None = None,
    seed: int = 0,
) -> dict[str, Scores]:
    """Score the baselines on the rows of the final score.

    Args:
        task: its rows of train are fitted.
        evaluation: the rows.
        predictions: from `baseline_predictions`, where they are known already.
        logits: the model's logits, (rows, labels), to compare it with a baseline row by row; None
            where there is no model yet.
        seed: seed of the test of that comparison.

    Returns:
        By name. Single-label: accuracy and macro F1 of `majority` (the most frequent class of
        train) and of `tfidf_logistic_regression` (words and word pairs, scikit-learn's defaults),
        and with logits what `against` returns for each.
        Multi-label: the same two, for each label apart, with the loss, and the macro F1 of
        `every_label` (every label for every row), which no guess exceeds. Regression: squared error
        and correlation of `mean` (of train) and of `tfidf_ridge`.
    """
    if task.kind == "multi-label":
        return _of_labels(task.train, evaluation, len(task.labels))
    if task.kind == "regression":
        return _of_numbers(task.train, evaluation)
    classes = sorted({*task.train.labels, *evaluation.labels})
    predicted_by = predictions or baseline_predictions(task, evaluation)
    scores = {
        name: scores_of(evaluation.labels, predicted, classes=classes)
        for name, predicted in predicted_by.items()
    }
    if logits is None:
        return scores
    model, labels = logits.argmax(-1).tolist(), logits.shape[-1]
    return {
        name: scores[name] | against(evaluation.labels, predicted, model, labels=labels, seed=seed)
        for name, predicted in predicted_by.items()
    }


def _of_labels(train: Rows, evaluation: Rows, labels: int) -> dict[str, Scores]:
    """Score two baselines that take each label for itself, on the rows where it is known."""
    truth, rows = np.asarray(evaluation.labels, np.float64), np.asarray(train.labels, np.float64)
    rates, counted = np.empty((len(evaluation), labels)), np.empty((len(evaluation), labels))
    for column in range(labels):
        known = np.flatnonzero(~np.isnan(rows[:, column])).tolist()
        cells = rows[known, column].astype(np.int64)
        share = float(cells.mean()) if len(cells) else 0.5
        rates[:, column] = share
        counted[:, column] = (
            words_with(train.take(known), cells).predict_proba(list(evaluation.texts))[:, 1]
            if len(set(cells.tolist())) > 1
            else share
        )
    least = np.array([_LEAST_SHARE, 1 - _LEAST_SHARE])
    scores = {
        name: _named(labels_metrics(logit(np.clip(probabilities, *least)), truth))
        for name, probabilities in (("majority", rates), ("tfidf_logistic_regression", counted))
    }
    every = labels_metrics(np.ones_like(rates), truth)
    # It has no probabilities, so it has no loss.
    return {**scores, EVERY_LABEL: {"macro_f1": float(every["macro_f1"] or 0.0)}}


def _of_numbers(train: Rows, evaluation: Rows) -> dict[str, Scores]:
    truth, numbers = np.asarray(evaluation.labels), np.asarray(train.labels)
    counted = words_with(train, numbers, Ridge()).predict(list(evaluation.texts))
    return {
        "mean": _named(number_metrics(np.full((len(evaluation), 1), numbers.mean()), truth)),
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
