"""The task was not learned."""

from __future__ import annotations

from peftune.diagnosis.finding import Facts, Finding, Pitfall
from peftune.tasks.headline import score_of
from peftune.tasks.learning import Learning, learned_something

_TITLES = {"macro_f1": "macro F1", "roc_auc": "ROC AUC", "pearson": "Pearson"}

PITFALL = Pitfall(
    code="nothing-learned",
    scope="run",
    looks_for="The model says no more of a row than can be said without reading it.",
    threshold="No 95% interval of a headline score lies above what no reading reaches: the rule of the verdict. Single-label: accuracy above the majority class, macro F1 above one by the number of labels (guessing by their frequencies), or ROC AUC above 0.5. Multi-label: the loss below saying each label's share of train, macro F1 above giving every label to every row, or ROC AUC above 0.5. Regression: the squared error below the mean of train, or Pearson above 0. Language modeling: the loss below the base's. One is enough, for class_weights: balanced gives accuracy and likelihood away for F1.",
)


def find_nothing_learned(facts: Facts) -> Finding | None:
    """Look whether any headline score lies clearly above what can be had without reading."""
    if learned_something(facts.learning):
        return None
    learning = facts.learning
    if learning.task == "single-label":
        seen = f"The accuracy of {learning.accuracy:.3f} is not clearly above the majority class{_others(learning, ('macro_f1', 'roc_auc'))}."
    elif learning.task == "language-modeling":
        seen = f"The loss of {learning.loss:.4f} on the domain's own text is not clearly below the base's."
    elif learning.task == "multi-label":
        seen = f"The loss of {learning.loss:.4f} is not clearly below that of saying each label's share of train for every row{_others(learning, ('macro_f1', 'roc_auc'))}."
    else:
        seen = f"The loss of {learning.loss:.4f} is not clearly below that of saying the mean of train for every row{_others(learning, ('pearson',))}."
    return PITFALL.found(
        "warning",
        seen,
        "Raise training.learning_rate or num_train_epochs, or check the labels; forgetting says nothing without learning.",
    )


def _others(learning: Learning, names: tuple[str, ...]) -> str:
    """Say of the other scores that there are: `, and neither macro F1 (0.312) nor … is above a guess`."""
    known = [
        f"{_TITLES[name]} ({value:.3f})"
        for name in names
        if (value := score_of(learning, name)) is not None
    ]
    if not known:
        return ""
    if len(known) == 1:
        return f", and {known[0]} is not above a guess"
    return f", and neither {' nor '.join(known)} is above a guess"
