"""Means over seeds and rows at once, with intervals that hold for another seed and other rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats
from scipy.optimize import brentq, elementwise

from peftune.stats.intervals import (
    FEWEST_DOCUMENTS,
    Interval,
    mapped_back,
    share_interval,
    skewness,
    transformed,
)

Unit = Literal["rows", "documents"]

FEWEST_SEEDS = 3
"""Fewer seeds give no interval: two leave one degree of freedom to their spread."""

ONE_SEED = "one seed: the interval speaks of this seed alone"
TWO_SEEDS = "two seeds cannot tell; three can"
NO_SPREAD = "one seed has no spread over seeds"

POWER = 0.8
"""Chance of seeing a difference from which on it counts as one that would have been seen."""

MOST_SEEDS = 1000
"""Up to so many are looked at for how many show a difference."""

_TAIL = 0.025
_NODES = np.linspace(-8.0, 8.0, 641)
_AT: NDArray[np.float64] = stats.norm.cdf(_NODES)
_WEIGHTS: NDArray[np.float64] = stats.norm.pdf(_NODES) / stats.norm.pdf(_NODES).sum()
"""Where one part of an error is integrated over, far into its tails, and what each place counts."""

_places, _shares = np.polynomial.legendre.leggauss(24)
_SPREADS: NDArray[np.float64] = (_places + 1) / 2
_SHARES: NDArray[np.float64] = _shares / 2
"""Quantiles at which the spread that seeds show is taken, and the share of each (Gauss and Legendre)."""

_NEGLIGIBLE = 1e-3
"""A part of the error that is less of the other is none: so close no integral over the other resolves."""

_FEWEST: dict[Unit, int] = {"rows": 2, "documents": FEWEST_DOCUMENTS}


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean, how well it is known, and whether it could be zero.

    Args:
        value: the mean.
        ci95: 95% interval; None where nothing tells the spread.
        p_value: two-sided probability of a mean as far from zero if the true one is zero.
        reason: why `ci95` is None, or what it does not speak of.
        error: how the mean errs over three seeds or more; None where they do not differ at all.
    """

    value: float
    ci95: Interval | None
    p_value: float | None
    reason: str | None = None
    error: CrossedError | None = dataclasses.field(default=None, compare=False)


def crossed_mean(values: NDArray[np.float64], *, unit: Unit) -> Mean:
    """Average over seeds and rows that are both a sample of many, each seed on every row.

    An interval over rows alone says what these trained models would do on other rows, and is too
    narrow for the question "which strategy?", which is about other seeds as well. In the two-way
    random model `value = mean + seed + row + rest` the error of the mean has two independent
    parts: the seeds', of variance `MS_seed / (seeds * rows)`, which holds the rest too, and the
    rows', of variance `(MS_row - MS_rest) / (seeds * rows)`. Each is known as well as its own degrees
    of freedom allow, so the error is a sum of two Student's t (of skewed documents, one of them
    transformed as in `mean_interval`): the distribution of Behrens and Fisher.

    To add the variances and give the sum Satterthwaite's degrees of freedom is sharper and not safe.
    Where three seeds happen to agree the sum takes the freedom of the rows, and of four
    equal strategies two are called different in up to 18 of 100 comparisons.

    Args:
        values: (seeds, units), float64: a score, or a paired difference of two strategies.
        unit: what the second axis is; documents need ten, rows two.

    Returns:
        With one seed, the interval over rows, and the reason says so. With two, the mean alone.

    References:
        Cornfield and Tukey 1956, Average values of mean squares in factorials.
        Robinson 1976, Properties of Student's t and of the Behrens-Fisher solution to the two
        means problem: that it errs on the safe side, whatever the shares of the two parts.
        Bouthillier et al. 2021, Accounting for variance in machine learning benchmarks
        (arXiv:2103.03098): why one seed is not evidence.
    """
    seeds, units = values.shape
    mean = float(values.mean())
    if units < _FEWEST[unit]:
        shown = f"1 {unit[:-1]} has" if units == 1 else f"{units} {unit} have"
        reason = f"{shown} too little spread for an interval; it takes {_FEWEST[unit]}"
        return Mean(mean, None, None, reason)
    if 1 < seeds < FEWEST_SEEDS:
        return Mean(mean, None, None, TWO_SEEDS)
    reason_ = ONE_SEED if seeds == 1 else None
    if np.ptp(values) == 0:
        return _certain(float(values.flat[0]), reason_)
    error = crossed_error(values)
    kept = error if seeds > 1 else None
    return Mean(mean, error.interval(mean), error.p_value(mean), reason_, kept)


