"""Which strategies can be told apart, once all pairs have been looked at."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from string import ascii_lowercase

import numpy as np

LEVEL = 0.05
"""Chance of telling any two equal strategies apart that a table takes."""


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that all of them together err with the chance that one alone would.

    References:
        Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    order = np.argsort(p_values)
    left = np.arange(len(p_values), 0, -1)  # hypotheses not yet rejected at each step
    stepped = np.maximum.accumulate(np.asarray(p_values, dtype=np.float64)[order] * left)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def letters(names: Sequence[str], told_apart: Collection[tuple[str, str]]) -> dict[str, str]:
    """Give names letters: two that share a letter cannot be told apart, any others can.

    Every letter starts out as a group of all; a pair that can be told apart splits each group
    that holds both (insert), and a group that lies within another goes (absorb).

    Args:
        names: the best first; it has the letter `a`.
        told_apart: pairs of them.

    References:
        Piepho 2004, An algorithm for a letter-based representation of all-pairwise comparisons.
    """
    groups = [frozenset(names)]
    for pair in told_apart:
        split = [
            part for group in groups for part in ([group - {name} for name in pair] if group >= set(pair) else [group])
        ]  # fmt: skip
        groups = [
            group
            for place, group in enumerate(split)
            if not any(
                group < other or (group == other and place > earlier)
                for earlier, other in enumerate(split)
            )
        ]
    groups.sort(key=lambda group: sorted(map(names.index, group)))
    return {
        name: "".join(_letter(place) for place, group in enumerate(groups) if name in group)
        for name in names
    }


def _letter(place: int) -> str:
    """Count a, b, … z, a2, b2, …."""
    round_, place = divmod(place, len(ascii_lowercase))
    return ascii_lowercase[place] + (str(round_ + 1) if round_ else "")
