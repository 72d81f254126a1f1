"""What each run of a comparison contributes to a figure, read from its evidence."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from peftune.compare.pairs import Scores
from peftune.compare.summary import Estimate
from peftune.diagnosis import Collapse, collapsed_seeds
from peftune.errors import UsageError
from peftune.runs.evidence import Evidence
from peftune.stats.crossed import Mean, crossed_mean, crossed_share, seed_mean
from peftune.stats.intervals import contributions

ACCURACY = "accuracy"
MACRO_F1 = "macro_f1"
COSTS = ("train_seconds", "peak_memory_bytes", "artifact_bytes", "trainable_parameters")
NOT_MEASURED = "not measured in every run"
NOWHERE_MEASURED = "not measured in any run"

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
