"""All pairs of strategies in one figure: paired differences, adjusted for how many there are."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from peftune.experiments.compare.summary import Difference
from peftune.stats.crossed import (
    FEWEST_SEEDS,
    MOST_SEEDS,
    CrossedError,
    Mean,
    Unit,
    crossed_mean,
    crossed_share_change,
)
from peftune.stats.tests import LEVEL, McNemar, holm, letters, mcnemar

Scores = Mapping[int, NDArray[np.float64]]
"""By seed, one score a row, or one contribution a document."""

Reasons = Mapping[frozenset[str], str]
"""Why a pair of strategies is not ranked."""

NO_SHARED_SEED = "no seed was finished by both"
NO_SPREAD = "no spread tells which difference would have been seen"


def differences(
    key: str, scores: Mapping[str, Scores], *, unit: Unit, not_ranked: Reasons
) -> list[Difference]:
    """Compare all pairs of strategies on the same rows or documents, seed by seed.

    Args:
        key: which figure.
        scores: by strategy.
        unit: what a seed's scores are of.
        not_ranked: pairs that are not a fair comparison, with the reason.
    """
    found = [
        _difference(key, pair, scores, unit=unit, answers=key == "accuracy")
        for pair in combinations(scores, 2)
    ]
    return adjusted(found, not_ranked, unit=unit)


def adjusted(
    found: Sequence[tuple[Difference, CrossedError | None]],
    not_ranked: Reasons,
    *,
    unit: Unit = "documents",
) -> list[Difference]:
    """Adjust the p-values of one figure's pairs by Holm, and mark those below the level as significant.

    Args:
        found: the pairs of one figure, each with how its mean errs.
        not_ranked: pairs that are not a fair comparison, with the reason.
        unit: what there would have to be more of where no number of seeds shows a difference.
    """
    p_values = holm([pair.p_value for pair, _ in found if pair.p_value is not None])
    rejected = sum(p_value < LEVEL for p_value in p_values)
    remaining = iter(p_values)
    found_with_p = []
    for pair, error in found:
        p_adjusted = None if pair.p_value is None else next(remaining)
        significant = p_adjusted is not None and p_adjusted < LEVEL
        unfair = not_ranked.get(frozenset((pair.first, pair.second)))
        one = dataclasses.replace(
            pair,
            p_adjusted=p_adjusted,
            significant=significant,
            ranked=unfair is None,
            reason=_reasons(unfair, pair.reason),
        )
        if p_adjusted is not None and not significant and unfair is None:
            # Had its own p-value been below this, Holm would have found this pair significant too.
            level = LEVEL / (len(p_values) - rejected)
            one = _with_what_would_be_seen(one, error, level=level, unit=unit)
        found_with_p.append(one)
    return found_with_p


def _with_what_would_be_seen(
    pair: Difference, error: CrossedError | None, *, level: float, unit: Unit
) -> Difference:
    """Add which difference would have been seen, and how many seeds would show this one."""
    if error is None:
        return dataclasses.replace(pair, reason=_reasons(pair.reason, NO_SPREAD))
    detectable, needed = error.detectable(level=level), None
    if pair.mean != 0:
        needed = error.seeds_needed(pair.mean, level=level)
    if needed is not None:
        why = None
    elif error.shown_by_seeds(pair.mean, level=level):
        why = f"{MOST_SEEDS:,} seeds would not show a difference this small"
    else:
        why = f"no number of seeds would show a difference this small, but more {unit} might"
    return dataclasses.replace(
        pair, detectable=detectable, seeds_needed=needed, reason=_reasons(pair.reason, why)
    )


def _reasons(*reasons: str | None) -> str | None:
    return "; ".join(filter(None, reasons)) or None


def ties(order: Sequence[str], found: Sequence[Difference]) -> dict[str, str]:
    """Give strategies letters: two that share one are not significantly different.

    A shared letter is a claim: these were tested, and no difference was seen. So a strategy has
    letters only where it was tested against every other that has them.

    Args:
        order: the strategies that have the figure, the best first.
        found: their differences in it.

    Returns:
        By strategy; without those of too few seeds, rows or documents.
    """
    tested = {frozenset((pair.first, pair.second)) for pair in found if pair.p_value is not None}
    names = list(order)
    while missing := _untested(names, tested):
        # The one with most gaps goes; of equals the last, so that the best keep their letters.
        names.remove(max(reversed(names), key=lambda name: missing.get(name, 0)))
    if len(names) < 2:  # noqa: PLR2004 - one strategy has nothing to differ from
        return {}
    return letters(
        names,
        [
            (pair.first, pair.second)
            for pair in found
            if pair.significant and {pair.first, pair.second} <= set(names)
        ],
    )


def _untested(names: Sequence[str], tested: Collection[frozenset[str]]) -> dict[str, int]:
    """Count for each strategy the others that it was not tested against, if any."""
    gaps = {
        name: sum(frozenset((name, other)) not in tested for other in names if other != name)
        for name in names
    }
    return {name: count for name, count in gaps.items() if count}


def _difference(
    key: str,
    pair: tuple[str, str],
    scores: Mapping[str, Scores],
    *,
    unit: Unit,
    answers: bool,
) -> tuple[Difference, CrossedError | None]:
    first, second = (scores[name] for name in pair)
    seeds = sorted(set(first) & set(second))
    if not seeds:
        apart = float(np.mean([*first.values()]) - np.mean([*second.values()]))
        return difference(key, pair, Mean(apart, None, None, NO_SHARED_SEED))
    apart_by_seed = np.array([first[seed] - second[seed] for seed in seeds])
    mean = (
        crossed_share_change(apart_by_seed) if answers else crossed_mean(apart_by_seed, unit=unit)
    )
    if len(seeds) < FEWEST_SEEDS:
        # What rows tell of two models, `mcnemar` says; it is not a test of their strategies.
        mean = dataclasses.replace(mean, p_value=None)
    tests: dict[int, McNemar] = {}
    if answers:
        tests = {seed: mcnemar(first[seed], second[seed]) for seed in seeds}
    found, error = difference(key, pair, mean)
    return dataclasses.replace(found, mcnemar=tests), error


def difference(
    key: str, pair: tuple[str, str], mean: Mean
) -> tuple[Difference, CrossedError | None]:
    """Set down how two strategies differ and how that errs, before all pairs have been looked at."""
    found = Difference(
        key=key,
        first=pair[0],
        second=pair[1],
        mean=mean.value,
        ci95=mean.ci95,
        p_value=mean.p_value,
        p_adjusted=None,
        mcnemar={},
        significant=False,
        ranked=True,
        reason=mean.reason,
    )
    return found, mean.error
