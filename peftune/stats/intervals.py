"""Intervals over the unit that varies: documents for text, rows for a task."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FEWEST_DOCUMENTS = 10
"""Fewer documents give no interval."""

Interval = tuple[float, float]

_FLAT = 1e-9


def ratio_interval(
    total: NDArray[np.float64], weight: NDArray[np.float64], *, confidence: float = 0.95
) -> Interval | None:
    """Return the interval of a ratio of sums over whole documents.

    Tokens of one document are correlated, so documents are what varies and not tokens. Each
    document counts by its weight (`contributions`), and the interval is `mean_interval`'s.

    Args:
        total: numerators, (documents,): bits, or the change of bits of the same documents.
        weight: denominators, (documents,): bytes.
        confidence: share of repetitions in which the interval should hold the truth.

    Returns:
        Lower and upper bound, or None with fewer than ten documents.
    """
    if len(total) < FEWEST_DOCUMENTS:
        return None
    return mean_interval(contributions(total[None], weight)[0], confidence=confidence)


def contributions(totals: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Split ratios of sums into one term a document, whose mean is the ratio (delta method).

    A document's term is the ratio plus what that document moves it by, to first order, so that
    long documents count as long as they are and the spread of the terms is that of the ratio.

    Args:
        totals: numerators, (seeds, documents).
        weight: denominators, (documents,), the same for every seed.

    Returns:
        (seeds, documents).
    """
    ratios = totals.sum(axis=1, keepdims=True) / weight.sum()  # (seeds, 1)
    return np.asarray(ratios + (totals - ratios * weight) / weight.mean())


FEWEST_TO_EXCLUDE = 59
"""Of so many documents one in twenty is among them with 95%: 0.95 to the power of 59 is 0.05."""

_COCHRAN = 25


def cannot_exclude(change: NDArray[np.float64], weight: NDArray[np.float64]) -> str | None:
    """Return why these documents cannot exclude a loss that few documents bear; None where they can.

    No interval can: a loss that hides in one of twenty documents is in none of twenty with a
    chance of 36%, and these twenty look harmless. So the absence of a loss is stated for enough
    documents alone, and for more where the losses that were seen are uneven (skewed towards losses).

    Args:
        change: numerator of each document's change, positive where it got worse, (documents,).
        weight: its denominator, (documents,).

    References:
        Cochran 1977, Sampling Techniques, 2.15: a normal approximation takes more than 25 times
        the squared skewness.
    """
    terms = contributions(change[None], weight)[0]
    if not change.any():
        return None
    if len(terms) < FEWEST_TO_EXCLUDE:
        return f"a loss in one of twenty documents can be missed by {len(terms)}; it takes {FEWEST_TO_EXCLUDE}"
    needed = int(np.ceil(_COCHRAN * max(0.0, skewness(terms)) ** 2))
    if len(terms) < needed:
        return f"few documents bear most of the loss: for losses this uneven it takes {needed:,} documents, and there are {len(terms):,}"
    return None


def mean_interval(values: NDArray[np.float64], *, confidence: float = 0.95) -> Interval:
    """Return the interval of a mean of values that may be skewed.

    Losses are: most documents lose little and a few much. Student's t is then too short above,
    where the loss is. Hall's transformation of t takes the skewness out, and needs no resampling. But
    the skewness is estimated: of values that are heavy-tailed and not skewed, or of a few rows that
    changed, the sample's skewness goes with its mean, and Hall's interval is too short. Of the two
    intervals each end is the one farther out, which Student's t keeps safe where there is no
    skewness and Hall's where there is. `docs/statistics.md` says for which losses how many
    documents are enough.

    Args:
        values: (values,), at least two.
        confidence: share of repetitions in which the interval should hold the truth.

    References:
        Hall 1992, On the removal of skewness by transformation, J. R. Stat. Soc. B 54.
        Efron 1969, Student's t-test under symmetry conditions, JASA 64: that it errs on the safe
        side where tails are heavy and there is no skewness.
    """
    mean, count = float(values.mean()), len(values)
    if np.ptp(values) <= _FLAT * abs(mean):
        return mean, mean
    error = float(values.std(ddof=1)) / count**0.5
    tail = (1 - confidence) / 2
    low, high = error_quantiles(np.array([tail, 1 - tail]), skewness(values), count)
    return mean - float(high) * error, mean - float(low) * error


def skewness(values: NDArray[np.float64]) -> float:
    """Return the third standardized moment; 0 where all values are equal."""
    centered = values - values.mean()
    variance = float((centered**2).mean())
    return float((centered**3).mean()) / variance**1.5 if variance > 0 else 0.0


def error_quantiles(
    probabilities: NDArray[np.float64], skew: float, count: int
) -> NDArray[np.float64]:
    """Return quantiles of the error of a mean in units of its standard error.

    Student's t, or t as Hall's monotone cubic maps it back: whichever is farther from zero.
    """
    from scipy.special import stdtrit

    return mapped_back(np.asarray(stdtrit(count - 1, probabilities)), skew, count)


def mapped_back(plain: NDArray[np.float64], skew: float, count: int) -> NDArray[np.float64]:
    """Map Student's t to errors of a mean in standard errors, outward where values are skewed."""
    skewness = skew / count**0.5
    if abs(skewness) < _FLAT:
        return plain
    hall = (np.cbrt(1 + skewness * (plain - skewness / 6)) - 1) * 3 / skewness
    return np.asarray(np.where(plain > 0, np.maximum(plain, hall), np.minimum(plain, hall)))


def transformed(error: float, skew: float, count: int) -> float:
    """Return the t that an error, in standard errors, is as far out as: the inverse of `mapped_back`."""
    skewness = skew / float(count) ** 0.5
    hall = float(error + skewness * error**2 / 3 + skewness**2 * error**3 / 27 + skewness / 6)
    return max(0.0, min(error, hall)) if error > 0 else min(0.0, max(error, hall))


def share_interval(share: float, count: float, *, critical: float = 1.96) -> Interval:
    """Return Wilson's interval of a share, which holds near 0 and 1 and never has a width of zero.

    Args:
        share: from 0 to 1.
        count: rows, or as many independent rows as the share's variance says that there are.
        critical: standard errors on either side: 1.96 for 95%.

    References:
        Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    square = critical**2
    center = (share + square / (2 * count)) / (1 + square / count)
    half = critical / (1 + square / count) * (share * (1 - share) / count + square / (4 * count**2)) ** 0.5  # fmt: skip
    return max(0.0, center - half), min(1.0, center + half)


def share_change_interval(
    before: NDArray[np.float64], after: NDArray[np.float64], *, confidence: float = 0.95
) -> Interval:
    """Return the interval of the change of a share on the same rows or documents.

    Half an answer is added to each cell of the table before by after, so that a change that was
    never seen is not taken for one that cannot be.

    Args:
        before: right (1) and wrong (0), (rows,).
        after: the same rows.
        confidence: share of repetitions in which the interval should hold the truth.

    References:
        Agresti and Min 2005, Simple improved confidence intervals for comparing matched
        proportions, Statistics in Medicine 24.
    """
    from scipy import stats

    gained = float(((before == 0) & (after > 0)).sum()) + 0.5
    lost = float(((before > 0) & (after == 0)).sum()) + 0.5
    count = len(before) + 2
    change = (gained - lost) / count
    error = (gained + lost - (gained - lost) ** 2 / count) ** 0.5 / count
    margin = float(stats.norm.isf((1 - confidence) / 2)) * error
    return max(-1.0, change - margin), min(1.0, change + margin)
