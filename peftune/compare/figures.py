"""What each run of a comparison, and each baseline, contributes to a figure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from peftune.baselines.scores import Baseline
from peftune.compare.clean_rows import NOT_KEPT, places_of
from peftune.compare.pairs import Scores
from peftune.compare.summary import AgainstBaseline, Estimate
from peftune.diagnosis import Collapse, collapsed_seeds
from peftune.errors import UsageError
from peftune.runs.evidence import Evidence
from peftune.stats.crossed import FEWEST_SEEDS, Mean, crossed_mean, crossed_share, seed_mean
from peftune.stats.intervals import Interval, contributions, share_interval

ACCURACY = "accuracy"
MACRO_F1 = "macro_f1"
COSTS = ("train_seconds", "peak_memory_bytes", "artifact_bytes", "trainable_parameters")
NOT_MEASURED = "not measured in every run"
NOWHERE_MEASURED = "not measured in any run"
OF_THESE_MODELS = "fewer than three seeds: the interval speaks of these models on other rows"
CRITICAL = 1.96
"""Standard errors on either side of a 95% interval."""

BySeed = Mapping[int, Evidence]


def forgetting_key(probe: str) -> str:
    """Return the key of a probe's figure."""
    return f"forgetting.{probe}"


def by_strategy(evidence: Sequence[Evidence]) -> dict[str, BySeed]:
    """Sort runs by strategy and seed; both must be told apart by their names.

    Raises:
        UsageError: two runs have the same strategy and seed, or runs differ in rows or documents.
    """
    sorted_: dict[str, dict[int, Evidence]] = {}
    for one in sorted(evidence, key=lambda one: one.run.run.seed):
        runs = sorted_.setdefault(one.run.run.strategy, {})
        if other := runs.get(one.run.run.seed):
            message = f"'{other.run.folder}' and '{one.run.folder}' are both runs of '{one.run.run.strategy}' with seed {one.run.run.seed}. Leave one of them out."
            raise UsageError(message)
        runs[one.run.run.seed] = one
    for one in evidence[1:]:
        _refuse_other_rows(evidence[0], one)
    # In the order in which the strategies were given, not in that of the seeds.
    return {name: sorted_[name] for name in dict.fromkeys(e.run.run.strategy for e in evidence)}


def probes_of(evidence: Sequence[Evidence]) -> list[str]:
    """List the probes of any run, in the order of the recipe."""
    return list(dict.fromkeys(probe for one in evidence for probe in one.documents))


def answers(runs: BySeed) -> Scores:
    """Return right (1) and wrong (0) of each row, by seed."""
    return {
        seed: (one.rows.labels == one.rows.predicted).astype(np.float64)
        for seed, one in runs.items()
    }


def collapsed(runs: BySeed) -> list[Collapse]:
    """List the seeds of a strategy that give nearly every row one label, while others do not."""
    rows = next(iter(runs.values())).rows
    return collapsed_seeds(
        {seed: one.rows.predicted for seed, one in runs.items()}, rows.labels, rows.names
    )


def against_baseline(name: str, runs: BySeed, baseline: Baseline) -> AgainstBaseline | None:
    """Set a strategy against a baseline on the rows that both answered.

    The baseline's own errors are on the same rows, so that it is no fixed number: what counts is the
    difference row by row. Of a baseline with several choices of examples a row counts by the share
    of them that answers it right. With one or two seeds the interval is over rows, of the mean of these
    models.

    Args:
        name: of the strategy.
        runs: its runs.
        baseline: its labels, and those of the rows.

    Returns:
        None where the baseline was not measured.
    """
    if baseline.accuracy is None:
        return None
    right = np.array(list(answers(runs).values()))  # (seeds, rows)
    rows = next(iter(runs.values())).rows
    places = places_of(baseline, rows)
    if baseline.predicted is None or places is None:
        return _beside(name, right, baseline)
    said = np.asarray(baseline.predicted) == rows.labels[places]  # (choices, rows)
    gained = right[:, places] - said.mean(axis=0)
    few = len(gained) < FEWEST_SEEDS
    mean = crossed_mean(gained.mean(axis=0, keepdims=True) if few else gained, unit="rows")
    interval = None if mean.ci95 is None else _not_too_sure(mean.ci95, gained.mean(axis=0))
    return AgainstBaseline(
        strategy=name,
        baseline=baseline.name,
        n=len(places),
        mean=mean.value,
        ci95=interval,
        beats=interval is not None and interval[0] > 0,
        reason=OF_THESE_MODELS if few and interval else mean.reason,
    )


