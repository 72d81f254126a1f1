"""General ability was lost."""

from __future__ import annotations

import math

from peftune.findings.facts import RunFacts
from peftune.findings.finding import Finding, FindingType
from peftune.forgetting.callback import KEY

FORGETTING = FindingType(
    code="forgetting",
    scope="run",
    looks_for="The model lost general ability that the base had.",
    threshold="The verdict on a probe is `forgot`: the 95% interval of the loss lies above zero, and its 90% interval is not below the probe's margin.",
)


def find_forgetting(facts: RunFacts) -> Finding | None:
    """Look for probes that are judged forgot; the one furthest past its margin comes first."""
    forgot = [probe for probe in facts.probes if probe.verdict == "forgot"]
    if not forgot:
        return None
    forgot.sort(key=lambda probe: probe.forgetting / (probe.margin or 1.0), reverse=True)
    losses = ", ".join(
        f"'{probe.name}' {probe.before:.3f} to {probe.after:.3f} {probe.unit} ({probe.forgetting:+.4f}, allowed {probe.margin:g})"
        for probe in forgot
    )
    return FORGETTING.found("warning", f"The model forgot: {losses}.", _advice(facts))


def _advice(facts: RunFacts) -> str:
    """Name the dials that this run has not turned yet."""
    dials = ["lower training.learning_rate", "train for fewer epochs"]
    if not facts.recipe.forgetting.regularizers:
        dials.append("add a regularizer (forgetting.regularizers: kl-to-base or replay)")
    if facts.recipe.strategy.name == "full":
        dials.append("try lora or head-only")
    sentence = f"{', '.join(dials)}, or scale the change down after training with 'peftune adapter rescale'."
    return f"{sentence[0].upper()}{sentence[1:]} Each may cost accuracy: compare."


OVER_BUDGET = FindingType(
    code="over-budget",
    scope="run",
    looks_for="No checkpoint could be chosen, so the last weights were kept.",
    threshold="Every checkpoint forgot more than `forgetting.budget` on the text measured during training.",
)


def find_over_budget(facts: RunFacts) -> Finding | None:
    """Look for a checkpoint within the budget."""
    budget = facts.recipe.forgetting.budget
    least = _least_forgetting(facts)
    if budget is None or least is None or least <= budget:
        return None
    return OVER_BUDGET.found(
        "warning",
        f"Every checkpoint forgot more than the budget of {budget:g} bits per byte on the text measured during training, at least {least:+.4f}. None could be chosen, so the weights are those of the last step.",
        "Hold forgetting down with forgetting.regularizers, lower training.learning_rate, evaluate more often, or raise forgetting.budget.",
    )


def _least_forgetting(facts: RunFacts) -> float | None:
    """Return the smallest value that was measured during training; None where none was."""
    watched = facts.recipe.forgetting.during_training
    if watched is None:
        return None
    key = f"{KEY}{watched.probe.label}"
    found = [point[key] for point in facts.training.curve if key in point]
    return min((math.inf if math.isnan(value) else value for value in found), default=None)


CONTROL_FAILED = FindingType(
    code="control-failed",
    scope="run",
    looks_for="The forgetting figures rest on a base that is not the base.",
    threshold="`adapter_off_forgetting` is not exactly 0.0; switching the adapter off is exact, so any other value is a fault.",
)


def find_failed_control(facts: RunFacts) -> Finding | None:
    """Look whether the model with its adapter off is the base."""
    if facts.control in {None, 0.0}:
        return None
    return CONTROL_FAILED.found(
        "error",
        f"With the adapter off the model is not the base: a change of {facts.control:.3g} bits per byte remains.",
        "Do not use the forgetting figures; the strategy changes weights that it does not declare.",
    )
