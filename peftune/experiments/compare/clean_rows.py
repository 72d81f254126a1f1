"""The rows that no run of a comparison has read in training, with runs and baselines on them alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peftune.baselines.baseline import TITLES, Baseline, Scores, scored_baseline
from peftune.data.rows import Rows
from peftune.experiments.compare.summary import LeakedRows
from peftune.experiments.report import PathPoint, Run
from peftune.experiments.run_evidence import Evidence, ScoredRows
from peftune.tasks import methods_of

NOT_KEPT = "which rows it answers right is not kept"
ALL_LEAKED = "all rows that it was asked about were read in training"
_LEAST = np.finfo(np.float64).tiny
_OF_ALL_ROWS = ("accuracy", "macro_f1", "log_loss", "ece", "uncalibrated")
"""Scores in the details of a prompted baseline that count all its rows."""


@dataclass(frozen=True, slots=True)
class CleanRows:
    """Runs and baselines on the same clean rows.

    Args:
        evidence: the runs; where rows are left out, with the accuracies of the others.
        baselines: the baselines, in the order in which they were given.
        leaked: what was left out; None where no row leaked.
    """

    evidence: Sequence[Evidence]
    baselines: Sequence[Baseline]
    leaked: LeakedRows | None


def clean_rows(evidence: Sequence[Evidence], baselines: Sequence[Baseline] = ()) -> CleanRows:
    """Leave out of runs and baselines the rows whose text any of the runs read in training.

    A row that was learned by heart says nothing of other rows, and a model that learns more by heart gains
    more by it: a classifier of word pairs as much as a model. What is clean already stays as it is.

    Args:
        evidence: finished runs of the same rows.
        baselines: baselines on these rows or on some of them.
    """
    lengths = {len(one.rows.leaked) for one in evidence}
    if len(lengths) != 1 or not len(evidence[0].rows.labels):
        return CleanRows(evidence, baselines, None)
    leaked = np.any([one.rows.leaked for one in evidence], axis=0)
    split, n = evidence[0].run.learning.split, len(leaked)
    if not leaked.any():
        return CleanRows(evidence, baselines, _not_found(evidence))
    if leaked.all():
        return CleanRows(evidence, baselines, LeakedRows(split, n, n))
    clean = [_baseline_without(one, evidence[0].rows, leaked) for one in baselines]
    scores = {
        one.name: {"accuracy": one.accuracy, "macro_f1": one.macro_f1 or 0.0}
        for one in clean
        if one.accuracy is not None
    }
    runs = [_evidence_without(one, leaked, scores) for one in evidence]
    matched = all(
        now.run.forgetting.path or not then.run.forgetting.path
        for then, now in zip(evidence, runs, strict=True)
    )
    return CleanRows(runs, clean, LeakedRows(split, n, int(leaked.sum()), matched=matched))


def _not_found(evidence: Sequence[Evidence]) -> LeakedRows | None:
    """Return the number of leaked rows, where a run counts them and does not name them."""
    for one in evidence:
        counted = one.run.checks.leaked_score
        if counted is not None and counted.n == len(one.rows.ids):
            return LeakedRows(counted.split, counted.n, counted.leaked, left_out=False)
    return None


def baselines_of(one: Evidence) -> list[Baseline]:
    """Return the baselines in a run's own report, with their label of every row where it is known.

    In a run of an earlier version, which did not keep the labels, the majority class is known where
    only one label has its accuracy.
    """
    found = []
    for name, scores in one.run.learning.baselines.items():
        predicted = one.rows.baselines.get(name)
        if predicted is None and name == "majority":
            predicted = _most_frequent(one.rows, scores["accuracy"])
        found.append(
            Baseline(
                name,
                TITLES.get(name, name),
                scores["accuracy"],
                scores["macro_f1"],
                rows=() if predicted is None else tuple(one.rows.ids),
                predicted=None if predicted is None else (tuple(map(int, predicted)),),
            )
        )
    return found


def _most_frequent(rows: ScoredRows, accuracy: float) -> NDArray[np.int64] | None:
    counts = np.bincount(rows.labels, minlength=len(rows.names))
    fitting = np.flatnonzero(np.isclose(counts, accuracy * len(rows.labels)))
    return np.full(len(rows.labels), fitting[0]) if len(fitting) == 1 else None


def places_of(baseline: Baseline, rows: ScoredRows) -> NDArray[np.int64] | None:
    """Return the places of a baseline's rows among the evaluation rows; None where they are unknown."""
    ids = list(rows.ids)
    if list(baseline.rows) == ids:
        return np.arange(len(ids))
    place = {row: index for index, row in enumerate(ids)}
    if len(place) < len(ids) or not baseline.rows or not place.keys() >= set(baseline.rows):
        return None
    return np.array([place[row] for row in baseline.rows])


