"""Intervals and calibration of a single run's scores, and paired tests of two sets of answers to the same rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peftune.stats.intervals import Interval, mean_interval, share_interval

FEWEST_ROWS_PER_LABEL = 5
"""With fewer rows of one label, F1 averaged over labels has no interval."""

FEWEST_PAIRS = 4
"""With fewer, a correlation has no interval."""

SWAPS = 2000
"""Random swaps of the answers of two."""

ONE_SIDED = 0.025
"""Chance below which one is called better than the other."""

_TWO_SIDED_5_PERCENT = 1.96
_ALMOST_ONE = 1e-9


def mean_share_interval(right: NDArray[np.float64]) -> Interval:
    """Return the 95% interval of the share of right answers, averaged over several answers a row.

    It is `mean_interval`'s over rows, and never narrower than Wilson's for as many independent rows
    as have the variance that was seen: at least the rows, at most the answers. With one answer a
    row it is Wilson's.

    Args:
        right: right (1) and wrong (0), (answers, rows), at least two rows.

    References:
        Wilson 1927. Korn and Graubard 1998, Confidence intervals for proportions with small
        expected number of positive counts estimated from survey data: the effective sample size.
    """
    answers, rows = right.shape
    of_rows, share = right.mean(axis=0), float(right.mean())
    variance = float(of_rows.var(ddof=1)) / rows
    count = share * (1 - share) / variance if variance > 0 else math.inf
    low, high = share_interval(share, min(max(count, rows), answers * rows))
    if answers == 1:
        return low, high
    below, above = mean_interval(of_rows)
    return max(0.0, min(low, below)), min(1.0, max(high, above))


def macro_f1_interval(true: NDArray[np.bool_], assigned: NDArray[np.bool_]) -> Interval | None:
    """Return the 95% interval of F1 averaged over labels.

    It is Wilson's for as many independent rows as have the variance of macro F1 by the delta method,
    and for no more than the labels' own rows amount to: a label of which no error was seen can
    still have some. So it holds near 1, and never has a width of zero. `docs/results.md` says what it
    covers, beside the bootstrap and the delta method on a logit scale.

    Args:
        true: which labels a row has, (rows, labels).
        assigned: which labels it was given, (rows, labels).

    Returns:
        None where a label has fewer than five rows: what macro F1 would be with more of them cannot be
        known from so few.

    References:
        Takahashi, Yamamoto, Kuchiba and Koyama 2022, Confidence interval for micro-averaged F1 and
        macro-averaged F1 scores, Applied Intelligence 52: the variance. Korn and Graubard 1998,
        Confidence intervals for proportions with small expected number of positive counts
        estimated from survey data: Wilson's interval with an effective sample size.
    """
    rows, labels = true.shape
    support = true.sum(axis=0)  # (labels,)
    if support.min(initial=rows) < FEWEST_ROWS_PER_LABEL:
        return None
    hits = (true & assigned).astype(np.float64)  # (rows, labels)
    mentions = true.astype(np.float64) + assigned
    f1 = 2 * hits.sum(axis=0) / mentions.sum(axis=0)
    # By how much each row moves macro F1, to first order.
    terms = ((2 * hits - f1 * mentions) / mentions.sum(axis=0)).mean(axis=1)  # (rows,)
    variance = float((terms**2).sum()) * rows / (rows - 1)
    value = float(f1.mean())
    amount = min(rows, labels**2 / float((1 / support).sum()))
    seen = value * (1 - value) / variance if variance > 0 else math.inf
    return share_interval(value, min(seen, amount))


def roc_auc_interval(
    auc: float | None, positives: Sequence[int], negatives: Sequence[int]
) -> Interval | None:
    """Return the 95% interval of a ROC AUC, or of the mean of several on the same rows.

    Both ends are areas from which the one that was seen lies 1.96 of their own standard errors away,
    as in Wilson's interval of a share, so that an area of 1 is not certain. The standard error is
    Hanley and McNeil's, with the rarer answer as the one that varies more, whichever is called
    positive. Those of several labels are averaged, as if the labels erred together: they may, and then
    no interval is narrower.

    Args:
        auc: the figure; None where it is not defined.
        positives: rows with each label that has an AUC.
        negatives: rows without it.

    References:
        Hanley and McNeil 1982, The meaning and use of the area under a ROC curve. Newcombe 2006,
        Confidence intervals for an effect size measure based on the Mann-Whitney statistic, part 2,
        Statistics in Medicine 25: the ends as solutions.
    """
    pairs = [(n, m) for n, m in zip(positives, negatives, strict=True) if n and m]
    if auc is None or not pairs:
        return None

    def apart(area: float) -> float:
        error = sum(_area_error(area, *pair) for pair in pairs) / len(pairs)
        return abs(auc - area) - _TWO_SIDED_5_PERCENT * error

    low = 0.0 if auc <= 0 else _root(apart, 0.0, min(auc, 1 - _ALMOST_ONE))
    high = 1.0 if auc >= 1 else _root(apart, max(auc, _ALMOST_ONE), 1.0)
    return low, high


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    from scipy.optimize import brentq

    return float(brentq(function, low, high))


def _area_error(area: float, positives: int, negatives: int) -> float:
    """Return Hanley and McNeil's standard error of an area, the larger of the two ways round."""
    above, below = area / (2 - area) - area**2, 2 * area**2 / (1 + area) - area**2
    varied = max(
        (n - 1) * above + (m - 1) * below
        for n, m in ((positives, negatives), (negatives, positives))
    )
    return math.sqrt(max(0.0, area * (1 - area) + varied) / (positives * negatives))


