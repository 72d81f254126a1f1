"""No checkpoint kept the forgetting budget."""

from __future__ import annotations

import math

from peftune.diagnosis.finding import Facts, Finding, Pitfall
from peftune.training.forgetting_callback import KEY

PITFALL = Pitfall(
    code="over-budget",
    scope="run",
    looks_for="No checkpoint could be chosen, so the last weights were kept.",
    threshold="Every checkpoint forgot more than `forgetting.budget` on the text measured during training.",
)


def find_over_budget(facts: Facts) -> Finding | None:
    """Look for a checkpoint within the budget."""
    budget = facts.recipe.forgetting.budget
    least = _least_forgetting(facts)
    if budget is None or least is None or least <= budget:
        return None
    return PITFALL.found(
        "warning",
        f"Every checkpoint forgot more than the budget of {budget:g} bits per byte on the text measured during training, at least {least:+.4f}. None could be chosen, so the weights are those of the last step.",
        "Hold forgetting down with forgetting.regularizers, lower training.learning_rate, evaluate more often, or raise forgetting.budget.",
    )


def _least_forgetting(facts: Facts) -> float | None:
    """Return the smallest value that was measured during training; None where none was."""
    watched = facts.recipe.forgetting.during_training
    if watched is None:
        return None
    key = f"{KEY}{watched.probe.label}"
    found = [point[key] for point in facts.training.curve if key in point]
    return min((math.inf if math.isnan(value) else value for value in found), default=None)
