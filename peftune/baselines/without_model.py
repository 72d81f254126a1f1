"""The baselines of every single run: those that need no model."""

from __future__ import annotations

from peftune.baselines.majority import majority_predictions
from peftune.baselines.scores import Scores, scores_of
from peftune.baselines.tfidf import tfidf_predictions
from peftune.data.rows import Rows


def baseline_scores(train: Rows, judged: Rows) -> dict[str, Scores]:
    """Score the baselines on the rows of the final score.

    Returns:
        Accuracy and macro F1 of `majority` (the most frequent class of train) and of
        `tfidf_logistic_regression` (words and word pairs, scikit-learn's defaults).
    """
    predictions = {
        "majority": majority_predictions(train, judged),
        "tfidf_logistic_regression": tfidf_predictions(train, judged),
    }
    classes = sorted({*train.labels, *judged.labels})
    return {
        name: scores_of(judged.labels, predicted, classes=classes)
        for name, predicted in predictions.items()
    }
