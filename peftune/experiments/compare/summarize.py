"""Summarize the evidence of all runs of a comparison."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal

import numpy as np

from peftune.baselines.baseline import Baseline, best_baseline
from peftune.experiments.compare.clean_rows import CleanRows, clean_rows
from peftune.experiments.compare.figures import (
    ACCURACY,
    COSTS,
    MACRO_F1,
    BySeed,
    accuracy_estimate,
    against_baseline,
    answers,
    by_strategy,
    collapsed,
    control_failed,
    forgetting_estimate,
    forgetting_key,
    forgotten,
    macro_f1_against,
    probes_of,
    seed_estimate,
)
from peftune.experiments.compare.matched_accuracy import forgetting_at_matched_accuracy
from peftune.experiments.compare.pairs import Reasons, differences, ties
from peftune.experiments.compare.recommendation import answer
from peftune.experiments.compare.summary import (
    AgainstBaseline,
    Difference,
    Front,
    HeldEqual,
    LeakedRows,
    Matched,
    Standing,
    Summary,
)
from peftune.experiments.run_evidence import Evidence
from peftune.tasks.significance import significance_of_classes


def front(figures: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the names that no other dominates, in the order given.

    One dominates another if it is at least as good in both figures and better in one; of equal
    ones both stay.

    Args:
        figures: by name, what to have much of (accuracy) and what to have little of.
    """
    return [
        name
        for name, (gain, price) in figures.items()
        if not any(
            other_gain >= gain
            and other_price <= price
            and (other_gain, other_price) != (gain, price)
            for other_gain, other_price in figures.values()
        )
    ]


_WORDS = {"examples_seen": "rows read in training", "steps": "optimizer steps"}


def not_ranked(
    runs: Mapping[str, BySeed], held_equal: HeldEqual, budgets: Mapping[str, int] | None
) -> Reasons:
    """Find the pairs that differ in what a comparison holds equal.

    Args:
        runs: by strategy and seed.
        held_equal: what is held equal.
        budgets: trials of the tuning of each strategy; read where `held_equal` is `tuned`.

    Returns:
        By pair, why it is shown and not ranked.
    """
    reasons = {}
    for pair in combinations(runs, 2):
        if held_equal == "tuned":
            reason = _tuning(pair, budgets or {})
        else:
            reason = _training(pair, runs, held_equal)
        if reason is not None:
            reasons[frozenset(pair)] = f"not ranked: {reason}"
    return reasons


def equal_over_seeds(runs: BySeed, what: Literal["examples_seen", "steps"]) -> int | None:
    """Return a count that is the same in every run of a strategy; else None."""
    counts = {getattr(one.run.cost, what) for one in runs.values()}
    return counts.pop() if len(counts) == 1 else None


def _tuning(pair: tuple[str, str], budgets: Mapping[str, int]) -> str | None:
    missing = [name for name in pair if name not in budgets]
    if missing:
        return f"no tuning budget is known for {' and '.join(missing)}"
    first, second = (budgets[name] for name in pair)
    if first != second:
        return f"{pair[0]} was tuned with {first:,} trials and {pair[1]} with {second:,}"
    return None


def _training(
    pair: tuple[str, str], runs: Mapping[str, BySeed], what: Literal["examples_seen", "steps"]
) -> str | None:
    first, second = (runs[name] for name in pair)
    for seed in [seed for seed in first if seed in second]:
        counts = [getattr(of[seed].run.cost, what) for of in (first, second)]
        if counts[0] != counts[1]:
            return f"{pair[0]} had {counts[0]:,} {_WORDS[what]} and {pair[1]} {counts[1]:,} (seed {seed})"
    return None


_LEAST_LOG = -700.0
"""The log of a probability that JSON holds as 0."""


def summarize(
    evidence: Sequence[Evidence],
    *,
    baselines: Sequence[Baseline],
    held_equal: HeldEqual,
    budgets: Mapping[str, int] | None = None,
) -> Summary:
    """Set strategies against each other on the same rows, documents and seeds.

    Rows that were read in training are left out of every figure.

    Args:
        evidence: the finished runs, in any order.
        baselines: the baselines on the same rows, or on some of them.
        held_equal: what the strategies should share besides rows and seeds; a pair that differs in
            it is shown and not ranked.
        budgets: trials of each strategy's tuning, where `held_equal` is `tuned`.

    Raises:
        UsageError: two runs have the same strategy and seed, or runs differ in rows or documents.
    """
    clean = clean_rows(evidence, baselines)
    return summarize_clean(clean, held_equal=held_equal, budgets=budgets)


def summarize_clean(
    clean: CleanRows, *, held_equal: HeldEqual, budgets: Mapping[str, int] | None = None
) -> Summary:
    """Summarize runs and baselines of which leaked rows are left out already; see `summarize`."""
    runs, probes = by_strategy(clean.evidence), probes_of(clean.evidence)
    if clean.leaked is not None and clean.leaked.leaked == clean.leaked.n:
        return _nothing_clean(clean.leaked, held_equal)
    unfair = not_ranked(runs, held_equal, budgets)
    pairs = _all_differences(runs, probes, unfair)
    standings = _with_ties([_standing(name, of, probes) for name, of in runs.items()], pairs)
    best = best_baseline(clean.baselines)
    summary = Summary(
        answer="",
        held_equal=held_equal,
        standings=standings,
        differences=[pair for of in pairs.values() for pair in of],
        matched=_all_matched(runs, probes, standings, unfair),
        fronts=_fronts(standings, probes),
        baselines=sorted(
            clean.baselines, key=lambda one: (one.accuracy is not None, one.accuracy or 0.0)
        ),
        against_baseline=[
            found
            for standing in (standings if best is not None else ())
            if best is not None
            if (found := _against(standing.strategy, runs[standing.strategy], best, clean))
        ],
        leaked=clean.leaked,
    )
    sentences = [answer(summary), *([] if clean.leaked is None else [str(clean.leaked)])]
    return dataclasses.replace(summary, answer=" ".join(sentences))


