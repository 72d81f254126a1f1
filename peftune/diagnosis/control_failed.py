"""The control of the forgetting measurement failed."""

from __future__ import annotations

from peftune.diagnosis.finding import Facts, Finding, Pitfall

PITFALL = Pitfall(
    code="control-failed",
    scope="run",
    looks_for="The forgetting figures rest on a base that is not the base.",
    threshold="`adapter_off_forgetting` is not exactly 0.0; switching the adapter off is exact, so any other value is a fault.",
)


def find_failed_control(facts: Facts) -> Finding | None:
    """Look whether the model with its adapter off is the base."""
    if facts.control in {None, 0.0}:
        return None
    return PITFALL.found(
        "error",
        f"With the adapter off the model is not the base: a change of {facts.control:.3g} bits per byte remains.",
        "Do not use the forgetting figures; the strategy changes weights that it does not declare.",
    )
