"""The artifact is stored in float32 although bfloat16 was asked for."""

from __future__ import annotations

from peftune.diagnosis.finding import Facts, Finding, Pitfall

PITFALL = Pitfall(
    code="kept-float32",
    scope="run",
    looks_for="The artifact is twice as large as `save.dtype` asks for.",
    threshold="Rounding the learned weights to bfloat16 changes the predicted label of a validation row.",
)


def find_kept_float32(facts: Facts) -> Finding | None:
    """Look whether rounding was given up."""
    if facts.rounding is None or not facts.rounding.flips:
        return None
    found = facts.rounding
    return PITFALL.found(
        "note",
        f"In bfloat16 the labels of {found.flips} of {found.texts} validation rows would change, so the artifact is stored in float32.",
        "Nothing is lost but bytes; set save.dtype: float32 to ask for no more.",
    )
