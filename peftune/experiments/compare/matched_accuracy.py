"""Forgetting at equal accuracy: how much strategies forget once they have learned as much."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from peftune.experiments.compare.pairs import NO_SHARED_SEED, Reasons, adjusted, difference
from peftune.experiments.compare.summary import Difference, Estimate, Matched
from peftune.experiments.report import PathPoint
from peftune.stats.crossed import CrossedError, Mean, seed_mean

_STEPS = 400
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Line:
    """Points in an order: strengths that rise, or checkpoints that follow each other.

    Args:
        at: the strengths or steps, (points,), rising.
        accuracy: (seeds, points).
        forgetting: (seeds, points).
    """

    at: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    forgetting: NDArray[np.float64]

    def between(self, where: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Interpolate the mean over seeds: accuracy and forgetting, (where,) each.

        The cubic of Fritsch and Carlson (PCHIP) is monotone between two points, so that it finds
        no accuracy that was not measured on one side or the other. A straight line would overstate
        forgetting between the points, for forgetting grows faster than the accuracy with it.
        """
        return tuple(
            _between(self.at, values.mean(axis=0), where)
            for values in (self.accuracy, self.forgetting)
        )

    def deviations(self, where: float) -> tuple[NDArray[np.float64], ...]:
        """Return how far each seed is from the mean at a place: accuracy, forgetting, (seeds,)."""
        found = []
        for values in (self.accuracy, self.forgetting):
            seen = np.array([_between(self.at, row, np.array([where]))[0] for row in values])
            found.append(seen - seen.mean())
        return tuple(found)


def lines_of(paths: Sequence[Sequence[PathPoint]], probe: str) -> list[Line]:
    """Sort the points of each seed's path into lines; points that a seed lacks are left out.

    Args:
        paths: one a seed.
        probe: name of the probe.
    """
    seeds = [
        {_place(point): point for point in path if probe in point.forgetting} for path in paths
    ]
    common = set.intersection(*(set(points) for points in seeds))
    lines = []
    for kept in (True, False):
        keys = sorted(key for key in common if key[0] is kept)
        if keys:
            lines.append(
                Line(
                    at=np.array([at for _, at in keys], dtype=np.float64),
                    accuracy=np.array(
                        [[points[key].accuracy for key in keys] for points in seeds]
                    ),
                    forgetting=np.array(
                        [[points[key].forgetting[probe] for key in keys] for points in seeds]
                    ),
                )
            )
    return lines


def _place(point: PathPoint) -> tuple[bool, float]:
    """Return whether a point lies between base and kept model, and its place on that line."""
    return (True, point.strength) if point.step is None else (False, float(point.step))


def best_accuracy(lines: Sequence[Line]) -> float:
    """Return the largest accuracy that the lines reach on average over seeds."""
    return max(float(line.accuracy.mean(axis=0).max()) for line in lines)


def forgetting_at(lines: Sequence[Line], accuracy: float) -> NDArray[np.float64] | None:
    """Read the least forgetting with which the lines are as accurate as that.

    The mean over seeds is read where the mean line crosses the accuracy. Each seed's figure is that
    reading, plus what the seed forgot more there, minus what its greater accuracy there would
    have cost; so no seed drops out because its own line ends a little lower, and the figures spread
    as the reading does.

    Returns:
        One figure a seed, whose mean is the reading, (seeds,); None where the accuracy is not
        reached.
    """
    found = _reading(lines, accuracy)
    if found is None:
        return None
    least, line, where = found
    more_accurate, more_forgotten = line.deviations(where)
    spread = float(more_accurate.std(ddof=1)) if len(more_accurate) > 1 else 0.0
    if spread == 0:
        return np.asarray(least + more_forgotten)
    before = _reading(lines, accuracy - spread)
    slope = (least - before[0]) / spread if before else 0.0
    return np.asarray(least + more_forgotten - slope * more_accurate)


def _reading(lines: Sequence[Line], accuracy: float) -> tuple[float, Line, float] | None:
    """Find the least forgetting at the accuracy, and on which line it lies and where."""
    found = [
        (forgotten, line, where)
        for line in lines
        for forgotten, where in [_least(line, accuracy)]
        if np.isfinite(forgotten)
    ]
    return min(found, key=lambda one: one[0], default=None)


