"""The strategies that no other beats in both of two figures at once."""

from __future__ import annotations

from collections.abc import Mapping


def front(figures: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the names that no other dominates, in the order given.

    One dominates another if it is at least as good in both figures and better in one; of equal
    ones both stay.

    Args:
        figures: by name, what to have much of (accuracy) and what to have little of.
    """
    return [
        name
        for name, (gain, price) in figures.items()
        if not any(
            other_gain >= gain
            and other_price <= price
            and (other_gain, other_price) != (gain, price)
            for other_gain, other_price in figures.values()
        )
    ]
