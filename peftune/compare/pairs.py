"""All pairs of strategies in one figure: paired differences, adjusted for how many there are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from peftune.compare.crossed import Mean, Unit, crossed_mean
from peftune.compare.summary import Difference
from peftune.compare.ties import LEVEL, holm, letters
from peftune.forgetting.statistics import McNemar, mcnemar

Scores = Mapping[int, NDArray[np.float64]]
"""By seed, one score a row, or one contribution a document."""

Reasons = Mapping[frozenset[str], str]
"""Why a pair of strategies is not ranked."""

NO_SHARED_SEED = "no seed was finished by both"


def differences(
    key: str, scores: Mapping[str, Scores], *, unit: Unit, not_ranked: Reasons
) -> list[Difference]:
    """Compare all pairs of strategies on the same rows or documents, seed by seed.

    Args:
        key: which figure.
        scores: by strategy.
        unit: what a seed's scores are of.
        not_ranked: pairs that are no fair comparison, with the reason.
    """
    found = [
        _difference(key, pair, scores, unit=unit, answers=key == "accuracy")
        for pair in combinations(scores, 2)
    ]
    return adjusted(found, not_ranked)


def adjusted(found: Sequence[Difference], not_ranked: Reasons) -> list[Difference]:
    """Adjust the p-values of one figure's pairs by Holm, and say which can be told apart."""
    p_values = holm([pair.p_value for pair in found if pair.p_value is not None])
    remaining = iter(p_values)
    judged = []
    for pair in found:
        p_adjusted = None if pair.p_value is None else next(remaining)
        unfair = not_ranked.get(frozenset((pair.first, pair.second)))
        judged.append(
            dataclasses.replace(
                pair,
                p_adjusted=p_adjusted,
                told_apart=p_adjusted is not None and p_adjusted < LEVEL,
                ranked=unfair is None,
                reason="; ".join(filter(None, (unfair, pair.reason))) or None,
            )
        )
    return judged


def ties(order: Sequence[str], found: Sequence[Difference]) -> dict[str, str]:
    """Give strategies letters by what tells them apart.

    Args:
        order: the strategies that have the figure, the best first.
        found: their differences in it.
    """
    return letters(order, [(pair.first, pair.second) for pair in found if pair.told_apart])


def _difference(
    key: str,
    pair: tuple[str, str],
    scores: Mapping[str, Scores],
    *,
    unit: Unit,
    answers: bool,
) -> Difference:
    first, second = (scores[name] for name in pair)
    seeds = sorted(set(first) & set(second))
    if not seeds:
        apart = float(np.mean([*first.values()]) - np.mean([*second.values()]))
        return difference(key, pair, Mean(apart, None, None, NO_SHARED_SEED))
    mean = crossed_mean(np.array([first[seed] - second[seed] for seed in seeds]), unit=unit)
    tests: dict[int, McNemar] = {}
    if answers:
        tests = {seed: mcnemar(first[seed], second[seed]) for seed in seeds}
    return dataclasses.replace(difference(key, pair, mean), mcnemar=tests)


def difference(key: str, pair: tuple[str, str], mean: Mean) -> Difference:
    """Set down how two strategies differ, before all pairs have been looked at."""
    return Difference(
        key=key,
        first=pair[0],
        second=pair[1],
        mean=mean.value,
        ci95=mean.ci95,
        p_value=mean.p_value,
        p_adjusted=None,
        mcnemar={},
        told_apart=False,
        ranked=True,
        reason=mean.reason,
    )
