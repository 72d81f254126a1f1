"""Calibration: whether a classifier's accuracy equals its confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
