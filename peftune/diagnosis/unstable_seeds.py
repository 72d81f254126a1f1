"""The seed decides more than the strategy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from peftune.diagnosis.finding import Finding, Pitfall

_CHANCE = 0.01
_MATTERS = 0.01

PITFALL = Pitfall(
    code="unstable-across-seeds",
    scope="comparison",
    looks_for="Runs that differ in nothing but the seed do not agree.",
    threshold=f"The standard deviation of the accuracy over seeds is at least {_MATTERS:g}, and larger than rows drawn anew for each seed would make it in {1 - _CHANCE:.0%} of cases. All seeds have the same rows, so their noise is smaller than that, and what is found is real.",
)


def unstable_across_seeds(accuracies: Sequence[float], n: int) -> Finding | None:
    """Look whether the accuracy differs between seeds by more than the noise of the test rows.

    k models that are equally good, each scored on n rows of its own, have accuracies of variance
    p (1 - p) / n, and the sum of their squared distances from the mean over that variance is
    chi-square distributed with k - 1 degrees of freedom (the test of homogeneity).

    Args:
        accuracies: of one strategy, one a seed.
        n: test rows.

    References:
        Mosbach et al. 2021, On the Stability of Fine-tuning BERT, arXiv:2006.04884.
    """
    if len(accuracies) < 2:  # noqa: PLR2004 - one run has no spread
        return None
    values = np.asarray(accuracies, dtype=np.float64)
    deviation = float(values.std(ddof=1))
    noise = float(values.mean() * (1 - values.mean()) / n)
    if deviation < _MATTERS or noise == 0:
        return None
    statistic = float(((values - values.mean()) ** 2).sum() / noise)
    if stats.chi2.sf(statistic, len(values) - 1) > _CHANCE:
        return None
    return PITFALL.found(
        "warning",
        f"The accuracy of {len(values)} seeds runs from {values.min():.3f} to {values.max():.3f} (standard deviation {deviation:.3f}); the noise of {n} rows explains {noise**0.5:.3f} at most.",
        "Report all seeds and take more of them; a lower training.learning_rate, training.warmup_steps or more epochs make runs agree.",
    )