def _baseline_without(baseline: Baseline, rows: ScoredRows, leaked: NDArray[np.bool_]) -> Baseline:
    if baseline.accuracy is None:
        return baseline
    places = places_of(baseline, rows)
    known = baseline.predicted is not None and places is not None
    kept = np.flatnonzero(~leaked[places]).tolist() if known else []
    if baseline.predicted is None or places is None or not kept:
        reason = ALL_LEAKED if known else NOT_KEPT
        return Baseline(
            baseline.name,
            baseline.title,
            seconds=baseline.seconds,
            details=baseline.details,
            reason=reason,
        )
    asked = places[kept]
    return scored_baseline(
        baseline.name,
        title=baseline.title,
        evaluation=Rows(
            [rows.ids[row] for row in asked],
            [rows.texts[row] for row in asked],
            tuple(rows.labels[asked].tolist()),
        ),
        predicted=[[choice[row] for row in kept] for choice in baseline.predicted],
        labels=len(rows.names),
        seconds=baseline.seconds,
        details=_details_without(baseline.details, len(kept)),
    )


def _details_without(details: Mapping[str, object], n: int) -> dict[str, object]:
    """Keep what was chosen, without scores that count every row."""
    kept = {key: value for key, value in details.items() if key not in _OF_ALL_ROWS}
    if "n" in kept:
        kept["n"] = n
    choices = kept.get("choices")
    if isinstance(choices, list | tuple):
        kept["choices"] = [
            {key: value for key, value in choice.items() if key not in _OF_ALL_ROWS}
            for choice in choices
        ]
    return kept


def _evidence_without(
    one: Evidence, leaked: NDArray[np.bool_], baselines: Mapping[str, Scores]
) -> Evidence:
    rows, run = one.rows.without(leaked), one.run
    significance = run.learning.significance
    learning = methods_of(run.learning.task).score(
        np.log(np.maximum(rows.probabilities, _LEAST)),
        tuple(rows.labels.tolist()),
        names=rows.names,
        split=run.learning.split,
        metric=None if significance is None else significance.metric,
        baselines={name: baselines[name] for name in run.learning.baselines if name in baselines},
        curve=run.learning.curve,
    )
    forgetting = dataclasses.replace(run.forgetting, path=_path_without(run, learning.accuracy))
    return dataclasses.replace(
        one, run=dataclasses.replace(run, learning=learning, forgetting=forgetting), rows=rows
    )


def _path_without(run: Run, accuracy: float | None) -> tuple[PathPoint, ...]:
    """Read a path on the clean rows; empty where its points were measured on all rows alone."""
    points = [
        dataclasses.replace(
            point,
            # The kept model at its whole strength is the one that answered the rows.
            accuracy=accuracy
            if point.step is None and point.strength == 1
            else point.accuracy_without_leaked,
            macro_f1=None,
        )
        for point in run.forgetting.path
    ]
    return tuple(points) if all(point.accuracy is not None for point in points) else ()
