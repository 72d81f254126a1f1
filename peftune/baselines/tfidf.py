"""The baseline `tfidf_logistic_regression`: words counted, without any pre-trained model."""

from __future__ import annotations

from typing import Any

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from peftune.data.rows import Rows


def tfidf_predictions(train: Rows, judged: Rows) -> list[int]:
    """Fit words and word pairs of train with scikit-learn's defaults, and classify the rows."""
    model = words_with(train, list(train.labels))
    return [int(label) for label in model.predict(list(judged.texts))]


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
