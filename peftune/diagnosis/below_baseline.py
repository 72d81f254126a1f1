"""Counting words does as well."""

from __future__ import annotations

from peftune.diagnosis.finding import Facts, Finding, Pitfall
from peftune.stats.scores import ONE_SIDED, better_p_value
from peftune.tasks.learning import learned_something

_BASELINE = "tfidf_logistic_regression"

PITFALL = Pitfall(
    code="below-baseline",
    scope="run",
    looks_for="A classifier that counts words, and takes a second to train, does as well.",
    threshold=f"The model is significantly better than TF-IDF with logistic regression on the same rows neither in accuracy (exact McNemar test) nor in macro F1 (the answers of the two swapped at random), both one-sided at {ONE_SIDED:.1%}. Not said where nothing was learned, which says more.",
)


def find_below_baseline(facts: Facts) -> Finding | None:
    """Look whether accuracy or macro F1 is significantly above TF-IDF with logistic regression.

    Balanced weights, and a label that is rare, set the two against each other.
    """
    learning, scores = facts.learning, facts.learning.baselines.get(_BASELINE)
    if learning.task != "single-label" or scores is None or "wrong_alone" not in scores:
        return None
    if not learned_something(learning):
        return None
    gained, lost = int(scores["wrong_alone"]), int(scores["right_alone"])
    p_value = better_p_value(gained, lost)
    if min(p_value, scores.get("macro_f1_p_value", 1.0)) <= ONE_SIDED:
        return None
    return PITFALL.found(
        "warning",
        f"The accuracy of {learning.accuracy:.3f} is not significantly above the {scores['accuracy']:.3f} of TF-IDF with logistic regression: of {learning.n} rows {gained} are right that it has wrong, and {lost} wrong that it has right (p = {p_value:.3f}).",
        "Train longer, on more rows or with another training.learning_rate, take a larger base, or use the word counts.",
    )
