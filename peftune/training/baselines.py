"""What a score has to beat: the majority class, and words counted without any model."""

from __future__ import annotations

from collections import Counter

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline

from peftune.data.rows import Rows

Scores = dict[str, float]


def baseline_scores(train: Rows, judged: Rows) -> dict[str, Scores]:
    """Score the baselines on the rows of the final score.

    Returns:
        Accuracy and macro F1 of `majority` (the most frequent class of train) and of
        `tfidf_logistic_regression` (words and word pairs, scikit-learn's defaults).
    """
    majority = Counter(train.labels).most_common(1)[0][0]
    predictions = {
        "majority": [majority] * len(judged),
        "tfidf_logistic_regression": _tfidf_predictions(train, judged),
    }
    classes = sorted({*train.labels, *judged.labels})
    return {name: _scores(judged, labels, classes) for name, labels in predictions.items()}


def _tfidf_predictions(train: Rows, judged: Rows) -> list[int]:
    # Tokens of one character count too, so that no text set leaves an empty vocabulary.
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\S+")  # noqa: S106 - a pattern, no password
    model = make_pipeline(vectorizer, LogisticRegression(max_iter=1000))
    model.fit(list(train.texts), list(train.labels))
    return [int(label) for label in model.predict(list(judged.texts))]


def _scores(judged: Rows, predicted: list[int], classes: list[int]) -> Scores:
    return {
        "accuracy": float(accuracy_score(judged.labels, predicted)),
        "macro_f1": float(
            f1_score(judged.labels, predicted, labels=classes, average="macro", zero_division=0)
        ),
    }
