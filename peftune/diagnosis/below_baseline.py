"""Counting words does as well."""

from __future__ import annotations

from peftune.diagnosis.finding import Facts, Finding, Pitfall
from peftune.tasks.learning import learned_something

_BASELINE = "tfidf_logistic_regression"

PITFALL = Pitfall(
    code="below-baseline",
    scope="run",
    looks_for="A classifier that counts words, and takes a second to train, does as well.",
    threshold="Neither the 95% interval of the accuracy nor that of macro F1 lies above TF-IDF with logistic regression. Not said where nothing was learned, which says more.",
)


def find_below_baseline(facts: Facts) -> Finding | None:
    """Look whether accuracy or macro F1 lies clearly above TF-IDF with logistic regression.

    Balanced weights, and a label that is rare, set the two against each other.
    """
    learning = facts.learning
    if learning.task != "single-label":
        return None
    interval, scores = learning.ci95["accuracy"], learning.baselines.get(_BASELINE)
    if interval is None or scores is None or not learned_something(learning):
        return None
    f1 = learning.ci95.get("macro_f1")
    if interval[0] > scores["accuracy"] or (f1 and f1[0] > scores.get("macro_f1", 1.0)):
        return None
    return PITFALL.found(
        "warning",
        f"The accuracy of {learning.accuracy:.3f} [{interval[0]:.3f}, {interval[1]:.3f}] is not clearly above the {scores['accuracy']:.3f} of TF-IDF with logistic regression.",
        "Train longer, on more rows or with another training.learning_rate, take a larger base, or use the word counts.",
    )
