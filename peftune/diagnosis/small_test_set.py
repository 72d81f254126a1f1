"""The test rows are too few to tell the gain."""

from __future__ import annotations

import math

from peftune.diagnosis.finding import Facts, Finding, Pitfall
from peftune.stats.scores import ONE_SIDED, better_p_value

_TWO_SIDED_5_PERCENT = 1.96
_POWER_80_PERCENT = 0.84

PITFALL = Pitfall(
    code="small-test-set",
    scope="run",
    looks_for="So few rows were scored that a gain over the best baseline of this size may be chance.",
    threshold=f"The gain in accuracy is above zero, and the exact McNemar test of the rows that only one of the two has right does not reject chance (one-sided, {ONE_SIDED:.1%}). The number of rows said is that which shows such a gain, with as large a share of such rows, in 80 of 100 cases.",
)


def find_small_test_set(facts: Facts) -> Finding | None:
    """Look whether the rows are too few for the gain over the best baseline."""
    learning = facts.learning
    if learning.task != "single-label" or learning.accuracy is None:
        return None
    scores = {name: values["accuracy"] for name, values in learning.baselines.items()}
    best = max(scores, key=scores.__getitem__, default=None)
    if best is None or "wrong_alone" not in learning.baselines[best]:
        return None
    gained, lost = (int(learning.baselines[best][k]) for k in ("wrong_alone", "right_alone"))
    if gained <= lost or better_p_value(gained, lost) <= ONE_SIDED:
        return None
    gain = (gained - lost) / learning.n
    needed = rows_needed((gained + lost) / learning.n, gain=gain)
    return PITFALL.found(
        "warning",
        f"A gain of {gain:.3f} over the {scores[best]:.3f} of the baseline '{best}' may be chance with {learning.n} {learning.split} rows: {gained} are right that it has wrong, {lost} wrong that it has right.",
        f"Telling a gain of this size takes about {needed} rows; it may also be none.",
    )


def rows_needed(discordant: float, *, gain: float) -> int:
    """Say how many rows show a gain in accuracy in 80 of 100 cases, two-sided at 5%.

    Both answered the same rows, so what varies is which rows one alone has right. The exact test
    asks for about one discordant row more than Connor's normal approximation: for 1 / gain rows.

    Args:
        discordant: share of the rows that one of the two alone has right.
        gain: accuracy above the baseline, greater than 0.

    References:
        Connor 1987, Sample size for testing differences in proportions for the paired-sample
        design, Biometrics 43.
    """
    spread = _TWO_SIDED_5_PERCENT * math.sqrt(discordant)
    power = _POWER_80_PERCENT * math.sqrt(discordant - gain**2)
    return math.ceil(((spread + power) / gain) ** 2 + 1 / gain)
