"""The task was not learned."""

from __future__ import annotations

from peftune.diagnosis.finding import Facts, Finding, Pitfall
from peftune.tasks.learning import learned_something

PITFALL = Pitfall(
    code="nothing-learned",
    scope="run",
    looks_for="The model says no more of a row than its most frequent label does.",
    threshold="The 95% interval of the accuracy does not lie above the majority class, or that of the loss below the mean of train (multi-label, regression) or below the base's (language modeling): the rule of the verdict.",
)


def find_nothing_learned(facts: Facts) -> Finding | None:
    """Look whether the accuracy lies clearly above the majority class."""
    if learned_something(facts.learning):
        return None
    learning = facts.learning
    if learning.task == "single-label":
        seen = f"The accuracy of {learning.accuracy:.3f} is not clearly above the majority class."
    elif learning.task == "language-modeling":
        seen = f"The loss of {learning.loss:.4f} on the domain's own text is not clearly below the base's."
    else:
        seen = f"The loss of {learning.loss:.4f} is not clearly below that of saying the mean of train for every row."
    return PITFALL.found(
        "warning",
        seen,
        "Raise training.learning_rate or num_train_epochs, or check the labels; forgetting says nothing without learning.",
    )
