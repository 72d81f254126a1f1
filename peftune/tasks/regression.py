"""A number a row: squared error and correlation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftune.data.rows import Labels
from peftune.recipe.task_type import REGRESSION
from peftune.tasks.base import Logits, Prediction, TaskMethods
from peftune.tasks.scores import Learning, refuse_not_finite


class Regression(TaskMethods):
    """Each row has a number; the model's own squared error is its loss."""

    task = REGRESSION

    def metrics(
        self,
        logits: Logits,
        labels: NDArray[Any],
        thresholds: Sequence[float] | None = None,  # noqa: ARG002 - of multi-label
    ) -> dict[str, float | None]:
        """Compute every metric.

        Args:
            logits: predicted numbers, (rows, 1).
            labels: the true ones, (rows,).
            thresholds: none.

        Returns:
            `mse`, `mae`, `r2` (share of the variance explained), `pearson` and `spearman`; the last
            three are None where all rows, or all outputs, are the same number.

        Raises:
            TrainingError: an output is not finite.
        """
        from scipy.stats import pearsonr, spearmanr

        refuse_not_finite(logits)
        found, truth = _numbers(logits), np.asarray(labels, np.float64)
        errors = found - truth
        varied = len(truth) > 1 and np.ptp(truth) > 0
        correlated = varied and np.ptp(found) > 0
        return {
            "mse": float(np.square(errors).mean()),
            "mae": float(np.abs(errors).mean()),
            "r2": float(1 - np.square(errors).mean() / truth.var()) if varied else None,
            "pearson": float(pearsonr(truth, found).statistic) if correlated else None,
            "spearman": float(spearmanr(truth, found).statistic) if correlated else None,
        }

    def predictions(
        self,
        logits: Logits,
        *,
        names: Sequence[str],
        thresholds: Sequence[float] | None = None,  # noqa: ARG002 - of multi-label
    ) -> list[Prediction]:
        """Predict the number."""
        return [Prediction(names[0], number, {}) for number in _numbers(logits).tolist()]

    def scored_row(
        self,
        prediction: Prediction,
        label: float,
        *,
        names: Sequence[str],  # noqa: ARG002 - a number has no name
    ) -> dict[str, Any]:
        """Return the number and the predicted one."""
        return {"label": float(label), "predicted": prediction.score}

    def _learning(
        self,
        logits: Logits,
        labels: Labels,
        *,
        names: Sequence[str],  # noqa: ARG002 - a number has no name
        split: str,
        metric: str | None,
        thresholds: Sequence[float] | None,  # noqa: ARG002 - of multi-label
    ) -> Learning:
        from peftune.stats.intervals import mean_interval
        from peftune.stats.scores import FEWEST_PAIRS, correlation_interval
        from peftune.tasks.significance import significance_of_numbers

        truth, found = np.asarray(labels, np.float64), _numbers(logits)
        metrics = self.metrics(logits, truth)
        reasons = ["accuracy, macro_f1: a regression has no labels"]
        if metrics["pearson"] is None:
            reasons.append("pearson, spearman: all rows or all outputs are the same number")
        squared = mean_interval(np.square(found - truth)) if len(truth) > 1 else None
        pearson = None if metrics["pearson"] is None else correlation_interval(truth, found)
        if metrics["pearson"] is not None and pearson is None:
            few = len(truth) < FEWEST_PAIRS
            why = f"takes {FEWEST_PAIRS} rows" if few else "has no error to see"
            reasons.append(f"ci95: pearson {why}")
        return Learning(
            split=split,
            n=len(truth),
            accuracy=None,
            macro_f1=None,
            loss=float(metrics["mse"] or 0.0),
            metrics=metrics,
            ci95={"loss": squared, "mse": squared, "pearson": pearson},
            per_label={},
            confusion=None,
            reason="; ".join(reasons),
            task=self.task.name,
            significance=significance_of_numbers(truth, found, metric=metric),
        )


def _numbers(logits: Logits) -> NDArray[np.float64]:
    """Return the predicted numbers, (rows, 1) -> (rows,)."""
    return np.asarray(logits, np.float64).reshape(-1)
