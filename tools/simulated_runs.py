"""Draw what runs lose and answer, with a known truth: the data of tools/simulate_statistics.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.special import ndtri

from peftune.experiments.report import PathPoint
from peftune.stats.intervals import contributions

MARGIN = 0.1
"""Mean loss of every simulated document, and the margin of the verdicts: only their ratio matters."""

COLLAPSED = 0.15
"""Share of runs that fail, where some do."""

Array = NDArray[np.float64]


def _lognormal(generator: Generator, sigma: float, size: Any) -> Array:  # noqa: ANN401 - a shape
    """Draw with a mean of 1."""
    return np.asarray(np.exp(sigma * generator.standard_normal(size) - sigma**2 / 2))


def _rare(generator: Generator, size: int, *, share: float) -> Array:
    """Draw documents of which a share loses twenty times as much as the others; their mean is 1."""
    loss = np.where(generator.random(size) < share, 20.0, 1.0) / (1 + 19 * share)
    return loss * _lognormal(generator, 0.3, size)


SHAPES: dict[str, Callable[[Generator, int], Array]] = {
    "normal": lambda generator, size: 1 + generator.standard_normal(size),
    "heavy-tailed (t, 3 degrees)": lambda generator, size: 1 + generator.standard_t(3, size),
    "exponential": lambda generator, size: generator.exponential(1, size),
    "lognormal 0.7": lambda generator, size: _lognormal(generator, 0.7, size),
    "lognormal 1.2": lambda generator, size: _lognormal(generator, 1.2, size),
    "1 in 20 loses 20 times": partial(_rare, share=0.05),
    "1 in 50 loses 20 times": partial(_rare, share=0.02),
}
"""How documents lose, with a mean of 1. The lognormals have a skewness of 2.9 and 11."""


@dataclass(frozen=True, slots=True)
class Losses:
    """Forgetting of strategies, seeds and documents, in which all may vary.

    Args:
        seeds: runs of each strategy.
        documents: scored by every run.
        spreads: coefficient of variation over seeds, one for each strategy.
        factors: how much each strategy forgets on average, in units of `MARGIN`.
        shape: how documents lose, one of `SHAPES`.
        scales: whether a seed multiplies what every document loses, or adds to it.
        seed_shape: how seeds vary: "normal", "shared" by the strategies of a seed, "outlier" (Student's
            t with two degrees of freedom) or "collapse" (15% of runs lose ten times as much).
        dominated: whether one document has half of all bytes.
    """

    seeds: int
    documents: int
    spreads: tuple[float, ...]
    factors: tuple[float, ...]
    shape: str = "normal"
    scales: bool = True
    seed_shape: str = "normal"
    dominated: bool = False

    def __call__(self, generator: Generator) -> list[Array]:
        """Return each strategy's contributions, (seeds, documents)."""
        weight = 900 * np.exp(0.5 * generator.standard_normal(self.documents))
        if self.dominated:
            weight[0] = weight[1:].sum()
        profile = SHAPES[self.shape](generator, self.documents)  # the same for all strategies
        shared = generator.standard_normal((self.seeds, 1))
        return [
            contributions(weight * MARGIN * factor * self._of(generator, profile, shared, spread), weight)
            for factor, spread in zip(self.factors, self.spreads, strict=True)
        ]  # fmt: skip

    def _of(self, generator: Generator, profile: Array, shared: Array, spread: float) -> Array:
        """Draw one strategy's losses with a mean of 1, (seeds, documents)."""
        own = profile * _lognormal(generator, 0.3, self.documents)  # a strategy by document
        rest = 0.3 * generator.standard_normal((self.seeds, self.documents))
        seed = self._seeds(generator, shared, spread)
        return seed * own + rest if self.scales else own + seed - 1 + rest

    def _seeds(self, generator: Generator, shared: Array, spread: float) -> Array:
        """Draw what seeds multiply by or add, with a mean of 1, (seeds, 1)."""
        size = (self.seeds, 1)
        if self.seed_shape == "outlier":
            return np.asarray(1 + spread * generator.standard_t(2, size))
        sigma = float(np.log1p(spread**2)) ** 0.5
        if self.seed_shape == "shared":
            return np.asarray(np.exp(sigma * shared - sigma**2 / 2))
        if self.seed_shape == "collapse":
            collapsed = np.where(generator.random(size) < COLLAPSED, 10.0, 1.0)
            collapsed = collapsed / (1 + 9 * COLLAPSED)
            return collapsed * _lognormal(generator, sigma, size)
        if not self.scales:
            return np.asarray(1 + spread * generator.standard_normal(size))
        return _lognormal(generator, sigma, size)


