"""Intervals by resampling the unit that varies: documents for text, rows for a task."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from peftune.probes import Measurement

RESAMPLES = 9999
FEWEST_DOCUMENTS = 10
"""With fewer, a bootstrap interval says nothing."""

_FEW_DOCUMENTS = 50

Interval = tuple[float, float]


def forgetting_interval(
    before: Measurement, after: Measurement, *, seed: int, confidence: float = 0.95
) -> Interval | None:
    """Bootstrap the difference of two ratios of sums over whole documents, paired.

    Tokens of one document are correlated, so documents are resampled and not tokens; the same
    documents count before and after. Percentile intervals; bias-corrected (BCa) below 50 documents.

    Args:
        before: the base on the documents.
        after: the tuned model on the same documents.
        seed: seed of the resampling.
        confidence: share of repetitions in which the interval should hold the truth.

    Returns:
        Lower and upper bound in the probe's unit, or None with fewer than ten documents.

    References:
        Efron and Tibshirani 1993, An Introduction to the Bootstrap.
    """
    return ratio_interval(
        after.total - before.total, before.weight, seed=seed, confidence=confidence
    )


def ratio_interval(
    total: NDArray[np.float64],
    weight: NDArray[np.float64],
    *,
    seed: int,
    confidence: float = 0.95,
) -> Interval | None:
    """Bootstrap a ratio of sums over documents, as `forgetting_interval` does.

    The seed alone decides which documents are drawn, so intervals of other quantities, and of
    other models, over as many documents rest on the same resamples.
    """

    def ratio(
        total: NDArray[np.float64], weight: NDArray[np.float64], axis: int = -1
    ) -> NDArray[np.float64]:
        return np.asarray(total.sum(axis=axis) / weight.sum(axis=axis))

    if len(total) < FEWEST_DOCUMENTS:
        return None
    method: Literal["percentile", "BCa"] = "BCa" if len(total) < _FEW_DOCUMENTS else "percentile"
    return _bootstrap((total, weight), ratio, seed=seed, confidence=confidence, method=method)


def row_interval(
    columns: tuple[NDArray[np.float64], ...],
    statistic: Callable[..., NDArray[np.float64]],
    *,
    seed: int,
    confidence: float = 0.95,
) -> Interval | None:
    """Bootstrap a statistic of task rows, resampling rows with all their columns.

    Args:
        columns: arrays of one value a row, resampled together.
        statistic: maps the columns, with rows on the given `axis`, to the value.
        seed: seed of the resampling.
        confidence: share of repetitions in which the interval should hold the truth.
    """
    if len(columns[0]) < 2:  # noqa: PLR2004 - one row has no spread
        return None
    return _bootstrap(columns, statistic, seed=seed, confidence=confidence, method="percentile")


def _bootstrap(
    columns: tuple[NDArray[np.float64], ...],
    statistic: Callable[..., NDArray[np.float64]],
    *,
    seed: int,
    confidence: float,
    method: Literal["percentile", "BCa"],
) -> Interval:
    from scipy import stats

    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        # A constant sample has a zero-width interval; scipy warns that it is degenerate, and its
        # BCa divides zero by zero on the way there.
        warnings.simplefilter("ignore", category=stats.DegenerateDataWarning)
        result = stats.bootstrap(
            columns,
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=500,
            confidence_level=confidence,
            method=method,
            rng=np.random.default_rng(seed),
        )
    low, high = float(result.confidence_interval.low), float(result.confidence_interval.high)
    if np.isnan(low) or np.isnan(high):
        point = float(statistic(*columns))
        return point, point
    return low, high
