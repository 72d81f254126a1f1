"""The task was not learned."""

from __future__ import annotations

from peftune.diagnosis.finding import Facts, Finding, Pitfall
from peftune.tasks.headline import score_of, title_of_metric
from peftune.tasks.learning import Learning, learned_something

PITFALL = Pitfall(
    code="nothing-learned",
    scope="run",
    looks_for="The model says no more of a row than can be said without reading it.",
    threshold="The score that the checkpoint is chosen by (`training.metric_for_best_model`) is not significantly better, one-sided at 2.5%, than the best that is had without reading: the rule of the verdict. Scores of labels: 1,999 permutations of the rows (399 of more than 10,000 rows), against the best constant answer and, for macro F1, guessing by frequency, which has one by the number of labels. Regression: the errors against those of the best constant, or the correlation against 0. Language modeling: the loss against the base's.",
)


def find_nothing_learned(facts: Facts) -> Finding | None:
    """Look whether the score that chose the checkpoint is more than can be had without reading."""
    learning = facts.learning
    if learned_something(learning):
        return None
    return PITFALL.found(
        "warning",
        _seen(learning),
        f"Raise training.learning_rate or num_train_epochs, or check the labels; forgetting says nothing without learning.{_ranks(learning)}",
    )


def _seen(learning: Learning) -> str:
    if learning.task == "language-modeling":
        return f"The loss of {learning.loss:.4f} on the domain's own text is not clearly below the base's."
    significance = learning.significance
    if significance is None:
        return f"The loss of {learning.loss:.4f} is not clearly better than what is had without reading."
    value = score_of(learning, significance.metric)
    shown = "" if value is None else f" of {value:.3f}"
    return f"The {title_of_metric(significance.metric)}{shown} is not clearly better than the {significance.without_reading:.3f} that is had without reading (p = {significance.p_value:.2g})."


def _ranks(learning: Learning) -> str:
    """Point to what the probabilities know and the labels do not say."""
    interval = learning.ci95.get("roc_auc")
    value = learning.metrics.get("roc_auc")
    if interval is None or value is None or interval[0] <= 0.5:  # noqa: PLR2004 - a coin
        return ""
    mend = (
        "training.label_threshold: validation"
        if learning.task == "multi-label"
        else "training.class_weights: balanced"
    )
    return f" The probabilities do rank rows (ROC AUC {value:.3f}), but labels are said from the wrong probability on: {mend} moves it, and training.metric_for_best_model: roc_auc asks for the ranking."
