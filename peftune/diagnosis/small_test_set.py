"""The test rows are too few to tell the gain."""

from __future__ import annotations

import math

from peftune.diagnosis.finding import Facts, Finding, Pitfall

_TWO_SIDED_5_PERCENT = 1.96

PITFALL = Pitfall(
    code="small-test-set",
    scope="run",
    looks_for="So few rows were scored that a gain over the best baseline of this size may be chance.",
    threshold="The gain is above zero, and the lower half of the accuracy's 95% interval (Wilson's, which holds for few rows and near 1) is wider than it.",
)


def find_small_test_set(facts: Facts) -> Finding | None:
    """Look whether the rows are too few for the gain over the best baseline."""
    learning = facts.learning
    if learning.task != "single-label" or learning.accuracy is None:
        return None
    scores = {name: values["accuracy"] for name, values in learning.baselines.items()}
    best = max(scores, key=scores.__getitem__, default=None)
    if best is None or learning.accuracy <= scores[best]:
        return None
    gain = learning.accuracy - scores[best]
    needed = rows_needed(scores[best], gain=gain)
    if learning.n >= needed:
        return None
    return PITFALL.found(
        "warning",
        f"A gain of {gain:.3f} over the {scores[best]:.3f} of the baseline '{best}' may be chance with {learning.n} {learning.split} rows.",
        f"Telling a gain of this size takes about {needed} rows; it may also be none.",
    )


def rows_needed(baseline: float, *, gain: float) -> int:
    """Say how many rows tell a gain in accuracy from none.

    The lower end of Wilson's interval is where the score test no longer rejects: with n rows, an
    accuracy p is told from b where (p - b)^2 > z^2 b (1 - b) / n. So n = z^2 b (1 - b) / gain^2.
    A true gain of this size is seen with as many rows in half of all draws; in 80 of 100 with
    about twice as many, ((1.96 + 0.84) / 1.96)^2. The baseline counts as a fixed number, though
    its own errors on the same rows would make the comparison sharper: this is on the safe side.

    Args:
        baseline: accuracy of the baseline on the same rows.
        gain: accuracy above it, greater than 0.

    References:
        Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    return math.ceil(_TWO_SIDED_5_PERCENT**2 * baseline * (1 - baseline) / gain**2)
