"""Paired tests and power, beside the intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from string import ascii_lowercase

import numpy as np
from numpy.typing import NDArray

from peftune.stats.intervals import contributions

_TWO_SIDED_5_PERCENT = 1.96
_POWER_80_PERCENT = 0.84

_MOST_PERMUTATIONS, _PERMUTATIONS, _FEW_ROWS = 1999, 399, 10_000
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class McNemar:
    """The exact paired test of right and wrong answers.

    Args:
        n10: documents right before and wrong after.
        n01: documents wrong before and right after.
        p_value: two-sided probability of a split at least as uneven by chance.
    """

    n10: int
    n01: int
    p_value: float


@dataclass(frozen=True, slots=True)
class Power:
    """How many documents a loss as small as the margin takes to be seen.

    Args:
        spread: standard deviation of the change between documents, in the probe's unit.
        needed_documents: documents that show a change of the margin with 80% power at 5%.
        enough: whether there are as many.
    """

    spread: float
    needed_documents: int
    enough: bool


def mcnemar(before: NDArray[np.float64], after: NDArray[np.float64]) -> McNemar:
    """Test paired right (1) and wrong (0) answers exactly.

    References:
        McNemar 1947, Note on the sampling error of the difference between correlated proportions.
    """
    from scipy import stats

    n10 = int(((before > 0) & (after == 0)).sum())
    n01 = int(((before == 0) & (after > 0)).sum())
    changed = n10 + n01
    p_value = float(stats.binomtest(min(n10, n01), changed).pvalue) if changed else 1.0
    return McNemar(n10, n01, p_value)


def permutation_p_value(
    score: Callable[[NDArray[np.int64]], float], rows: int, *, at_least: float, seed: int
) -> float:
    """Return the one-sided p-value of a score against the same answers given to other rows.

    Where answers do not depend on their rows, any order of the rows is as likely as the one that
    was seen. What they score less on average than can be had without reading is added.

    Args:
        score: of the answers in the order of the rows that is given, higher is better.
        rows: how many there are.
        at_least: the most that can be had without reading.
        seed: of the permutations.

    References:
        Phipson and Smyth 2010, Permutation p-values should never be zero.
    """
    generator = np.random.default_rng(seed)
    count = _MOST_PERMUTATIONS if rows <= _FEW_ROWS else _PERMUTATIONS
    permuted = np.array([score(generator.permutation(rows)) for _ in range(count)])
    short = max(0.0, at_least - float(permuted.mean()))
    observed = score(np.arange(rows)) - _ROUNDING
    return float(1 + (permuted + short >= observed).sum()) / (1 + count)


def power(change: NDArray[np.float64], weight: NDArray[np.float64], *, margin: float) -> Power:
    """Say how many documents a change of the margin needs to be seen.

    Args:
        change: numerator of each document's change, (documents,).
        weight: its denominator, (documents,).
        margin: change of the ratio of sums.
    """
    count = len(change)
    spread = float(contributions(change[None], weight)[0].std(ddof=1)) if count > 1 else math.inf
    z = _TWO_SIDED_5_PERCENT + _POWER_80_PERCENT
    needed = math.ceil((z * spread / margin) ** 2) if math.isfinite(spread) else count + 1
    return Power(spread, needed, enough=count >= needed)


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


def letters(names: Sequence[str], significant: Collection[tuple[str, str]]) -> dict[str, str]:
    """Give names letters: two that share a letter are not significantly different, any others are.

    Every letter starts out as a group of all; a significantly different pair splits each group
    that holds both (insert), and a group that lies within another goes (absorb).

    Args:
        names: the best first; it has the letter `a`.
        significant: pairs of them.

    References:
        Piepho 2004, An algorithm for a letter-based representation of all-pairwise comparisons.
    """
    groups = [frozenset(names)]
    for pair in significant:
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
