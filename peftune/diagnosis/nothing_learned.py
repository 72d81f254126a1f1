"""The task was not learned."""

from __future__ import annotations

from peftune.diagnosis.finding import Facts, Finding, Pitfall
from peftune.training.learning import learned_something

PITFALL = Pitfall(
    code="nothing-learned",
    scope="run",
    looks_for="The model says no more of a row than its most frequent label does.",
    threshold="The 95% interval of the accuracy does not lie above the majority class: the rule of the verdict.",
)


def find_nothing_learned(facts: Facts) -> Finding | None:
    """Look whether the accuracy lies clearly above the majority class."""
    if learned_something(facts.learning):
        return None
    return PITFALL.found(
        "warning",
        f"The accuracy of {facts.learning.accuracy:.3f} is not clearly above the majority class.",
        "Raise training.learning_rate or num_train_epochs, or check the labels; forgetting says nothing without learning.",
    )