def _least(line: Line, accuracy: float) -> tuple[float, float]:
    """Return the least forgetting on a line at that accuracy or more, and where; else infinity."""
    where = np.union1d(np.linspace(line.at[0], line.at[-1], _STEPS + 1), line.at)
    reached, forgotten = line.between(where)
    above = reached >= accuracy - _ROUNDING
    # Where the line crosses the accuracy, the crossing itself: (steps,)
    crossing = np.flatnonzero(above[1:] != above[:-1])
    share = (accuracy - reached[crossing]) / (reached[crossing + 1] - reached[crossing])
    share = share.clip(0, 1)
    candidates = np.r_[
        np.where(above, forgotten, np.inf),
        forgotten[crossing] + share * (forgotten[crossing + 1] - forgotten[crossing]),
    ]
    places = np.r_[where, where[crossing] + share * (where[crossing + 1] - where[crossing])]
    best = int(candidates.argmin())
    return float(candidates[best]), float(places[best])


def _between(
    at: NDArray[np.float64], values: NDArray[np.float64], where: NDArray[np.float64]
) -> NDArray[np.float64]:
    if len(at) == 1:
        return np.full(len(where), values[0])
    return np.asarray(PchipInterpolator(at, values)(where))


NO_PATH = "no path from the base was measured in every run, or its control failed"


def forgetting_at_matched_accuracy(
    probe: str,
    paths: Mapping[str, Mapping[int, Sequence[PathPoint]]],
    *,
    learned: Collection[str],
    accuracy: float | None = None,
    not_ranked: Reasons | None = None,
) -> Matched | None:
    """Read every strategy's forgetting at one accuracy, along its path from the base.

    A strategy that learned less forgets less, which is not merit: on the way there the others
    forgot as little. The intervals are over seeds, on these rows and documents.

    Args:
        probe: name of the probe.
        paths: by strategy and seed.
        learned: strategies that learned the task; the others do not lower the accuracy.
        accuracy: where to read; None for the largest accuracy that the paths of all strategies in
            `learned` reach.
        not_ranked: pairs that are not a fair comparison, with the reason.

    Returns:
        None with fewer than two strategies, or where none that learned has a path.
    """
    lines = {name: lines_of(list(seeds.values()), probe) for name, seeds in paths.items()}
    known = [name for name in lines if name in learned and lines[name]]
    if len(paths) < 2 or not known:  # noqa: PLR2004 - a comparison takes two
        return None
    if accuracy is None:
        accuracy = min(best_accuracy(lines[name]) for name in known)
    figures = {name: _by_seed(lines[name], list(paths[name]), accuracy) for name in paths}
    differences = [
        _difference(f"forgetting.{probe}", (first, second), figures)
        for first, second in combinations(figures, 2)
        if figures[first] and figures[second]
    ]
    return Matched(
        probe=probe,
        accuracy=accuracy,
        forgetting={
            name: _estimate(lines[name], list(paths[name]), figures[name]) for name in paths
        },
        differences=adjusted(differences, not_ranked or {}),
    )


def _by_seed(lines: Sequence[Line], seeds: Sequence[int], accuracy: float) -> dict[int, float]:
    figures = forgetting_at(lines, accuracy) if lines else None
    if figures is None:
        return {}
    return {seed: float(figure) for seed, figure in zip(seeds, figures, strict=True)}


def _estimate(
    lines: Sequence[Line], seeds: Sequence[int], figures: Mapping[int, float]
) -> Estimate:
    if not lines:
        return Estimate(None, None, [None] * len(seeds), NO_PATH)
    if not figures:
        reason = f"not reached: its path ends at an accuracy of {best_accuracy(lines):.3f}"
        return Estimate(None, None, [None] * len(seeds), reason)
    mean = seed_mean(list(figures.values()))
    return Estimate(mean.value, mean.ci95, list(figures.values()), mean.reason)


def _difference(
    key: str, pair: tuple[str, str], figures: Mapping[str, Mapping[int, float]]
) -> tuple[Difference, CrossedError | None]:
    first, second = (figures[name] for name in pair)
    shared = [seed for seed in first if seed in second]
    if not shared:
        apart = float(np.mean(list(first.values())) - np.mean(list(second.values())))
        return difference(key, pair, Mean(apart, None, None, NO_SHARED_SEED))
    return difference(key, pair, seed_mean([first[seed] - second[seed] for seed in shared]))