def _not_too_sure(interval: Interval, gained: NDArray[np.float64]) -> Interval:
    """Widen an interval to that of Agresti and Min, which holds where few rows make the difference.

    Two rows that the one answers and the other does not are no proof of anything, though their
    mean has a small error: what was never seen, a row won by the other, may still be. Half
    a row is added to either side, as in `share_change_interval`, whose answers may be shares here.
    """
    count = len(gained) + 2
    mean = float(gained.sum()) / count
    error = (float((gained**2).sum()) + 1 - count * mean**2) ** 0.5 / count
    low, high = mean - CRITICAL * error, mean + CRITICAL * error
    return max(-1.0, min(interval[0], low)), min(1.0, max(interval[1], high))


def _beside(name: str, right: NDArray[np.float64], baseline: Baseline) -> AgainstBaseline:
    """Compare with an accuracy alone: two intervals that do not overlap differ, however paired."""
    own = crossed_share(right if len(right) >= FEWEST_SEEDS else right.mean(axis=0, keepdims=True))
    accuracy = baseline.accuracy or 0.0
    rows = len(baseline.rows) or int(baseline.details.get("n", right.shape[1]))
    above = own.ci95 is not None and own.ci95[0] > share_interval(accuracy, rows)[1]
    return AgainstBaseline(
        strategy=name,
        baseline=baseline.name,
        n=None,
        mean=own.value - accuracy,
        ci95=None,
        beats=above,
        reason=f"{NOT_KEPT}: it is beaten where the two intervals do not overlap",
    )


def forgotten(runs: BySeed, probe: str) -> Scores:
    """Return each document's contribution to forgetting, by seed; empty if a run lacks the probe."""
    if any(probe not in one.documents for one in runs.values()):
        return {}
    found: dict[int, NDArray[np.float64]] = {}
    for seed, one in runs.items():
        scores = one.documents[probe]
        change = scores.after - scores.before
        change = -change if scores.higher_is_better else change
        found[seed] = contributions(change[None], scores.weight)[0]
    return found


def accuracy_estimate(runs: BySeed) -> Estimate:
    """Average the accuracy over seeds and rows."""
    values = [one.run.learning.accuracy for one in runs.values()]
    mean = crossed_share(np.array(list(answers(runs).values())))
    return _estimate(mean, values, high=1.0)


def forgetting_estimate(runs: BySeed, probe: str) -> Estimate:
    """Average a probe's forgetting over seeds and documents."""
    scores = forgotten(runs, probe)
    if not scores:
        return Estimate(None, None, [None] * len(runs), NOT_MEASURED)
    values = [one.run.forgetting[probe].forgetting for one in runs.values()]
    mean = crossed_mean(np.array(list(scores.values())), unit="documents")
    return _estimate(mean, values, low=None)


def seed_estimate(values: Sequence[float | None], *, high: float | None = None) -> Estimate:
    """Average a figure that each run has one of, and that is never below zero."""
    known = [value for value in values if value is not None]
    if not known:
        return Estimate(None, None, list(values), NOWHERE_MEASURED)
    mean = seed_mean(known)
    if len(known) < len(values):
        missing = f"not measured in {len(values) - len(known)} of {len(values)} runs"
        reasons = "; ".join(filter(None, (missing, mean.reason)))
        mean = dataclasses.replace(mean, reason=reasons)
    return _estimate(mean, values, high=high)


def _estimate(
    mean: Mean,
    values: Sequence[float | None],
    *,
    low: float | None = 0.0,
    high: float | None = None,
) -> Estimate:
    """Keep an interval within what the figure can be."""
    interval = mean.ci95
    if interval is not None and (low is not None or high is not None):
        below, above = np.clip(interval, low, high)
        interval = (float(below), float(above))
    return Estimate(mean.value, interval, list(values), mean.reason)


def _refuse_other_rows(first: Evidence, other: Evidence) -> None:
    """All runs scored the same rows and documents; anything else is no paired comparison."""
    pair = f"'{first.run.folder}' and '{other.run.folder}'"
    if list(first.rows.ids) != list(other.rows.ids) or not np.array_equal(
        first.rows.labels, other.rows.labels
    ):
        message = f"{pair} did not score the same rows, so they cannot be compared. Run them on the same data."
        raise UsageError(message)
    for probe in set(first.documents) & set(other.documents):
        if not np.array_equal(first.documents[probe].weight, other.documents[probe].weight):
            message = f"{pair} did not measure '{probe}' on the same documents, so they cannot be compared. Run them with the same probes."
            raise UsageError(message)