def _against(name: str, runs: BySeed, best: Baseline, clean: CleanRows) -> AgainstBaseline | None:
    """Compare a strategy with the most accurate baseline; in macro F1 where it is not more accurate.

    Then every baseline has to be beaten in one of the two: always naming the frequent label is
    accurate, and counting words finds rare ones.
    """
    found = against_baseline(name, runs, best)
    if found is None or found.beats:
        return found
    by_f1 = macro_f1_against(name, runs, best)
    others = [one for one in clean.baselines if one.accuracy is not None and one is not best]
    beaten = by_f1 is not None and all(
        ((own := against_baseline(name, runs, one)) is not None and own.beats)
        or macro_f1_against(name, runs, one) is not None
        for one in others
    )
    return by_f1 if beaten else found


def _nothing_clean(leaked: LeakedRows, held_equal: HeldEqual) -> Summary:
    """Return a summary without figures, for no row is left to compare on."""
    return Summary(str(leaked), held_equal, [], [], [], [], [], leaked=leaked)


def _all_differences(
    runs: Mapping[str, BySeed], probes: Sequence[str], unfair: Reasons
) -> dict[str, list[Difference]]:
    found = {
        ACCURACY: differences(
            ACCURACY,
            {name: answers(of) for name, of in runs.items()},
            unit="rows",
            not_ranked=unfair,
        )
    }
    for probe in probes:
        scores = {name: forgotten(of, probe) for name, of in runs.items()}
        measured = {name: of for name, of in scores.items() if of}
        key = forgetting_key(probe)
        found[key] = differences(key, measured, unit="documents", not_ranked=unfair)
    return found


def _standing(name: str, runs: BySeed, probes: Sequence[str]) -> Standing:
    reports = [one.run for one in runs.values()]
    figures = {
        ACCURACY: accuracy_estimate(runs),
        MACRO_F1: seed_estimate([report.learning.macro_f1 for report in reports], high=1.0),
    }
    figures |= {forgetting_key(probe): forgetting_estimate(runs, probe) for probe in probes}
    figures |= {
        cost: seed_estimate([getattr(report.cost, cost) for report in reports]) for cost in COSTS
    }
    return Standing(
        strategy=name,
        seeds=list(runs),
        learned=_learned(runs),
        figures=figures,
        examples_seen=equal_over_seeds(runs, "examples_seen"),
        steps=equal_over_seeds(runs, "steps"),
        ties={},
        collapsed=collapsed(runs),
    )


def _learned(runs: BySeed) -> bool:
    """Return whether the seeds together are better than predictions that do not read the text.

    Not whether each does: of five seeds on a hundred rows one falls short by chance more often
    than not. Their mean over the rows is known the better the more seeds there are.
    """
    rows = [one.rows for one in runs.values()]
    significance = next(iter(runs.values())).run.learning.significance
    with np.errstate(divide="ignore"):
        logs = np.log(np.array([one.probabilities for one in rows]))
    return significance_of_classes(
        rows[0].labels,
        np.array([one.predicted for one in rows]),
        np.maximum(logs, _LEAST_LOG),
        metric=None if significance is None else significance.metric,
    ).learned


def _with_ties(
    standings: Sequence[Standing], pairs: Mapping[str, Sequence[Difference]]
) -> list[Standing]:
    """Order standings by accuracy, and give ties a common letter."""
    ordered = sorted(standings, key=lambda one: -_mean(one, ACCURACY))
    letters: dict[str, dict[str, str]] = {one.strategy: {} for one in ordered}
    for key, found in pairs.items():
        sign = -1 if key == ACCURACY else 1
        known = [one for one in ordered if one.figures[key].mean is not None]
        best_first = [
            one.strategy for one in sorted(known, key=lambda one: sign * _mean(one, key))
        ]
        for name, shared in ties(best_first, found).items():
            letters[name][key] = shared
    return [dataclasses.replace(one, ties=letters[one.strategy]) for one in ordered]


def _all_matched(
    runs: Mapping[str, BySeed],
    probes: Sequence[str],
    standings: Sequence[Standing],
    unfair: Reasons,
) -> list[Matched]:
    learned = [one.strategy for one in standings if one.learned]
    paths = {
        one.strategy: {
            seed: () if control_failed(runs[one.strategy]) else e.run.forgetting.path
            for seed, e in runs[one.strategy].items()
        }
        for one in standings
    }
    found = [
        forgetting_at_matched_accuracy(probe, paths, learned=learned, not_ranked=unfair)
        for probe in probes
    ]
    return [one for one in found if one is not None]


def _fronts(standings: Sequence[Standing], probes: Sequence[str]) -> list[Front]:
    keys = [*map(forgetting_key, probes), *COSTS]
    fronts = []
    for key in keys:
        known = [one for one in standings if one.figures[key].mean is not None]
        figures = {one.strategy: (_mean(one, ACCURACY), _mean(one, key)) for one in known}
        fronts.append(Front(key, front(figures)))
    return fronts


def _mean(standing: Standing, key: str) -> float:
    mean = standing.figures[key].mean
    if mean is None:
        message = f"'{standing.strategy}' has no {key}"
        raise RuntimeError(message)
    return mean
