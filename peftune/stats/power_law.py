"""How the error falls with the number of rows: a power law, and how sure it is of the next doubling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit

from peftune.stats.crossed import FEWEST_SEEDS
from peftune.stats.intervals import Interval

RESAMPLES = 400
_STEEPEST = 2.0
_TRIES = 2000
_START = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """The error as `floor + scale * (n / rows) ** -exponent`.

    Args:
        floor: error that no number of rows goes below, 0 to 1.
        scale: error above the floor with all rows.
        exponent: how fast it falls; 0 is not at all.
        rows: all rows.
    """

    floor: float
    scale: float
    exponent: float
    rows: int

    def error_with(self, count: float) -> float:
        """Return the error that is expected with so many rows."""
        return float(_law(np.array([count / self.rows]), self.floor, self.scale, self.exponent)[0])

    @property
    def gain_of_doubling(self) -> float:
        """Return by how much twice as many rows are expected to lower the error."""
        return self.error_with(self.rows) - self.error_with(2 * self.rows)


def fit_power_law(sizes: Sequence[int], errors: Sequence[float]) -> PowerLaw | None:
    """Fit the law by least squares, with no part below zero; None where no fit is found.

    Args:
        sizes: numbers of rows, the last of them all.
        errors: share of wrong rows for each.

    References:
        Hestness et al. 2017, Deep Learning Scaling is Predictable, Empirically, arXiv:1712.00409.
    """
    share = np.asarray(sizes, np.float64) / sizes[-1]
    found = np.asarray(errors, np.float64)
    start = (_START[0] * found.min(), _START[1] * found.min() + 1e-3, _START[2])
    try:
        values, _ = curve_fit(
            _law,
            share,
            found,
            p0=start,
            bounds=([0.0, 0.0, 0.0], [1.0, 1.0, _STEEPEST]),
            max_nfev=_TRIES,
        )
    except RuntimeError:  # scipy's word for a search without end
        return None
    floor, scale, exponent = (float(value) for value in values)
    return PowerLaw(floor, scale, exponent, sizes[-1])


def gain_interval(
    sizes: Sequence[int],
    wrong: NDArray[np.float64],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """Return the 95% interval of the gain of doubling: the law fitted again to drawn rows.

    The same rows and seeds are drawn for every size, so what is hard for all sizes cancels out.
    Seeds are drawn from three on: two say too little of how trainings differ to be drawn from.

    Args:
        sizes: numbers of rows.
        wrong: 1.0 where a row got another label, (sizes, seeds, rows).
        seed: seed of the resampling.
        resamples: how often rows are drawn.

    Returns:
        Lower and upper bound; None where half of the fits fail.
    """
    generator = np.random.default_rng(seed)
    _, seeds, rows = wrong.shape
    gains = []
    for _ in range(resamples):
        chosen = generator.integers(seeds, size=seeds)
        trained = wrong if seeds < FEWEST_SEEDS else wrong[:, chosen]
        drawn = trained[:, :, generator.integers(rows, size=rows)]
        law = fit_power_law(sizes, drawn.mean(axis=(1, 2)).tolist())
        if law is not None:
            gains.append(law.gain_of_doubling)
    if len(gains) < resamples // 2:
        return None
    low, high = np.quantile(gains, [0.025, 0.975])
    return float(low), float(high)


def _law(
    share: NDArray[np.float64], floor: float, scale: float, exponent: float
) -> NDArray[np.float64]:
    return np.asarray(floor + scale * share**-exponent)
