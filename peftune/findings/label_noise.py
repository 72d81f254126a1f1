"""Find wrong labels in train with a linear probe of the base, on rows that it was not fitted on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import numpy as np
from scipy.special import softmax

from peftune.baselines.simple import frozen_base
from peftune.data.task_data import Task
from peftune.errors import UsageError
from peftune.findings.cross_validation import (
    Confusion,
    Labels,
    Matrix,
    NoiseRate,
    Probed,
    confident_learning,
    even_noise,
    folds_of,
    likely_others,
    one_way_noise,
    predicted_labels,
    probe_rows,
)
from peftune.findings.finding import LISTED, CheckReport, CheckResult, FindingType
from peftune.models.inference import pooled_states
from peftune.models.prepare import preparation_of
from peftune.recipe import Recipe
from peftune.recipe.task_type import SINGLE_LABEL
from peftune.stats.intervals import Interval, share_change_interval
from peftune.stats.tests import mcnemar

LABEL_NOISE = FindingType(
    code="label-noise",
    scope="data",
    looks_for="Rows of train whose label is probably wrong. Made with `--label-noise` alone.",
    threshold="A linear probe of the base, asked about rows that it was not fitted on, is wrong where it is sure of itself, too, in 3% of all rows or more (the lower end of a 95% interval).",
    remedy="Read the rows that are named, the first of label_noise.rows before all others, and mend their labels or leave them out.",
    sound="No wrong labels were found.",
    tasks=(SINGLE_LABEL.name,),
)

LEAST = 0.03
"""Wrong labels were found where the interval of their share begins above it: on sound rows a probe is
sure and wrong about as many."""
FEW = 0.1
"""Where at most this share of the labels can be wrong, none were found; otherwise nobody can tell."""

LEAST_RIGHT = 0.45
"""With fewer of the given labels right, the shape of the likelihood is chance."""
LEAST_ACCURACY = 0.75
"""A probe that gives fewer right labels misreads kinds of texts, so no pair is named on its word."""

_PAIRS = 10
"""Pairs of labels that are listed, and looked at for one in the place of the other; the most frequent."""

Verdict = Literal["found", "not-found", "cannot-tell"]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row whose label is probably wrong.

    Args:
        row: its number in the train file, from 0.
        given: its label.
        likely: the label that the probe finds likelier.
        probability: of the given label, by a probe that was not fitted on the row.
    """

    row: int
    given: str
    likely: str
    probability: float


