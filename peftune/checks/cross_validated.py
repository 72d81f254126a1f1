"""A linear probe's word on rows that it was not fitted on, and what cleanlab makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from peftune.data.kept_together import units_of
from peftune.data.rows import Rows
from peftune.data.splits import fold_numbers
from peftune.errors import DataError
from peftune.progress import counted

FOLDS = 5

_PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)

Matrix = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Confusion:
    """A label that stands where another is likelier.

    Args:
        given: the label of the rows.
        likely: the likelier one.
        rows: how many rows cleanlab finds to be so; of a weak probe most are its own errors.
    """

    given: str
    likely: str
    rows: int


@dataclass(frozen=True, slots=True)
class Probed:
    """What a linear probe says of rows that it was not fitted on.

    Args:
        logits: of the labels, (rows, labels), float64.
        given: the labels, (rows,), int64.
        folds: how many folds there were.
        penalty: the `C` that was chosen.
    """

    logits: Matrix
    given: Labels
    folds: int
    penalty: float


def folds_of(train: Rows, seed: int) -> tuple[Labels, int, NDArray[np.bool_]]:
    """Number the fold of each row whose label can be in two folds.

    Returns:
        The numbers, how many folds there are, and which labels are inside, (labels,), bool.
    """
    labels = np.asarray(train.labels)
    inside = np.bincount(labels) > 1
    while True:
        places = np.flatnonzero(inside[labels])
        if len(np.unique(labels[places])) < 2:  # noqa: PLR2004 - a task of one label is none
            message = "Wrong labels cannot be looked for: it takes two labels with two different texts each."
            raise DataError(message)
        rows = train.take(places.tolist())
        for folds in range(FOLDS, 1, -1):
            try:
                return fold_numbers(rows, folds, seed=seed), folds, inside
            except DataError:  # noqa: PERF203 - five at most
                continue
        inside = inside & ~_of_one_text(train, len(inside))


def _of_one_text(train: Rows, labels: int) -> NDArray[np.bool_]:
    """Find the labels whose rows all stay together, or else the one with the fewest rows."""
    units, given = units_of(train), np.asarray(train.labels)
    sets = np.array([len(np.unique(units[given == label])) for label in range(labels)])
    alone: NDArray[np.bool_] = sets == 1
    if not alone.any():
        alone[np.where(sets > 0, sets, len(train)).argmin()] = True
    return alone


def probe_rows(features: Matrix, given: Labels, numbers: Labels, folds: int) -> Probed:
    """Ask a linear probe about rows that it was not fitted on.

    Of the penalties the one with the lowest log loss on these rows is taken, from the strongest on
    until the loss rises.

    Args:
        features: (rows, features), float64.
        given: the labels, from 0 without a gap, (rows,), int64.
        numbers: the fold of each row, (rows,), int64.
        folds: how many there are.
    """
    lowest, best = np.inf, Probed(np.zeros((0, 0)), given, folds, 0.0)
    for penalty in counted(_PENALTIES, "looking for wrong labels", unit="penalties"):
        logits = np.zeros((len(given), int(given.max()) + 1))
        for fold in range(folds):
            held = numbers == fold
            logits[held] = fitted_logits(features[~held], given[~held], features[held], penalty)
        loss = float(-log_softmax(logits, axis=1)[np.arange(len(given)), given].mean())
        if loss > lowest:
            break
        lowest, best = loss, Probed(logits, given, folds, penalty)
    return best


def fitted_logits(features: Matrix, given: Labels, asked: Matrix, penalty: float) -> Matrix:
    """Fit a logistic regression as `linear_probe` does, and return logits: (asked, labels)."""
    from sklearn.linear_model import LogisticRegression

    scale = np.sqrt((features**2).mean(axis=0))
    scale[scale == 0] = 1.0
    probe = LogisticRegression(C=penalty, fit_intercept=False, max_iter=10_000)
    logits = probe.fit(features / scale, given).decision_function(asked / scale)
    return np.stack([-logits / 2, logits / 2], axis=1) if logits.ndim == 1 else np.asarray(logits)


def confident_learning(
    probed: Probed, names: Sequence[str]
) -> tuple[float, list[Confusion], NDArray[np.int64]]:
    """Ask cleanlab.

    Returns:
        The share of wrong labels by the confident joint; the confusions, the most frequent first;
        and the rows that cleanlab names, in order.
    """
    from cleanlab.count import compute_confident_joint, estimate_joint
    from cleanlab.filter import find_label_issues

    given, probabilities = probed.given, softmax(probed.logits, axis=1)
    joint = compute_confident_joint(given, probabilities)  # (given, likely), rows
    share = 1 - float(np.trace(estimate_joint(given, probabilities, confident_joint=joint)))
    confusions = [
        Confusion(names[row], names[column], int(joint[row, column]))
        for row, column in np.ndindex(*joint.shape)
        if row != column and joint[row, column] > 0
    ]
    confusions.sort(key=lambda confusion: -confusion.rows)
    flagged = find_label_issues(given, probabilities, confident_joint=joint, n_jobs=1)
    return share, confusions, np.flatnonzero(flagged)


def likely_others(probabilities: Matrix, given: Labels) -> Labels:
    """Return the likeliest label of each row but the given one, (rows,), int64."""
    others = probabilities.copy()
    others[np.arange(len(given)), given] = -1
    return np.asarray(others.argmax(axis=1))


def predicted_labels(features: Matrix, labels: Labels, asked: Matrix, penalty: float) -> Labels:
    """Fit a logistic regression to rows, and return the labels that it gives to others."""
    known, numbered = np.unique(labels, return_inverse=True)
    return np.asarray(known[fitted_logits(features, numbered, asked, penalty).argmax(axis=1)])