@dataclass(frozen=True, slots=True)
class Answers:
    """Right and wrong of strategies, seeds and rows: right where a normal variable lies above zero.

    Args:
        seeds: runs of each strategy.
        rows: answered by every run.
        accuracies: of each strategy, over all seeds and rows.
        by_seed: standard deviation of a strategy's accuracy over seeds.
        rest: what is neither the row's nor the seed's; with 0 and without `by_seed` all seeds of a
            strategy answer alike.
        collapse: share of runs that fall to an accuracy of 0.4.
    """

    seeds: int
    rows: int
    accuracies: tuple[float, ...]
    by_seed: float
    rest: float = 0.6
    collapse: float = 0.0

    def __call__(self, generator: Generator) -> list[Array]:
        """Return each strategy's answers, (seeds, rows)."""
        row = 1.2 * generator.standard_normal(self.rows)
        return [self._of(generator, row, accuracy) for accuracy in self.accuracies]

    def _of(self, generator: Generator, row: Array, accuracy: float) -> Array:
        without = (1.2**2 + 0.45**2 + self.rest**2) ** 0.5
        # A shift of the latent mean moves the accuracy by the density there, to first order.
        at = float(ndtri(accuracy))
        seed = self.by_seed * without * float(np.exp(at**2 / 2)) * (2 * np.pi) ** 0.5
        scale = (without**2 + seed**2) ** 0.5
        size = (self.seeds, 1)
        collapsed = generator.random(size) < self.collapse
        mean = np.where(collapsed, float(ndtri(0.4)), at) * scale
        latent = mean + row + 0.45 * generator.standard_normal(self.rows)
        latent = latent + seed * generator.standard_normal(size)
        latent = latent + self.rest * generator.standard_normal((self.seeds, self.rows))
        return np.asarray(latent > 0, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Documents:
    """What the documents of one run lost: sums of bits and of bytes.

    Args:
        count: documents.
        shape: how they lose, one of `SHAPES`.
        mean: loss per byte, in units of `MARGIN`, of all documents there could be.
        unlike: whether they are of unlike length, and longer ones lose more per byte.
    """

    count: int
    shape: str
    mean: float = 1.0
    unlike: bool = False

    def __call__(self, generator: Generator) -> tuple[Array, Array]:
        """Return totals and weights, (documents,)."""
        weight = np.ones(self.count)
        if self.unlike:
            weight = np.exp(0.5 * generator.standard_normal(self.count))
        loss = SHAPES[self.shape](generator, self.count) - 1 + self.mean
        # E(weight^1.3) over E(weight) of this lognormal: so the ratio of sums stays what it is.
        tilt = weight**0.3 / np.exp(0.125 * (1.3**2 - 1)) if self.unlike else 1.0
        return weight * loss * tilt * MARGIN, weight


@dataclass(frozen=True, slots=True)
class RightOrWrong:
    """Documents that are right or wrong before and after.

    Args:
        count: documents.
        base: accuracy before.
        lost: by how much it falls.
    """

    count: int
    base: float
    lost: float

    def __call__(self, generator: Generator) -> tuple[Array, Array]:
        """Return right and wrong before and after, (documents,)."""
        gained = min(0.02, (1 - self.base) / 2)
        before = generator.random(self.count) < self.base
        moved = generator.random(self.count)
        to_wrong = before & (moved < (gained + self.lost) / self.base)
        to_right = ~before & (moved < gained / (1 - self.base))
        after = (before & ~to_wrong) | to_right
        return before.astype(np.float64), after.astype(np.float64)


@dataclass(frozen=True, slots=True)
class Paths:
    """Two strategies on one curve of forgetting over accuracy, of which one goes less far.

    Args:
        seeds: runs of each.
        reach: how far the nearer goes, as a share.
        spread: how far apart runs end and how unlike they forget, as coefficients of variation.
        factor: how much the nearer forgets beside the curve.
    """

    seeds: int
    reach: float
    spread: float
    factor: float = 1.0

    def __call__(self, generator: Generator) -> dict[str, dict[int, list[PathPoint]]]:
        """Return the paths from the base of all runs."""
        ends = {"further": (1.0, 1.0), "nearer": (self.reach, self.factor)}
        return {
            name: {seed: self._run(generator, *end) for seed in range(self.seeds)}
            for name, end in ends.items()
        }

    def _run(self, generator: Generator, end: float, factor: float) -> list[PathPoint]:
        reach = end * np.exp(self.spread * generator.standard_normal())
        lost = factor * np.exp(self.spread * generator.standard_normal())
        luck = 0.003 * generator.standard_normal()
        points = []
        for strength in (0.0, 0.25, 0.5, 0.75, 1.0):
            gone = reach * strength
            accuracy = 0.4 + 0.33 * (1 - np.exp(-3 * gone)) / (1 - np.exp(-3)) + luck * strength
            points.append(PathPoint(strength, None, accuracy, accuracy, {"text": lost * gone**2}))
        return points