@dataclass(frozen=True, slots=True)
class OneWay:
    """Rows with one label of which the probe is sure that it is another, rightly or not.

    Args:
        given: the label that stands there.
        likely: the other one.
        share: most likely share of such rows among all.
        interval: its 95% interval, widened for all pairs of labels.
    """

    given: str
    likely: str
    share: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The linear probe on the validation rows, fitted with and without the suspects.

    Args:
        n: validation rows.
        accuracy: of the probe that was fitted to all rows of train.
        accuracy_without: of the probe that was fitted to all but the suspects.
        difference: the second less the first.
        ci95: 95% interval of the difference over the rows (Agresti and Min).
        p_value: of McNemar's exact test.
    """

    n: int
    accuracy: float
    accuracy_without: float
    difference: float
    ci95: Interval
    p_value: float


@dataclass(frozen=True, slots=True)
class LabelNoise:
    """What was found out about wrong labels in train.

    Args:
        verdict: `found`; `not-found`, where at most a tenth of the labels can be wrong; otherwise
            `cannot-tell`.
        share: most likely share of wrong labels, if they are spread evenly over the labels.
        interval: its 95% interval.
        one_way: the likeliest pair of labels of which one stands for the other; None where cleanlab
            names no pair.
        probe_accuracy: share of the given labels that the probe gives to rows it has not seen.
        probe_accuracy_if_right: the same of right labels, if the share is the likely one.
        confident_joint_share: the share of wrong labels by cleanlab's confident joint, which
            counts errors of the probe as well.
        n: rows looked at.
        folds: in how many folds.
        penalty: `C` of the probe, chosen by the log loss on rows that it was not fitted on.
        outside: labels that have no two rows to put into two folds, and were left out.
        confusions: the most frequent ones, the first before all.
        suspects: how many rows are suspected: as many as labels are likely to be wrong, and no
            more than cleanlab names. Where those of `one_way` are named
            in their place, the verdict is `cannot-tell`.
        rows: the suspects, the least probable labels first; at most the first 1,000.
        left_out: the score without the suspects; None where there are none.
    """

    verdict: Verdict
    share: float
    interval: Interval
    one_way: OneWay | None
    probe_accuracy: float
    probe_accuracy_if_right: float
    confident_joint_share: float
    n: int
    folds: int
    penalty: float
    outside: Sequence[str]
    confusions: Sequence[Confusion]
    suspects: int
    rows: Sequence[Suspect]
    left_out: LeftOut | None


@dataclass(frozen=True, slots=True)
class LabelNoiseReport(CheckReport):
    """All checks of a recipe's data, and what was found out about wrong labels.

    Args:
        label_noise: None where the data cannot be used.
    """

    label_noise: LabelNoise | None = None


def refuse_label_noise(recipe: Recipe) -> None:
    """Say at once why wrong labels cannot be looked for.

    Raises:
        UsageError: the task has no single label, or cleanlab is not installed.
    """
    if recipe.task not in LABEL_NOISE.tasks:
        message = f"Wrong labels are looked for in single-label tasks only (the recipe's task is {recipe.task}). Leave --label-noise out."
        raise UsageError(message)
    if find_spec("cleanlab") is None:
        message = "Looking for wrong labels needs cleanlab, which is not installed. Run: pip install 'peftune[label-noise]'"
        raise UsageError(message)


def with_label_noise(report: CheckReport, recipe: Recipe, task: Task) -> LabelNoiseReport:
    """Add to a report what a linear probe of the base says of the labels of train.

    Args:
        report: of the other checks.
        recipe: a resolved recipe.
        task: its rows; ids of train are row numbers.

    Raises:
        DataError: no two labels have rows to put into two folds.

    References:
        Northcutt et al. 2021, Confident Learning, Journal of Artificial Intelligence Research 70.
    """
    model = frozen_base(recipe, task)
    preparation = preparation_of(model)
    train, validation = (
        pooled_states(
            model, preparation.tokenizer, rows.texts, max_length=preparation.max_length
        ).astype(np.float64)  # (rows, hidden)
        for rows in (task.train, task.validation)
    )
    found = label_noise_of(task, train, validation, seed=recipe.data.seed)
    result = result_of(found)
    status = "warn" if result.status == "warn" and report.status == "pass" else report.status
    return dataclasses.replace(
        without_label_noise(report),
        status=status,
        results=[*report.results, result],
        label_noise=found,
    )


def without_label_noise(report: CheckReport) -> LabelNoiseReport:
    """Return a report of data that cannot be used, so that nothing is known of their labels."""
    values = {field.name: getattr(report, field.name) for field in dataclasses.fields(report)}
    return LabelNoiseReport(**values)


def label_noise_of(task: Task, train: Matrix, validation: Matrix, *, seed: int) -> LabelNoise:
    """Find out how many labels of train are wrong, and which.

    Args:
        task: the rows; ids of train are row numbers.
        train: features of its train rows, (rows, features), float64.
        validation: features of its validation rows.
        seed: seed of the data.
    """
    counts = np.bincount(task.train.labels, minlength=len(task.labels))
    numbers, folds, inside = folds_of(task.train, seed)
    outside = [task.labels[label] for label in np.flatnonzero((counts > 0) & ~inside)]
    names = [task.labels[label] for label in np.flatnonzero(inside)]
    places = np.flatnonzero(inside[np.asarray(task.train.labels)])
    given = (np.cumsum(inside) - 1)[np.asarray(task.train.labels)[places]]
    features = train[places]
    probed = probe_rows(features, given, numbers, folds)
    share, confusions, flagged = confident_learning(probed, names)
    even = even_noise(probed.logits, given)
    one_way = _one_way(probed, confusions, names)
    probabilities = softmax(probed.logits, axis=1)
    accuracy = float((probabilities.argmax(axis=1) == given).mean())
    verdict = verdict_of(even, one_way, accuracy)
    of_given = probabilities[np.arange(len(given)), given]
    likely = likely_others(probabilities, given)
    expected = even.share if verdict == "found" else 0.0
    if one_way is not None and names_pair(verdict, one_way, even.accuracy):
        expected = one_way.share
        way = names.index(one_way.given), names.index(one_way.likely)
        flagged = flagged[(given[flagged] == way[0]) & (likely[flagged] == way[1])]
    suspects = flagged[np.argsort(of_given[flagged], kind="stable")]
    suspects = suspects[: round(expected * len(given))]
    return LabelNoise(
        verdict=verdict,
        share=even.share,
        interval=even.interval,
        one_way=one_way,
        probe_accuracy=accuracy,
        probe_accuracy_if_right=even.accuracy,
        confident_joint_share=share,
        n=len(given),
        folds=probed.folds,
        penalty=probed.penalty,
        outside=outside,
        confusions=confusions[:_PAIRS],
        suspects=len(suspects),
        rows=[
            Suspect(
                int(task.train.ids[places[row]]),
                names[given[row]],
                names[likely[row]],
                float(of_given[row]),
            )
            for row in suspects[:LISTED]
        ],
        left_out=_left_out(
            task, train, validation, suspects=places[suspects], penalty=probed.penalty
        ),
    )


def verdict_of(even: NoiseRate, one_way: OneWay | None, accuracy: float) -> Verdict:
    """Return whether labels are wrong, or that it cannot be told."""
    if accuracy < LEAST_RIGHT:
        return "cannot-tell"
    if even.interval[0] > LEAST:
        return "found"
    low, high = (0.0, 0.0) if one_way is None else one_way.interval
    return "not-found" if low <= LEAST and max(even.interval[1], high) <= FEW else "cannot-tell"


def names_pair(verdict: Verdict, one_way: OneWay | None, accuracy: float) -> bool:
    """Return whether rows of a pair of labels are named, where no even noise was found."""
    sure = accuracy >= LEAST_ACCURACY and one_way is not None and one_way.interval[0] > LEAST
    return verdict == "cannot-tell" and sure


def _one_way(
    probed: Probed, confusions: Sequence[Confusion], names: Sequence[str]
) -> OneWay | None:
    """Look at the pairs of labels that cleanlab finds most often."""
    ways = [(names.index(each.likely), names.index(each.given)) for each in confusions[:_PAIRS]]
    found = one_way_noise(probed.logits, probed.given, ways)
    if found is None:
        return None
    rate, (right, written) = found
    return OneWay(names[written], names[right], rate.share, rate.interval)


def result_of(found: LabelNoise) -> CheckResult:
    """Put what was found into a sentence."""
    left = (
        f" Left out for having no two texts: {', '.join(found.outside)}." if found.outside else ""
    )
    probe = f"A linear probe of the base gives {found.probe_accuracy:.0%} of the labels of rows that it was not fitted on"
    even = (
        f"if wrong labels are spread evenly, {_between(found.interval)} of {found.n:,} are wrong"
    )
    if found.verdict == "found":
        message = f"About {found.share:.1%} of {found.n:,} labels are wrong ({_between(found.interval)}, 95% interval); {found.suspects:,} rows are suspected.{_scores(found.left_out)}{left}"
        rows = sorted(suspect.row for suspect in found.rows)
        return dataclasses.replace(
            LABEL_NOISE.in_rows(message, {"train": rows}), count=found.suspects
        )
    if found.verdict == "not-found":
        message = f"No wrong labels were found. {probe}; {even}.{left}"
    elif found.one_way is None or not names_pair(
        found.verdict, found.one_way, found.probe_accuracy_if_right
    ):
        message = f"Cannot tell: {probe[0].lower()}{probe[1:]}; {even}.{left}"
    else:
        way = found.one_way
        message = f"Cannot tell: about {way.share:.1%} of {found.n:,} rows ({_between(way.interval)}, 95% interval) have the label '{way.given}' where the probe is sure of '{way.likely}'. Their labels are wrong, or the probe misreads such texts; read some of them. {probe}; {even}.{left}"
        rows = sorted(suspect.row for suspect in found.rows)
        return dataclasses.replace(
            LABEL_NOISE.in_rows(message, {"train": rows}), count=found.suspects
        )
    return dataclasses.replace(LABEL_NOISE.passed(), message=message)


def _between(interval: Interval) -> str:
    return f"{interval[0]:.1%} to {interval[1]:.1%}"


def _scores(left_out: LeftOut | None) -> str:
    if left_out is None:
        return ""
    interval = f", 95% interval {left_out.ci95[0]:+.3f} to {left_out.ci95[1]:+.3f}"
    return f" Without them the probe's accuracy on {left_out.n:,} validation rows goes from {left_out.accuracy:.3f} to {left_out.accuracy_without:.3f} ({left_out.difference:+.3f}{interval}, p = {left_out.p_value:.2g})."


def _left_out(
    task: Task,
    train: Matrix,
    validation: Matrix,
    *,
    suspects: Labels,
    penalty: float,
) -> LeftOut | None:
    """Score the probe on validation with and without the suspects; None where there are none, or one label is left."""
    labels, truth = np.asarray(task.train.labels), np.asarray(task.validation.labels)
    kept = np.setdiff1d(np.arange(len(labels)), suspects)
    if len(suspects) == 0 or len(np.unique(labels[kept])) < 2:  # noqa: PLR2004 - nothing to classify
        return None
    every, without = (
        (predicted_labels(train[rows], labels[rows], validation, penalty) == truth).astype(
            np.float64
        )
        for rows in (np.arange(len(labels)), kept)
    )
    return LeftOut(
        len(truth),
        float(every.mean()),
        float(without.mean()),
        float((without - every).mean()),
        share_change_interval(every, without),
        mcnemar(every, without).p_value,
    )
