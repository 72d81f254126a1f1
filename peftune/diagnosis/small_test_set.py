"""The test rows are too few to tell the gain."""

from __future__ import annotations

import math

from peftune.diagnosis.finding import Facts, Finding, Pitfall

PITFALL = Pitfall(
    code="small-test-set",
    scope="run",
    looks_for="The gain over the best baseline is smaller than what chance does to a score on so few rows.",
    threshold="Half the width of the accuracy's 95% interval is larger than the gain, so another draw of as many rows could show none.",
)


def find_small_test_set(facts: Facts) -> Finding | None:
    """Look whether the interval is wider than the gain over the best baseline."""
    learning = facts.learning
    interval = learning.ci95["accuracy"]
    scores = {name: values["accuracy"] for name, values in learning.baselines.items()}
    if interval is None or not scores:
        return None
    best = max(scores, key=lambda name: scores[name])
    gain = learning.accuracy - scores[best]
    half = (interval[1] - interval[0]) / 2
    if gain <= 0 or half <= gain:
        return None
    return PITFALL.found(
        "warning",
        f"The gain of {gain:.3f} over the baseline '{best}' is less than the ±{half:.3f} of {learning.n} {learning.split} rows.",
        f"About {rows_needed(learning.n, half_width=half, gain=gain)} rows would tell a gain of this size; it may also be none.",
    )


def rows_needed(n: int, *, half_width: float, gain: float) -> int:
    """Say how many rows make the interval as narrow as the gain.

    A mean of `n` independent rows has an interval whose width falls with the root of `n`, so
    half_width * sqrt(n / m) = gain gives m = n * (half_width / gain)^2. The baseline counts as a
    fixed number. That gain is then seen in half of all draws; to see it in 80 of 100 takes about
    twice as many rows, ((1.96 + 0.84) / 1.96)^2.

    Args:
        n: rows scored.
        half_width: half the width of the 95% interval.
        gain: what is to be told from zero.
    """
    return math.ceil(n * (half_width / gain) ** 2)
