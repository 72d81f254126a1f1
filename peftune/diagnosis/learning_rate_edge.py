"""The best learning rate of a search lies at the end of its range."""

from __future__ import annotations

import math

from peftune.diagnosis.finding import Finding, Pitfall
from peftune.errors import UsageError

_EDGE = 0.05

PITFALL = Pitfall(
    code="learning-rate-at-edge",
    scope="tuning",
    looks_for="The best learning rate may lie outside the range that was searched.",
    threshold=f"It lies within {_EDGE:.0%} of an end of the range (of its logarithm, where that was searched). A draw that knows nothing falls there once in ten, so a single search may be wrong.",
)


def learning_rate_at_edge(
    value: float, low: float, high: float, *, log: bool = True
) -> Finding | None:
    """Look whether the best learning rate of a search lies at an end of its range.

    Args:
        value: the best learning rate.
        low: lower end of the range.
        high: upper end of the range.
        log: whether the range was searched by its logarithm.

    Raises:
        UsageError: the range is empty, has no logarithm, or does not hold the value.
    """
    if not low <= value <= high or low == high or (log and low <= 0):
        message = f"A learning rate lies in a range from a lower to a higher value, above 0 for a logarithm (got {value:g} in {low:g} to {high:g})."
        raise UsageError(message)
    scale = math.log if log else float
    place = (scale(value) - scale(low)) / (scale(high) - scale(low))
    if _EDGE < place < 1 - _EDGE:
        return None
    end, further = ("lower", "lower") if place <= _EDGE else ("upper", "higher")
    return PITFALL.found(
        "warning",
        f"The best learning rate, {value:g}, lies at the {end} end of the range that was searched, {low:g} to {high:g}.",
        f"Search {further} learning rates too: the best one may lie outside.",
    )
