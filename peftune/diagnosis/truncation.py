"""Texts were cut."""

from __future__ import annotations

from peftune.diagnosis.finding import Facts, Finding, Pitfall

_MANY = 0.05

PITFALL = Pitfall(
    code="truncation",
    scope="run",
    looks_for="What decides the label may stand in the part that was cut off.",
    threshold=f"More than {_MANY:.0%} of the training texts are longer than `model.max_length`; fewer could move the accuracy by no more than that share.",
)


def find_truncation(facts: Facts) -> Finding | None:
    """Look whether many training texts were cut."""
    cut, rows = facts.training.truncated, facts.train_rows
    if cut <= _MANY * rows:
        return None
    return PITFALL.found(
        "warning",
        f"{cut} of {rows} training texts are longer than {facts.recipe.model.max_length} tokens and were cut.",
        "Raise model.max_length.",
    )
