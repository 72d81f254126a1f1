"""The final score is of the rows that chose the checkpoint."""

from __future__ import annotations

from peftune.diagnosis.finding import Facts, Finding, Pitfall

PITFALL = Pitfall(
    code="scored-on-validation",
    scope="run",
    looks_for="The score is too high, for its rows chose the checkpoint.",
    threshold="There are no test rows.",
)


def find_score_on_validation(facts: Facts) -> Finding | None:
    """Look whether there were rows of their own for the final score."""
    if facts.learning.split != "validation":
        return None
    return PITFALL.found(
        "warning",
        "There are no test rows, so the final score is of the rows that chose the best checkpoint, and is too high.",
        "Set data.test_file or data.test_split.",
    )
