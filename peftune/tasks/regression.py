"""A number a row: squared error and correlation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr

from peftune.data.rows import Labels
from peftune.stats.intervals import mean_interval
from peftune.stats.scores import FEWEST_PAIRS, correlation_interval
from peftune.tasks.metrics import refuse_not_finite
from peftune.tasks.scores import Learning
from peftune.tasks.significance import significance_of_numbers

Floats = NDArray[np.float64]


def number_metrics(
    outputs: NDArray[np.floating[Any]], labels: NDArray[np.floating[Any]]
) -> dict[str, float | None]:
    """Compute every metric.

    Args:
        outputs: the numbers that the model says, (rows, 1).
        labels: the true ones, (rows,).

    Returns:
        `mse`, `mae`, `r2` (share of the variance explained), `pearson` and `spearman`; the last
        three are None where all rows, or all outputs, are the same number.

    Raises:
        TrainingError: an output is not finite.
    """
    refuse_not_finite(outputs)
    said, truth = np.asarray(outputs, np.float64).reshape(-1), np.asarray(labels, np.float64)
    errors = said - truth
    varied = len(truth) > 1 and np.ptp(truth) > 0
    correlated = varied and np.ptp(said) > 0
    return {
        "mse": float(np.square(errors).mean()),
        "mae": float(np.abs(errors).mean()),
        "r2": float(1 - np.square(errors).mean() / truth.var()) if varied else None,
        "pearson": float(pearsonr(truth, said).statistic) if correlated else None,
        "spearman": float(spearmanr(truth, said).statistic) if correlated else None,
    }


def judged_numbers(
    outputs: NDArray[np.floating[Any]], labels: Labels, *, split: str, metric: str | None = None
) -> Learning:
    """Score outputs, (rows, 1), against numbers."""
    truth, said = np.asarray(labels, np.float64), np.asarray(outputs, np.float64).reshape(-1)
    metrics = number_metrics(outputs, truth)
    reasons = ["accuracy, macro_f1: a regression has no labels"]
    if metrics["pearson"] is None:
        reasons.append("pearson, spearman: all rows or all outputs are the same number")
    squared = mean_interval(np.square(said - truth)) if len(truth) > 1 else None
    pearson = None if metrics["pearson"] is None else correlation_interval(truth, said)
    if metrics["pearson"] is not None and pearson is None:
        why = f"takes {FEWEST_PAIRS} rows" if len(truth) < FEWEST_PAIRS else "has no error to see"
        reasons.append(f"ci95: pearson {why}")
    return Learning(
        split=split,
        n=len(truth),
        accuracy=None,
        macro_f1=None,
        loss=float(metrics["mse"] or 0.0),
        metrics=metrics,
        ci95={
            "loss": squared,
            "mse": squared,
            "pearson": pearson,
        },
        per_label={},
        confusion=None,
        reason="; ".join(reasons),
        task="regression",
        significance=significance_of_numbers(truth, said, metric=metric),
    )