def crossed_share(right: NDArray[np.float64]) -> Mean:
    """Average right (1) and wrong (0) over seeds and rows, where the share may be near 0 or 1.

    The interval of `crossed_mean`, and never less than Wilson's of so many rows. That seeds answer the
    same rows makes them no further rows: those that no seed got wrong are as few as they are.

    Args:
        right: (seeds, rows), float64.

    References:
        Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    mean = crossed_mean(right, unit="rows")
    if mean.ci95 is None:
        return mean
    wilson = share_interval(mean.value, right.shape[1])
    if len(right) == 1:
        return dataclasses.replace(mean, ci95=wilson)
    low, high = mean.ci95
    interval = (max(0.0, min(low, wilson[0])), min(1.0, max(high, wilson[1])))
    return dataclasses.replace(mean, ci95=interval)


def crossed_share_change(change: NDArray[np.float64]) -> Mean:
    """Average the change of right (1) and wrong (0) answers over seeds and rows.

    As `crossed_mean`, and never surer than Agresti and Min's interval, to which half an answer is added on
    either side: two rows won and none lost are not proof of anything, though their mean has
    a small error, for a row that is lost may only not have been seen.

    Args:
        change: (seeds, rows), from -1 to 1: the answers of one less those of the other on the same rows.

    References:
        Agresti and Min 2005, Simple improved confidence intervals for comparing matched
        proportions, Statistics in Medicine 24; answers may be shares here.
    """
    mean = crossed_mean(change, unit="rows")
    if mean.ci95 is None or mean.p_value is None:
        return mean
    gained = change.mean(axis=0)
    count = len(gained) + 2
    center = float(gained.sum()) / count
    error = (float((gained**2).sum()) + 1 - count * center**2) ** 0.5 / count
    margin = float(stats.norm.isf(_TAIL)) * error
    low, high = min(mean.ci95[0], center - margin), max(mean.ci95[1], center + margin)
    p_value = 2 * float(stats.norm.sf(abs(center) / error))
    interval = (max(-1.0, low), min(1.0, high))
    if p_value <= mean.p_value:
        return dataclasses.replace(mean, ci95=interval)
    # What would have been seen is told by the same bound.
    kept = mean.error and dataclasses.replace(mean.error, by_unit=error, skew=0.0)
    return dataclasses.replace(mean, ci95=interval, p_value=p_value, error=kept)


def seed_mean(values: Sequence[float]) -> Mean:
    """Average a figure that each seed has one of, such as seconds: Student's t over three or more."""
    figures = np.asarray(values, dtype=np.float64)
    mean, count = float(figures.mean()), len(figures)
    if count == 1:
        return Mean(mean, None, None, NO_SPREAD)
    if count < FEWEST_SEEDS:
        return Mean(mean, None, None, TWO_SEEDS)
    if np.ptp(figures) == 0:
        return _certain(float(figures[0]), None)
    error = CrossedError(float(figures.std(ddof=1)) / count**0.5, count - 1, 0.0)
    return Mean(mean, error.interval(mean), error.p_value(mean), None, error)