def correlation_interval(
    first: NDArray[np.float64], second: NDArray[np.float64]
) -> Interval | None:
    """Return the 95% interval of Pearson's correlation, on Fisher's scale.

    Fisher's standard error holds where both are normal. Errors that are larger where the numbers are
    extreme, and heavy tails, make it too small; that of the rows' own terms (delta method) is too
    small in few rows. The larger of the two is taken.

    Args:
        first: numbers, (rows,).
        second: numbers of the same rows, (rows,).

    Returns:
        None with fewer than four rows, and where the rows lie on a line.

    References:
        Fisher 1921, On the probable error of a coefficient of correlation deduced from a small sample.
        Steiger and Hakstian 1982, The asymptotic distribution of elements of a correlation
        matrix: the variance without normality.
    """
    from scipy import stats

    count = len(first)
    if count < FEWEST_PAIRS or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    one, other = ((values - values.mean()) / values.std() for values in (first, second))
    value = float((one * other).mean())
    if abs(value) > 1 - _ALMOST_ONE:
        return None
    terms = one * other - value * (one**2 + other**2) / 2
    spread = float((terms**2).sum() / (count * (count - 3))) ** 0.5 / (1 - value**2)
    margin = max(
        _TWO_SIDED_5_PERCENT / (count - 3) ** 0.5,
        float(stats.t.ppf(0.975, count - 1)) * spread,
    )
    center = math.atanh(value)
    return math.tanh(center - margin), math.tanh(center + margin)


def better_p_value(gained: int, lost: int) -> float:
    """Return the one-sided exact probability of at least so many gained answers if none is likelier.

    Args:
        gained: rows that this one alone has right.
        lost: rows that the other alone has right.

    References:
        McNemar 1947, Note on the sampling error of the difference between correlated proportions.
    """
    from scipy import stats

    return float(stats.binom.sf(gained - 1, gained + lost, 0.5))


def better_macro_f1_p_value(
    truth: NDArray[np.int64],
    assigned: NDArray[np.int64],
    other: NDArray[np.int64],
    *,
    labels: int,
    seed: int,
) -> float:
    """Return the one-sided probability of as large a gain in macro F1 by chance.

    The answers of both to a row are swapped or not, at random. Only rows with two different answers
    matter, and few of them cannot be significant: d of them give no less than 2 to the power of -d.

    Args:
        truth: label ids, (rows,).
        assigned: label ids of the one that may be better.
        other: label ids of the other.
        labels: how many labels F1 is averaged over.
        seed: seed of the swaps.

    References:
        Yeh 2000, More accurate tests for the statistical significance of result differences,
        arXiv:cs/0008005.
    """
    differ = np.flatnonzero(assigned != other)
    if not len(differ):
        return 1.0
    one_hot = np.eye(labels)
    support = np.bincount(truth, minlength=labels)
    shifts = one_hot[other[differ]] - one_hot[assigned[differ]]  # (differ, labels)
    # A swap moves a hit only where one of the two answers is the true label.
    moved = shifts * one_hot[truth[differ]]
    counts = [np.bincount(ids, minlength=labels) for ids in (assigned, other)]
    hits = [np.bincount(truth[ids == truth], minlength=labels) for ids in (assigned, other)]

    def gain(shift: NDArray[np.float64], move: NDArray[np.float64]) -> NDArray[np.float64]:
        mine = (hits[0] + move) / np.maximum(counts[0] + shift + support, 1)
        others = (hits[1] - move) / np.maximum(counts[1] - shift + support, 1)
        return np.asarray(2 * (mine - others).mean(axis=-1))

    seen = float(gain(np.zeros(labels), np.zeros(labels)))
    draw, as_large = np.random.default_rng(seed), 0
    for _ in range(0, SWAPS, 100):
        swapped = draw.integers(0, 2, (100, len(differ))).astype(np.float64)
        as_large += int((gain(swapped @ shifts, swapped @ moved) >= seen - _ALMOST_ONE).sum())
    return (as_large + 1) / (SWAPS + 1)


BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows of like confidence.

    Args:
        low: confidence above which rows belong here; the first bin has its lower end too.
        high: confidence up to which they do.
        count: rows.
        confidence: their mean confidence; None without rows.
        accuracy: share of them with the right label; None without rows.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


def reliability_bins(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], *, bins: int = BINS
) -> list[Bin]:
    """Sort rows by the probability of their predicted label, in bins of equal width.

    scikit-learn's `calibration_curve` does so for two classes and does not count the rows.

    Args:
        probabilities: (rows, labels), float64.
        labels: label ids, (rows,).
        bins: number of bins.
    """
    confidence = probabilities.max(-1)
    right = probabilities.argmax(-1) == labels
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.clip(np.digitize(confidence, edges, right=True) - 1, 0, bins - 1)
    found = []
    for index in range(bins):
        here = place == index
        rows = int(here.sum())
        found.append(
            Bin(
                low=float(edges[index]),
                high=float(edges[index + 1]),
                count=rows,
                confidence=float(confidence[here].mean()) if rows else None,
                accuracy=float(right[here].mean()) if rows else None,
            )
        )
    return found


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """Return the mean distance of confidence from accuracy over rows, by bin; lower is better.

    References:
        Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv:1706.04599.
    """
    rows = sum(one.count for one in bins)
    gaps = (
        one.count * abs(one.accuracy - one.confidence)
        for one in bins
        if one.accuracy is not None and one.confidence is not None
    )
    return sum(gaps) / rows
