"""Ratios over rounds, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times one figure is the other.

    Args:
        value: geometric mean of the rounds' ratios.
        ci95: bootstrap interval over rounds; None with a single round.
        rounds: in which both were measured.
    """

    value: float
    ci95: tuple[float, float] | None
    rounds: int


def ratio_over_rounds(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """Divide figures of the same rounds, pair by pair, and average the ratios.

    A round's two figures were taken minutes apart, so what slows the machine for longer cancels.
    The rounds are resampled with replacement, 10,000 times from a fixed seed; the interval runs
    from the 2.5th to the 97.5th percentile of the geometric mean. With two rounds it is their range.

    Args:
        above: one figure a round.
        below: of the same rounds.

    Raises:
        ValueError: the numbers of rounds differ, or there is none.
    """
    if len(above) != len(below) or not above:
        message = (
            f"a ratio needs the same rounds above and below (got {len(above)} and {len(below)})"
        )
        raise ValueError(message)
    logs = np.log(np.asarray(above, dtype=np.float64)) - np.log(
        np.asarray(below, dtype=np.float64)
    )
    value = float(np.exp(logs.mean()))
    if len(logs) == 1:
        return Ratio(value, None, 1)
    drawn = np.random.default_rng(0).integers(len(logs), size=(_RESAMPLES, len(logs)))
    low, high = np.percentile(np.exp(logs[drawn].mean(axis=1)), [2.5, 97.5]).tolist()
    return Ratio(value, (low, high), len(logs))


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two trained methods are apart.

    Args:
        value: mean accuracy of the first minus that of the second.
        error: its standard error, over seeds and rows.
    """

    value: float
    error: float


def accuracy_difference(
    first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]
) -> Difference:
    """Compare methods that were trained with several seeds each and judged on the same rows.

    The seeds of the two have nothing to do with each other, so their variances add; the rows are
    the same, so their part is that of the paired difference.

    Args:
        first: 1 where a row got its label and 0 where not, (seeds, rows).
        second: likewise.
    """
    values = [np.asarray(right, dtype=np.float64) for right in (first, second)]
    of_seeds = sum(
        float(value.mean(1).var(ddof=1)) / len(value) for value in values if len(value) > 1
    )
    paired = values[0].mean(0) - values[1].mean(0)  # (rows,)
    of_rows = float(paired.var(ddof=1)) / len(paired)
    return Difference(float(paired.mean()), (of_seeds + of_rows) ** 0.5)
