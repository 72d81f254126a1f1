"""Forgetting at matched accuracy: what strategies forget once they have learned as much."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

import numpy as np

from peftune.compare.pairs import NO_SHARED_SEED, Reasons, adjusted, difference
from peftune.compare.paths import Line, best_accuracy, forgetting_at, lines_of
from peftune.compare.summary import Difference, Estimate, Matched
from peftune.runs.report import PathPoint
from peftune.stats.crossed import CrossedError, Mean, seed_mean

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

    A strategy that learned less forgets less, which is no merit: on the way there the others
    forgot as little. The intervals are over seeds, on these rows and documents.

    Args:
        probe: name of the probe.
        paths: by strategy and seed.
        learned: strategies that learned the task; the others do not lower the accuracy.
        accuracy: where to read; None for the largest accuracy that the paths of all strategies in
            `learned` reach.
        not_ranked: pairs that are no fair comparison, with the reason.

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