@dataclass(frozen=True, slots=True)
class CrossedError:
    """How a mean over seeds and rows errs: the sum of two independent parts.

    Args:
        by_seed: standard error by the seeds, and by what is neither the seeds' nor the rows'.
        seed_degrees: degrees of freedom of it.
        by_unit: standard error by the rows or documents.
        skew: skewness of the rows or documents.
        units: how many there are.
    """

    by_seed: float
    seed_degrees: int
    by_unit: float
    skew: float = 0.0
    units: int = 2

    def interval(self, mean: float) -> Interval:
        """Return the 95% interval of a mean that errs like this."""
        return mean - self.quantile(1 - _TAIL), mean - self.quantile(_TAIL)

    def p_value(self, mean: float) -> float:
        """Return the two-sided probability of a mean as far from zero if the true one is zero."""
        if self.by_seed == 0:
            error = transformed(mean / self.by_unit, self.skew, self.units)
            return min(1.0, 2 * float(special.stdtr(self.units - 1, -abs(error))))
        by_unit = self._by_unit(_unit_quantiles(self.units))
        tails = [self._tail(sign * mean, sign * by_unit) for sign in (1, -1)]
        return min(1.0, 2 * min(tails))

    def quantile(self, probability: float) -> float:
        """Return the error that a share of all errors lies below."""
        if self.by_seed == 0:
            return float(
                self._by_unit(special.stdtrit(self.units - 1, np.array([probability])))[0]
            )
        # If neither part exceeds its own quantile of half the chance, the sum exceeds their sum with at
        # most the chance itself: so the quantile lies between these two.
        half = min(probability, 1 - probability) / 2
        ends = np.array([half, 1 - half])
        low, high = self.by_seed * special.stdtrit(self.seed_degrees, ends) + self._by_unit(
            special.stdtrit(self.units - 1, ends)
        )
        by_unit = self._by_unit(_unit_quantiles(self.units))
        return float(brentq(lambda error: self._tail(error, by_unit) - probability, low, high))

    def power(self, difference: float, *, level: float) -> float:
        """Return the chance that a true difference is seen: that its p-value lies below a level.

        The standard errors are taken for the true ones. The next seeds' own estimate varies
        around the seeds' part as its degrees of freedom let it, and moves the test's bound with it;
        where the rows have no part, this is the power of Student's t (noncentral t). The rows'
        skewness is left out.

        Args:
            difference: the true mean, of either sign.
            level: of the two-sided test.

        References:
            Cohen 1988, Statistical Power Analysis for the Behavioral Sciences.
        """
        return self._seen(difference, self._bounds(level))

    def detectable(self, *, level: float, power: float = POWER) -> float:
        """Return the true difference that is seen with the given power.

        Args:
            level: of the two-sided test.
            power: chance of seeing it.
        """
        bounds = self._bounds(level)
        high = self.by_seed + self.by_unit
        while self._seen(high, bounds) < power:
            high *= 2
        return float(brentq(lambda true: self._seen(true, bounds) - power, 0.0, high))

    def seeds_needed(self, difference: float, *, level: float, power: float = POWER) -> int | None:
        """Return the fewest seeds that show a difference with the given power.

        More seeds make the seeds' part smaller and better known. The rows' or documents' part
        stays, so that a difference within it is never shown.

        Args:
            difference: the true mean, of either sign.
            level: of the two-sided test.
            power: chance of seeing it.

        Returns:
            None where `MOST_SEEDS` do not show it; where none do, `shown_by_seeds` is False.
        """
        if not self.shown_by_seeds(difference, level=level, power=power):
            return None

        def show(seeds: int) -> bool:
            return self.with_seeds(seeds).power(difference, level=level) >= power

        if not show(MOST_SEEDS):
            return None
        few, enough = FEWEST_SEEDS - 1, FEWEST_SEEDS
        while not show(enough):
            few, enough = enough, min(2 * enough, MOST_SEEDS)
        while enough - few > 1:
            middle = (few + enough) // 2
            few, enough = (few, middle) if show(middle) else (middle, enough)
        return enough

    def shown_by_seeds(self, difference: float, *, level: float, power: float = POWER) -> bool:
        """Return whether any number of seeds shows a difference on the same rows or documents."""
        of_units = dataclasses.replace(self, by_seed=0.0)
        return self.by_unit == 0 or of_units.power(difference, level=level) > power

    def with_seeds(self, seeds: int) -> CrossedError:
        """Return how the mean of another number of seeds would err, on the same rows or documents."""
        by_seed = self.by_seed * ((self.seed_degrees + 1) / seeds) ** 0.5
        return dataclasses.replace(self, by_seed=by_seed, seed_degrees=seeds - 1)

    def _bounds(self, level: float) -> NDArray[np.float64]:
        """Return from where on a mean is significant, for each spread that seeds may show.

        Returns:
            (spreads,): at the quantiles `_SPREADS`.
        """
        if self.by_seed == 0:
            alone = self.by_unit * stats.t.isf(level / 2, self.units - 1)
            return np.full(len(_SPREADS), alone)
        degrees = self.seed_degrees
        of_seeds = (
            self.by_seed * (stats.chi2.ppf(_SPREADS, degrees) / degrees) ** 0.5
        )  # (spreads,)
        of_units = self.by_unit * stats.t.ppf(_AT, self.units - 1)  # (nodes,)

        def above(
            bounds: NDArray[np.float64], spreads: NDArray[np.float64]
        ) -> NDArray[np.float64]:
            rest = (bounds[:, None] - of_units) / spreads[:, None]  # (spreads, nodes)
            return np.asarray(special.stdtr(degrees, -rest) @ _WEIGHTS - level / 2)

        # As in `quantile`: where neither part exceeds its quantile of half the chance, the sum does not.
        t_seeds, t_units = stats.t.isf(level / 4, [degrees, self.units - 1])
        highest = of_seeds * t_seeds + self.by_unit * t_units
        found = elementwise.find_root(
            above, (0 * highest, highest), args=(of_seeds,), tolerances={"xrtol": 1e-6}
        )
        return np.asarray(found.x)

    def _seen(self, difference: float, bounds: NDArray[np.float64]) -> float:
        """Return the chance that a mean lies beyond its bound on either side."""
        error = float(np.hypot(self.by_seed, self.by_unit))
        beyond = stats.norm.sf((bounds - difference) / error) + stats.norm.cdf((-bounds - difference) / error)  # fmt: skip
        return float(beyond @ _SHARES)

    def _by_unit(self, plain: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn quantiles of Student's t into those of the units' part."""
        return self.by_unit * mapped_back(plain, self.skew, self.units)

    def _tail(self, error: float, by_unit: NDArray[np.float64]) -> float:
        """Integrate the lower tail of the seeds' part over all that the units' part may be."""
        # scipy.special has the same function as scipy.stats, without its checks: this is called
        # some twenty times an interval.
        below = special.stdtr(self.seed_degrees, (error - by_unit) / self.by_seed)
        return float(below @ _WEIGHTS)


@lru_cache(maxsize=64)
def _unit_quantiles(units: int) -> NDArray[np.float64]:
    """Return Student's t at the places where the units' part is integrated."""
    return np.asarray(special.stdtrit(units - 1, _AT))


@lru_cache(maxsize=64)
def _least_share(seeds: int) -> float:
    """Return the share of its expectation that a mean square over seeds lies below in 1 of 20 cases."""
    half = (seeds - 1) / 2
    return float(special.gammaincinv(half, 0.05)) / half  # chi-square over its degrees of freedom


def crossed_error(values: NDArray[np.float64]) -> CrossedError:
    """Estimate how the mean of values, (seeds, units), errs."""
    seeds, units = values.shape
    mean = values.mean()
    of_units = values.mean(axis=0, keepdims=True)  # (1, units)
    skew = skewness(of_units[0])
    if seeds == 1:
        return CrossedError(0.0, 0, float(of_units.std(ddof=1)) / units**0.5, skew, units)
    of_seeds = values.mean(axis=1, keepdims=True)  # (seeds, 1)
    rest = float(((values - of_seeds - of_units + mean) ** 2).sum()) / ((seeds - 1) * (units - 1))
    by_seed = float(((of_seeds - mean) ** 2).sum()) * units / (seeds - 1)
    # Its expectation is not below that of the rest. Seeds that agree to the last row, of which there
    # are only so many, are not proof that all seeds do: it is not taken for smaller than chance
    # makes the rest's own mean square in 1 of 20 cases.
    by_seed = max(by_seed, rest * _least_share(seeds))
    by_unit = float(((of_units - mean) ** 2).sum()) * seeds / (units - 1)
    of_seeds_alone = (by_seed / (seeds * units)) ** 0.5
    # What is neither has come out larger than the rows by chance; no variance is negative.
    of_units_alone = (max(0.0, by_unit - rest) / (seeds * units)) ** 0.5
    if of_seeds_alone < _NEGLIGIBLE * of_units_alone:
        of_seeds_alone = 0.0
    return CrossedError(of_seeds_alone, seeds - 1, of_units_alone, skew, units)


def _certain(value: float, reason: str | None) -> Mean:
    """Return a mean without spread."""
    return Mean(value, (value, value), 1.0 if value == 0 else 0.0, reason)
